"""`fedrec tune`: choose settings on validation items, of a trained baseline by a grid, of a federated row by Optuna."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table
from rich.text import Text

from fedrec.config import load_config
from fedrec.errors import ConfigError
from fedrec_sim.cli_output import (
    DEFAULT_RUNS,
    EXIT_STOPPED,
    AsJson,
    RunsFolder,
    command_line,
    console,
    emit_json,
    errors,
    until_ctrl_c,
)
from fedrec_sim.run import Json, draft_run, hold_run, read_json, read_run, resume_run, start_run, write_json

DEFAULT_TUNED = Path("simulations/tuned")
Baseline = Literal["sasrec", "fedmf", "pfedrec"]
_SETTINGS = "settings.json"  # of a search, in its folder

tune = typer.Typer(no_args_is_help=True, help="Choose settings on validation items; the test is never read.")
ConfigFile = Annotated[Path, typer.Option("--config", help="A simulation's TOML file; its data are used.")]
Seed = Annotated[int, typer.Option(help="Of the splits and the training; not one that is reported.", min=0)]
Out = Annotated[Path, typer.Option("--out", help="Folder of ROW.json.")]


@tune.command()
def sasrec(config: ConfigFile, seed: Seed = 11, folder: Out = DEFAULT_TUNED, as_json: AsJson = False) -> None:
    """Try a stated grid, choose by validation NDCG@10, and write what was tried to `simulations/tuned/sasrec.json`.

    The chosen settings are the defaults of `[baselines.sasrec]`. Some minutes to an hour.
    Example: `fedrec tune sasrec --config simulations/configs/leaderboard.toml --seed 11 --json`
    """
    _baseline("sasrec", config, seed, folder, as_json)


@tune.command()
def fedmf(config: ConfigFile, seed: Seed = 11, folder: Out = DEFAULT_TUNED, as_json: AsJson = False) -> None:
    """The same for FedMF."""
    _baseline("fedmf", config, seed, folder, as_json)


@tune.command()
def pfedrec(config: ConfigFile, seed: Seed = 11, folder: Out = DEFAULT_TUNED, as_json: AsJson = False) -> None:
    """The same for PFedRec."""
    _baseline("pfedrec", config, seed, folder, as_json)


def _baseline(row: Baseline, config: Path, seed: int, folder: Path, as_json: bool) -> None:
    from fedrec_sim.tune import tune_row, write_tuned

    settings = load_config(config)
    found = tune_row(
        row, settings, seed, command_line(), lambda line: errors.print(line, markup=False, highlight=False)
    )
    path = write_tuned(folder, found)
    if as_json:
        emit_json(found)
        return
    table = Table("change", "HR@10", "NDCG@10", "epoch", "seconds", title=f"{row}, validation, protocol B, seed {seed}")
    for tried in found["candidates"]:
        figures = (f"{tried['validation'][name]:.4f}" for name in ("hr@10", "ndcg@10"))
        table.add_row(str(tried["change"] or "start"), *figures, str(tried["epoch"]), f"{tried['seconds']:.0f}")
    console.print(table)
    console.print(f"chosen: {path}")


@tune.command()
def federated(
    config: Annotated[Path | None, typer.Option(help="A simulation's TOML file; its data are used.")] = None,
    search: Annotated[Path | None, typer.Option(help="A TOML file: which keys, within which ends.")] = None,
    trials: Annotated[int, typer.Option(help="In all, those of earlier goes included.", min=1, max=10_000)] = 20,
    resume: Annotated[str | None, typer.Option(help="Name of a search to go on with.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="key=value over the configuration; repeat it.")
    ] = None,
    folder: RunsFolder = DEFAULT_RUNS,
    as_json: AsJson = False,
) -> None:
    """Search settings of a federated row by Optuna. Its folder is runs/search/NAME. Free on public or made data.

    On private data every trial, and the look by which it is judged, is charged to each partner's ledger; the cost of
    all is told before, and refused where the budget does not cover it. docs/tracking.md.
    Example: `fedrec tune federated --config simulations/configs/demo.toml --search simulations/searches/federated.toml
    --trials 20`
    """
    if (config is None) == (resume is None) or (config is None) != (search is None):
        raise ConfigError(
            "give --config and --search, or --resume", "for example --search simulations/searches/federated.toml"
        )
    if resume is not None and overrides:
        raise ConfigError("--set changes nothing in a search that has begun", "start a new one with --config")
    summary = _search(config, search, trials, resume or "", tuple(overrides or ()), folder / "search", as_json)
    if as_json:
        emit_json(summary)
        return
    console.print(_trials_table(summary))
    console.print(f"page: {folder / 'search' / summary['name'] / 'search.html'}")


def _search(
    config: Path | None,
    space: Path | None,
    trials: int,
    resume: str,
    overrides: tuple[str, ...],
    folder: Path,
    as_json: bool,
) -> Json:
    from fedrec_sim.rows import Stopped
    from fedrec_sim.search.settings import load_search, parse_search
    from fedrec_sim.search.trials import prepare, refuse_without_optuna, run_search
    from fedrec_sim.world import load_world, settle_hardware

    def say(words: str) -> None:
        if not as_json:
            errors.print(words, markup=False, highlight=False, style="dim")

    refuse_without_optuna()
    begun = None if config is None else load_config(config, overrides)
    asked = None if space is None else load_search(space)
    name = begun.name if begun else resume
    with hold_run(folder, name, resume=begun is None) as place, until_ctrl_c() as stop:
        wanted = read_run(place).config if begun is None else settle_hardware(begun)
        settings = asked or parse_search(read_json(place / _SETTINGS), str(place / _SETTINGS))
        world = load_world(wanted, say)
        # What cannot begin must not move an earlier search aside: everything is checked first.
        run = resume_run(place) if begun is None else None
        planned = prepare(run or draft_run(place, wanted, command_line()), world, settings, trials, say, stop)
        if run is None:
            planned.run = start_run(place, wanted, command_line())
            write_json(place / _SETTINGS, {"format": 1, "search": settings.model_dump(mode="json", exclude_none=True)})
        try:
            return run_search(planned)
        except Stopped:
            errors.print(f"stopped; go on with: fedrec tune federated --resume {name} --trials {trials}")
            raise typer.Exit(EXIT_STOPPED) from None


def _trials_table(summary: Json) -> Table:
    best, metric = summary["best"], summary["metric"].upper()
    keys = list(best["values"])
    title = f"{summary['row']}: {metric} on validation, protocol {summary['protocol']}, seed {summary['seed']}"
    table = Table("trial", "state", metric, *keys, title=Text(title), title_justify="left")
    for one in summary["trials"]:
        shown = (one["values"].get(key, "") for key in keys)
        figure = "" if one["value"] is None else f"{one['value']:.4f}"
        style = "bold" if one["number"] == best["number"] else ""
        cells = (f"{value:.4g}" if isinstance(value, float) else str(value) for value in shown)
        table.add_row(str(one["number"] + 1), one["state"], figure, *cells, style=style)
    privacy = summary["privacy"]
    table.caption = (
        f"charged: epsilon {privacy['total_epsilon']:.2f} for all at delta {privacy['delta']:g}, of "
        f"{privacy['budget_epsilon']:g}; figures are noised"
        if privacy["is_charged"]
        else f"free: {privacy['why_free']}"
    )
    return table
