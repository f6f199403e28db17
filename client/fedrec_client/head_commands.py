"""`flower-client predict` and `evaluate`: the newest head of a task, asked beside the partner's own rows."""

from pathlib import Path
from typing import Annotated

import typer

from fedrec_client.command_words import HERE, AsJson, Folder, node_of, say


def predict(
    user: Annotated[str, typer.Argument(help="As in the imported rows; somebody unknown has the public's taste.")],
    items: Annotated[list[str] | None, typer.Argument(help="Of the catalogue; none: those it says most of.")] = None,
    k: Annotated[int, typer.Option("-k", help="How many of these.", min=1)] = 10,
    folder: Folder = HERE,
    as_json: AsJson = False,
) -> None:
    """What the newest head of a task says of a user and items: stars, or the probability of a like. Stays here.

    Example: `flower-client predict 42 --dir /srv/fedrec-node`
    """
    from fedrec_client.held_head import HeldHead, highest

    held = HeldHead.load(node_of(folder))
    found = held.of_items(user, items) if items else highest(held, user, k)
    said = [{"item": item, "title": held.title(item), held.terms.task.name: value} for item, value in found]
    words = "\n".join(f"{value:6.3f}  {item}  {held.title(item)}" for item, value in found)
    say({"round": held.round, "user": user, "predictions": said}, as_json, words)


def evaluate(
    file: Annotated[Path, typer.Argument(help="Rows that were held back: CSV, TSV, Parquet or JSON lines.")],
    folder: Folder = HERE,
    user: Annotated[str, typer.Option(help="Column of the user.")] = "user",
    item: Annotated[str, typer.Option(help="Column of the item.")] = "item",
    timestamp: Annotated[str, typer.Option(help="Column of the time: Unix seconds or ISO 8601.")] = "timestamp",
    rating: Annotated[str, typer.Option(help="Column of the rating.")] = "rating",
    as_json: AsJson = False,
) -> None:
    """Ask the newest head of a task about rows that were not imported, each from what its user has here; figures.

    They are of private rows, charged to nobody: for this partner's own people.

    Example: `flower-client evaluate held.csv --json`
    """
    from fedrec.data.interactions import ColumnMapping
    from fedrec_client.held_head import HeldHead, figures_of

    held = HeldHead.load(node_of(folder))
    found = figures_of(held, file, ColumnMapping(user, item, rating, timestamp))
    told = {"round": held.round, "task": held.terms.task.name, **found}
    words = ", ".join(f"{name} {value:.4f}" for name, value in found["figures"].items())
    say(told, as_json, f"round {held.round}, {found['rows']} rows of {found['users']} users: {words}")
