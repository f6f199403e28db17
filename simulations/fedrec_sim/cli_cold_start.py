"""`fedrec cold-start`: what every row is worth for items and users that its training never met."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from fedrec.config import SimulationConfig, load_config
from fedrec.errors import ConfigError
from fedrec_sim.cli_output import DEFAULT_RUNS, AsJson, RunsFolder, command_line, console, emit_json, errors
from fedrec_sim.run import Json, hold_run, read_run, resume_run, start_run


def cold_start(
    config: Annotated[Path | None, typer.Option(help="A TOML file; its [cold_start] says what is withheld.")] = None,
    resume: Annotated[str | None, typer.Option(help="Name of a cold start to go on with.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="key=value over the configuration; repeat it.")
    ] = None,
    folder: RunsFolder = DEFAULT_RUNS,
    as_json: AsJson = False,
) -> None:
    """Train without some items, then without some users, and ask for them. Its folder is runs/cold-start/NAME.

    Example: `fedrec cold-start --config simulations/configs/demo.toml --set 'cold_start.rows=["item_knn"]' --json`
    """
    if (config is None) == (resume is None):
        raise ConfigError("give either --config or --resume", "for example --config simulations/configs/demo.toml")
    if resume is not None and overrides:
        raise ConfigError("--set changes nothing in a run that has begun", "start a new one with --config")
    started = None if config is None else load_config(config, tuple(overrides or ()))
    summary = _run(started, folder / "cold-start", resume or "", as_json)
    if as_json:
        emit_json(summary)
    else:
        console.print(_items_table(summary))
        console.print(_users_table(summary))


def _run(config: SimulationConfig | None, folder: Path, resume: str, as_json: bool) -> Json:
    from fedrec_sim.cold_start import refuse_other_protocols, run_cold_start
    from fedrec_sim.world import load_world, settle_hardware

    def say(step: str) -> None:
        if not as_json:
            errors.print(f"[dim]{step}[/]")

    if config is not None:
        refuse_other_protocols(config)
    with hold_run(folder, config.name if config else resume, resume=config is None) as place:
        wanted = read_run(place).config if config is None else settle_hardware(config)
        world = load_world(wanted, say)
        run = resume_run(place) if config is None else start_run(place, wanted, command_line())
        return run_cold_start(run, world, say)


def _items_table(summary: Json) -> Table:
    table = Table("row", "known items", "new items", "among new items", title="Items that training never met")
    for row, asked in summary["new_items"].items():
        table.add_row(row, *(_shown(asked[name]) for name in ("known_items", "new_items", "among_new_items")))
    table.caption = f"HR@10 / NDCG@10, protocol B (test), seeds {summary['seeds']}"
    return table


def _users_table(summary: Json) -> Table:
    table = Table("row", "asked after", "earlier items left out", "ranked too", title="Users that training never met")
    for row, asked in summary["new_users"].items():
        table.add_row(row, "all items, known users", _shown(asked["known_users"]), "")
        table.add_row("", "all items, new users", _shown(asked["new_users"]), "")
        for k in sorted(summary["config"]["cold_start"]["shots"]):
            cells = (_shown(asked[f"new_users{kind}@{k}"]) for kind in ("_unseen", ""))
            table.add_row("", f"the last {k}", *cells, end_section=k == max(summary["config"]["cold_start"]["shots"]))
    table.caption = f"HR@10 / NDCG@10, protocol B (test), seeds {summary['seeds']}"
    return table


def _shown(figures: Json) -> str:
    return f"{figures['hr@10']:.3f} / {figures['ndcg@10']:.3f}"
