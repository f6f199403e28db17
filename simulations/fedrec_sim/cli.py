"""The `fedrec` command: simulate a federation on one machine, evaluate it, recommend with it.

Commands import what needs torch when they run: it takes seconds, which `--help` and `runs list` should not.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, get_args

# Flower sends usage data unless told not to, and model files are fetched by `fedrec model fetch` alone.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import typer
from pydantic import ValidationError

from fedrec.config import SimulationConfig, TrackerName, TrackingConfig, load_config
from fedrec.errors import ConfigError, FedrecError
from fedrec.tracking.trackers import refuse_missing
from fedrec_sim import (
    bench,
    cli_cold_start,
    cli_data,
    cli_federation,
    cli_privacy,
    cli_query,
    cli_rehearse,
    cli_robustness,
    cli_runs,
    cli_sentiment,
    cli_serve,
    cli_support,
    cli_tasks,
    cli_tune,
)
from fedrec_sim.cli_output import (
    CONFIGS,
    DEFAULT_RUNS,
    DEMO,
    EXIT_STOPPED,
    AsJson,
    RunsFolder,
    command_line,
    console,
    emit_json,
    errors,
    until_ctrl_c,
)
from fedrec_sim.live import LiveView, ladder_table, recommendations_panel
from fedrec_sim.run import Json, hold_run, read_run, resume_run, start_run
from fedrec_sim.scenarios.page import NAMES, figures_of, publish
from fedrec_sim.scenarios.words import scenario_table

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="A federated recommender that keeps interactions with their owners. Start with `fedrec demo`. "
    "Exit codes: docs/errors.md.",
)
app.add_typer(cli_data.data, name="data")
app.add_typer(cli_data.model, name="model")
app.add_typer(cli_runs.runs, name="runs")
app.add_typer(cli_privacy.privacy, name="privacy")
app.add_typer(bench.bench, name="bench")
app.add_typer(cli_support.support, name="support")
app.add_typer(cli_sentiment.sentiment, name="sentiment")
app.add_typer(cli_federation.federation, name="federation")
app.add_typer(cli_tune.tune, name="tune")
app.add_typer(cli_query.query, name="query")
app.command()(cli_runs.evaluate)
app.command()(cli_runs.recommend)
app.command("cold-start")(cli_cold_start.cold_start)
app.command("train-task")(cli_tasks.train_task)
app.command()(cli_rehearse.rehearse)
app.command()(cli_robustness.robustness)
app.command()(cli_serve.serve)

Overrides = Annotated[list[str] | None, typer.Option("--set", help="key=value over the configuration; repeat it.")]
Track = Annotated[
    str | None,
    typer.Option("--track", help="mlflow, tensorboard, wandb (offline), by comma; docs/tracking.md"),
]


@app.command()
def demo(
    overrides: Overrides = None, track: Track = None, folder: RunsFolder = DEFAULT_RUNS, as_json: AsJson = False
) -> None:
    """Train 8 partners on MovieLens-100K under differential privacy, recommend, write a report. Some minutes.

    Example: `fedrec demo --set private.epsilon=2`
    """
    _show(_run(load_config(DEMO, tuple(overrides or ())), folder, as_json, track=track), folder, as_json)


@app.command()
def simulate(
    config: Annotated[Path | None, typer.Option(help="A TOML file like simulations/configs/leaderboard.toml.")] = None,
    resume: Annotated[str | None, typer.Option(help="Name of a run to go on with.")] = None,
    overrides: Overrides = None,
    track: Track = None,
    folder: RunsFolder = DEFAULT_RUNS,
    as_json: AsJson = False,
) -> None:
    """Run a federation on this machine, or go on with one that was stopped.

    Examples: `fedrec simulate --config simulations/configs/leaderboard.toml --set seeds=[1]` ·
    `fedrec simulate --resume demo`
    """
    if (config is None) == (resume is None):
        raise ConfigError("give either --config or --resume", "for example --config simulations/configs/demo.toml")
    if resume is not None and overrides:
        raise ConfigError("--set changes nothing in a run that has begun", "start a new run with --config")
    settings = None if config is None else load_config(config, tuple(overrides or ()))
    _show(_run(settings, folder, as_json, resume=resume or "", track=track), folder, as_json)


@app.command()
def scenarios(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help=f"Of {', '.join(NAMES)}; all.")] = None,
    to: Annotated[
        Path | None, typer.Option(help="JSON file for the figures; scenarios.md beside it is filled.")
    ] = None,
    overrides: Overrides = None,
    folder: RunsFolder = DEFAULT_RUNS,
    as_json: AsJson = False,
) -> None:
    """Run federations of shops, communities, music and video services, each with its events, rules and figures.

    Each takes some minutes and writes `runs/NAME/report.html`. What is real and what is made: docs/scenarios.md.

    Examples: `fedrec scenarios video` · `fedrec scenarios --to docs/scenarios.json`
    """
    if unknown := sorted({*(names or ())} - {*NAMES}):
        raise ConfigError(f"no scenario {', '.join(unknown)}", f"name some of {', '.join(NAMES)}")
    configs = {name: load_config(CONFIGS / f"{name}.toml", tuple(overrides or ())) for name in names or NAMES}
    found = {}
    for name, config in configs.items():
        found[name] = _run(config, folder, as_json)
        if to is not None:
            publish({name: found[name]}, to)
        if not as_json:
            _show(found[name], folder, as_json)
            console.print(scenario_table(found[name]))
    if as_json:
        emit_json({name: figures_of(summary) for name, summary in found.items()})


def _run(
    config: SimulationConfig | None, folder: Path, as_json: bool, *, resume: str = "", track: str | None = None
) -> Json:
    """Run or resume; the summary."""
    from fedrec_sim.ladder import run_ladder
    from fedrec_sim.rows import Stopped
    from fedrec_sim.tracked import tracked
    from fedrec_sim.world import load_world, settle_hardware

    asked = None if track is None else _trackers(track)
    name = config.name if config else resume
    with hold_run(folder, name, resume=config is None) as place, until_ctrl_c() as stop:
        # A run that cannot begin must not move the results of an earlier one aside: the world comes first.
        wanted = read_run(place).config if config is None else settle_hardware(config)
        trackers = wanted.tracking.to if asked is None else asked
        refuse_missing(trackers)
        world = load_world(wanted, lambda step: None if as_json else console.print(f"[dim]{step}[/dim]"))
        run = resume_run(place) if config is None else start_run(place, wanted, command_line())
        if ", then " in run.commit:
            errors.print(f"this run was worked on by several versions of the code: {run.commit}")
        try:
            with (
                LiveView(quiet=as_json, protocol=run.config.evaluation.protocol) as view,
                tracked(run, trackers, lambda words: errors.print(words, markup=False, highlight=False)) as rows,
            ):
                summary = run_ladder(run, world, _both(view.update, rows.update), stop)
        except Stopped:
            errors.print(f"stopped; go on with: fedrec simulate --resume {name}")
            raise typer.Exit(EXIT_STOPPED) from None
    return summary


def _trackers(names: str) -> tuple[TrackerName, ...]:
    """Raises ConfigError: a name that is none of a tracker."""
    asked = [name.strip() for name in names.split(",") if name.strip()]
    try:
        return TrackingConfig(to=asked).to
    except ValidationError as error:
        known = ", ".join(get_args(TrackerName))
        raise ConfigError(f"--track {names!r}: there are {known}, each once", "--track mlflow,tensorboard") from error


def _both(first: Callable[[Json], None], second: Callable[[Json], None]) -> Callable[[Json], None]:
    def told(event: Json) -> None:
        first(event)
        second(event)

    return told


def _show(summary: Json, folder: Path, as_json: bool) -> None:
    """The ladder, or all figures as JSON."""
    if as_json:
        emit_json(summary)
        return
    console.print(ladder_table(summary))
    console.print(recommendations_panel(summary))
    console.print(f"report: {folder / summary['name'] / 'report.html'}")


def main() -> None:
    """Entry point: a named error is printed without a traceback and sets its exit code."""
    try:
        app()
    except FedrecError as error:
        errors.print(f"[red]{type(error).__name__}[/red]: ", end="")
        errors.print(str(error), markup=False, highlight=False)
        sys.exit(error.exit_code)
