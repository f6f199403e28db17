"""`fedrec robustness`: what hostile partners do to a shared model, and which aggregator bears it."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from fedrec.config import SimulationConfig, load_config
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
from fedrec_sim.run import Json, hold_run, read_run, resume_run, start_run


def robustness(
    config: Annotated[Path | None, typer.Option(help="A TOML file; its [attack] says what is tried on what.")] = None,
    resume: Annotated[str | None, typer.Option(help="Name of a table to go on with.")] = None,
    to: Annotated[Path | None, typer.Option(help="Folder of robustness.md, for NAME.json and the table.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="key=value over the configuration; repeat it.")
    ] = None,
    folder: RunsFolder = DEFAULT_RUNS,
    as_json: AsJson = False,
) -> None:
    """Let some partners be hostile, and train with each aggregator under each attack.

    Its folder is runs/robustness/NAME; what is finished there is not trained again. What can be learnt from honest
    partners' answers is another question: `fedrec privacy attack`.
    Example: `fedrec robustness --config simulations/configs/attack-inspect.toml --set seeds=[1]`
    """
    if (config is None) == (resume is None):
        raise ConfigError("give either --config or --resume", "--config simulations/configs/attack-inspect.toml")
    if resume is not None and overrides:
        raise ConfigError("--set changes nothing in a run that has begun", "start a new one with --config")
    started = None if config is None else load_config(config, tuple(overrides or ()))
    summary = _run(started, folder / "robustness", resume or "", as_json)
    if to is not None:
        from fedrec_sim.attacks.page import publish_robustness

        publish_robustness(summary, to)
    if as_json:
        emit_json(summary)
    else:
        console.print(_table(summary))


def _run(config: SimulationConfig | None, folder: Path, resume: str, as_json: bool) -> Json:
    from fedrec_sim.attacks.laboratory import refuse_unfit, run_laboratory
    from fedrec_sim.rows import Stopped
    from fedrec_sim.world import load_world, settle_hardware

    def say(step: str) -> None:
        if not as_json:
            errors.print(f"[dim]{step}[/]")

    if config is not None:
        refuse_unfit(config)
    name = config.name if config else resume
    with hold_run(folder, name, resume=config is None) as place, until_ctrl_c() as stop:
        wanted = read_run(place).config if config is None else settle_hardware(config)
        world = load_world(wanted, say)
        run = resume_run(place) if config is None else start_run(place, wanted, command_line())
        try:
            return run_laboratory(run, world, say, stop)
        except Stopped:
            errors.print(f"stopped; go on with: fedrec robustness --resume {name}")
            raise typer.Exit(EXIT_STOPPED) from None


def _table(summary: Json) -> Table:
    defences = list(summary["cells"]["none"])
    table = Table("attack", *defences, title=f"{summary['hostile']} of {summary['partners']} partners hostile")
    for attack, row in summary["cells"].items():
        table.add_row(attack, *(_shown(row[defence]) for defence in defences))
    table.caption = (
        f"NDCG@10, protocol {summary['protocol']} (test), seeds {summary['seeds']}; kept of the aggregator's own "
        f"without attack; share of users who see the promoted item. On validation: {summary['chosen_on_validation']}"
    )
    return table


def _shown(cell: Json) -> str:
    return f"{cell['ndcg@10']:.4f} ({cell['kept']:.0%}) {cell['exposure']:.1%}"
