"""Commands that read a finished run: `runs list|show`, `evaluate`, `recommend`."""

import os
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table
from rich.text import Text

from fedrec.errors import ConfigError, FedrecError
from fedrec_sim.by_users import publish_by_users
from fedrec_sim.cli_output import DEFAULT_RUNS, AsJson, RunsFolder, console, emit_json
from fedrec_sim.cli_tasks import evaluate_task
from fedrec_sim.cold_start_page import RESULT as COLD_START
from fedrec_sim.cold_start_page import publish_cold_start
from fedrec_sim.figures import printable
from fedrec_sim.leaderboard import leaderboard, publish
from fedrec_sim.live import ladder_table
from fedrec_sim.run import read_json, read_run, read_summary

runs = typer.Typer(no_args_is_help=True, help="What has been run.")
RunName = Annotated[str, typer.Option("--run", help="Name of the run.")]


@runs.command("list")
def runs_list(folder: RunsFolder = DEFAULT_RUNS, as_json: AsJson = False) -> None:
    """List the runs, newest first."""
    folders = [path for path in folder.glob("[!.]*") if path.is_dir()]
    # A folder that may not be looked into is named as well.
    found = [_brief(path) for path in folders if not os.access(path, os.X_OK) or (path / "run.json").exists()]
    found.sort(key=lambda run: str(run["created_at"]), reverse=True)
    if as_json:
        emit_json(found)
        return
    table = Table("run", "created", "state", "command")
    for run in found:
        table.add_row(*(Text(printable(str(run[key]))) for key in ("name", "created_at", "state", "command")))
    console.print(table if found else f"no runs in {folder}; start one with `fedrec demo`")


@runs.command("publish")
def runs_publish(
    name: str,
    to: Annotated[Path, typer.Option(help="Folder of LEADERBOARD.md.")] = Path("simulations"),
    folder: RunsFolder = DEFAULT_RUNS,
    as_json: AsJson = False,
) -> None:
    """Write a finished run's figures as NAME.json, and as its section of LEADERBOARD.md.

    A cold start is named with its folder.

    Examples: `fedrec runs publish leaderboard`, `fedrec runs publish cold-start/leaderboard`
    """
    cold_start = folder / name / COLD_START
    if cold_start.is_file():
        figures, page = publish_cold_start(read_json(cold_start), to)
    else:
        figures, page = publish(read_summary(folder / name), to)
    if as_json:
        emit_json({"figures": str(figures), "page": str(page)})
        return
    console.print(f"{figures}, {page}")


@runs.command("by-users")
def runs_by_users(
    names: Annotated[list[str], typer.Argument(help="Runs that differ in data.users.")],
    name: Annotated[str, typer.Option(help="Of the section, the JSON and the plot.")] = "users",
    to: Annotated[Path, typer.Option(help="Folder of LEADERBOARD.md.")] = Path("simulations"),
    folder: RunsFolder = DEFAULT_RUNS,
    as_json: AsJson = False,
) -> None:
    """Write runs with different numbers of users side by side: NAME.json, NAME.svg and a section of LEADERBOARD.md.

    Example: `fedrec runs by-users users-118 users-472 leaderboard`
    """
    figures, page = publish_by_users([read_summary(folder / one) for one in names], to, name)
    if as_json:
        emit_json({"figures": str(figures), "page": str(page)})
        return
    console.print(f"{figures}, {page}")


def _brief(folder: Path) -> dict[str, object]:
    """A line about a run; an unreadable one is named, not skipped."""
    try:
        run = read_run(folder)
    except FedrecError as error:
        return {"name": folder.name, "created_at": "", "state": "unreadable", "command": error.problem}
    state = "finished" if (folder / "summary.json").is_file() else "unfinished"
    return {"name": folder.name, "created_at": run.created_at, "state": state, "command": run.command}


@runs.command("show")
def runs_show(
    name: str,
    folder: RunsFolder = DEFAULT_RUNS,
    as_json: AsJson = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="As Markdown.")] = False,
) -> None:
    """Show a run's figures. Example: `fedrec runs show demo`"""
    summary = read_summary(folder / name)
    if as_json:
        emit_json(summary)
    elif markdown:
        print(leaderboard(summary))
    else:
        console.print(ladder_table(summary))
        console.print(f"report: {folder / name / 'report.html'}")


def evaluate(
    run: RunName = "demo",
    protocol: Annotated[str | None, typer.Option(help="Must be the run's own, which is the default.")] = None,
    folder: RunsFolder = DEFAULT_RUNS,
    as_json: AsJson = False,
) -> None:
    """Evaluate a run's adapter, or a task's head, on the data it belongs to. Example: `fedrec evaluate --run demo`"""
    if (folder / run / "task.json").is_file():
        evaluate_task(folder / run, as_json)
        return
    from fedrec.evaluation.protocol import evaluate as evaluate_scorer
    from fedrec_sim.serving import load_adapter
    from fedrec_sim.world import load_world, on_any_device

    held = read_run(folder / run)
    own = held.config.evaluation.protocol
    if protocol not in (None, own):
        raise ConfigError(
            f"run {run} was split by protocol {own}; protocol {protocol} would test on rows that it was trained on",
            f"use --protocol {own}, or start a run with --set evaluation.protocol={protocol}",
        )
    world = load_world(on_any_device(held.config))
    corpus = world.corpus(held.config.seeds[0])
    report = evaluate_scorer(
        load_adapter(held, world).recommender,
        corpus.splits,
        "test",
        protocol=own,
        n_items=len(world.catalog),
        tie_seed=held.config.seeds[0],
        popularity=corpus.popularity,
    )
    if as_json:
        emit_json({"run": run, "seed": held.config.seeds[0], **report.to_dict()})
        return
    table = Table("metric", f"test, protocol {own}")
    for name, value in report.means.items():
        table.add_row(name, f"{value:.4f}")
    console.print(table)


def recommend(
    run: RunName = "demo",
    user: Annotated[str | None, typer.Option(help="A user of the run's data.")] = None,
    history: Annotated[list[str] | None, typer.Option(help="A title someone new has liked; repeat it.")] = None,
    words: Annotated[str | None, typer.Option("--query", help="What is wanted, in words.")] = None,
    k: Annotated[int, typer.Option("-k", help="How many.", min=1)] = 10,
    folder: RunsFolder = DEFAULT_RUNS,
    as_json: AsJson = False,
) -> None:
    """Recommend to a user of the data, or to someone new; of what they ask for in words, if they do.

    A request in words needs a reader, see `fedrec query train`.

    Examples: `fedrec recommend --run demo --user 42 -k 10` ·
    `fedrec recommend --history "Toy Story (1995)" --history "Heat (1995)"` ·
    `fedrec recommend --user 42 --query "a quiet 90s thriller, no horror"`
    """
    from fedrec_sim.queries.reading import Asking
    from fedrec_sim.serving import load_adapter, titles_history, user_history
    from fedrec_sim.serving import recommend as recommend_items
    from fedrec_sim.world import load_world, on_any_device

    if (user is not None and history) or (user is None and not history and words is None):
        raise ConfigError("give either --user or --history", 'for example --user 42, or --history "Heat (1995)"')
    held = read_run(folder / run)
    world = load_world(on_any_device(held.config))
    adapter = load_adapter(held, world)
    seen = user_history(world, held, user) if user is not None else titles_history(world, history or [])
    asked = Asking.of(world, held.folder, words) if words else None
    items = recommend_items(adapter, world, np.asarray(seen, np.int32), k, asked.scores if asked else None)
    if as_json:
        version = {"version": adapter.card.version, "hash": adapter.card.adapter_hash}
        understood = {"understood": asked.told} if asked else {}
        emit_json({"run": run, "adapter": version, **understood, "items": items})
        return
    if asked:
        said = {name: value for name, value in asked.told.items() if value}
        console.print(f"understood: {printable(str(said))}", highlight=False, markup=False)
    table = Table("", "title", "score", "why", title=f"{run}, adapter {adapter.card.version}")
    for place, item in enumerate(items, start=1):
        title, reason = (Text(printable(str(item[key]))) for key in ("title", "reason"))
        table.add_row(str(place), title, f"{item['score']:.3f}", reason)
    console.print(table)
