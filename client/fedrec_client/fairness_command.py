"""`flower-client fairness`: who is shown and who is served, paid for by the node's own ledger."""

from typing import Annotated, Any

import typer
from rich.table import Table

from fedrec_client.command_words import HERE, AsJson, Folder, console, node_of, say


def fairness(
    epsilon: Annotated[float, typer.Option(help="What it may cost of the budget, for good.", min=0.01, max=100)],
    folder: Folder = HERE,
    items: Annotated[list[str], typer.Option(help="How items are divided: category, or a field.")] = ["category"],  # noqa: B006
    people: Annotated[
        list[str], typer.Option(help="A label of people with the values told apart: gender=f,m; all others are other.")
    ] = [],  # noqa: B006
    days: Annotated[float, typer.Option(help="Lists of so many days are looked at.", min=0.1, max=3650)] = 30.0,
    tenant: Annotated[str, typer.Option(help="Of several shops, which; the first otherwise.")] = "",
    cost: Annotated[
        bool, typer.Option("--cost", help="Tell what it would cost and need; pay nothing, read nothing of people.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure exposure by group of items and clicks by group of people, noised so that it may be published.

    The epsilon is charged to the node's ledger before anybody's list is read, and refused where the budget does not
    reach; asking again costs again. docs/fairness.md says what the figures are and what they do not cover.

    Example: `flower-client fairness --epsilon 1 --people gender=f,m --items category --items brand`
    """
    from fedrec_client.fairness import FairnessQuestion, measure, read_people

    asked = FairnessQuestion(epsilon, tuple(dict.fromkeys(items)), read_people(people), days, tenant)
    told = measure(node_of(folder), asked, pays=not cost)
    words = f"epsilon {epsilon:g} at delta {told['delta']:g}, unit {told['unit']}"
    left = f"{told['epsilon_left']:.3f} left"
    unpaid = f"it would cost {words}; {left}; nothing was paid, and nothing of people read"
    words = f"paid {words}; {left}" if told["is_paid"] else unpaid
    say(told, as_json, f"{words}. By {told['mechanism']}. A group needs about {told['people_needed']} people.")
    if not as_json and told["is_paid"]:
        _show(told)


def _show(told: dict[str, Any]) -> None:
    for name, of in told["exposure"].items():
        table = Table("group of items", "share of exposure", "95% interval", title=f"exposure by {name}")
        for group, one in of["groups"].items():
            interval = f"{one['low']:.3f} to {one['high']:.3f}" if one["is_shown"] else "too small to tell"
            table.add_row(group, f"{one['share']:.3f}" if one["is_shown"] else "-", interval)
        console.print(table)
    for name, of in told["quality_by_group"].items():
        table = Table("group of people", "people, about", told["metric"], "95% interval", title=f"quality by {name}")
        for group, one in of["groups"].items():
            if one["is_shown"]:
                table.add_row(group, str(one["people"]), f"{one['mean']:.3f}", f"{one['low']:.3f} to {one['high']:.3f}")
            else:
                table.add_row(group, "-", "-", "too few people to tell")
        console.print(table)
    console.print("Not covered: " + "; ".join(told["does_not_cover"]), markup=False)
