"""`fedrec privacy plan`: what a promise costs, before anybody trains."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from fedrec.config import load_config
from fedrec.errors import ConfigError
from fedrec.files import replace_file, storage_errors
from fedrec_sim.cli_output import AsJson, console, emit_json, errors


def plan(
    users: Annotated[int, typer.Option(help="Of all partners together.", min=1)],
    epsilon: Annotated[float, typer.Option(help="To be promised at most.")] = 8.0,
    delta: Annotated[float, typer.Option(help="Below 1/users.")] = 1e-4,
    rounds: Annotated[
        int | None, typer.Option(help="Steps in all; a round is a step. Default 20.", min=1, max=100_000)
    ] = None,
    partners: Annotated[int, typer.Option(help="How many there are.", min=1)] = 8,
    quorum: Annotated[int | None, typer.Option(help="Whose noise adds up in secagg mode; default all.", min=1)] = None,
    sampling_prob: Annotated[float, typer.Option(help="Of each user in each round.")] = 1.0,
    l2_clip_norm: Annotated[float, typer.Option(help="Of each user's gradient.")] = 1.0,
    config: Annotated[Path | None, typer.Option(help="Take parts, rounds and clip norms from a simulation.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write epsilon against rounds as an SVG file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Calibrate the noise for a promise, and say what it costs in either mode.

    Example: `fedrec privacy plan --users 943 --epsilon 8 --delta 1e-4 --rounds 20 --plot epsilon.svg`
    """
    from fedrec_sim.plan_costs import Question, epsilon_plot, plan_costs

    if config is not None and rounds is not None:
        raise ConfigError("--config brings its own rounds", "leave out --rounds")
    if quorum is not None and quorum > partners:
        raise ConfigError(f"--quorum {quorum} exceeds --partners {partners}", "at most all of them")
    parts = [("adapter", rounds or 20, sampling_prob, l2_clip_norm, 1.0)] if config is None else _parts(config)
    costs = plan_costs(Question(tuple(parts), users, epsilon, delta, partners, quorum or partners))
    if plot is not None:
        with storage_errors(plot):
            replace_file(plot, epsilon_plot(costs).encode())
    if as_json:
        emit_json(costs)
        return
    console.print(_noise_table(costs))
    console.print(_epsilon_table(costs))
    console.print(_curve(costs["epsilon_by_round"]))
    for warning in costs["warnings"]:
        errors.print(f"[yellow]note[/yellow]: {warning}")


def _parts(config: Path) -> list[tuple[str, int, float, float, float]]:
    private = load_config(config).private
    return [(p.part, p.rounds, p.sampling_prob, p.l2_clip_norm, p.share) for p in private.parts]


def _noise_table(costs: dict[str, Any]) -> Table:
    table = Table("part", "rounds", "noise_multiplier", "noise / signal, inspect", "noise / signal, secagg")
    for number, part in enumerate(costs["parts"]):
        ratios = [costs["modes"][mode]["noise"][number]["noise_over_signal"] for mode in ("inspect", "secagg")]
        figures = f"{part['noise_multiplier']:.3f}", *(f"{ratio:.4f}" for ratio in ratios)
        table.add_row(part["part"], str(part["total_steps"]), *figures)
    table.caption = "noise on a step's mean over users, in units of l2_clip_norm: the most that the mean can be"
    return table


def _epsilon_table(costs: dict[str, Any]) -> Table:
    table = Table("epsilon against", "inspect", "secagg", title=f"at delta {costs['delta']:g}, PLD")
    for name in costs["modes"]["inspect"]:
        if name.startswith("epsilon_"):
            values = [costs["modes"][mode][name] for mode in ("inspect", "secagg")]
            label = name.removeprefix("epsilon_").removeprefix("against_").replace("_", " ")
            table.add_row(label, *(f"{value:.2f}" for value in values))
    table.caption = f"the second accountant (PRV) says {costs['epsilon_prv']:.2f}"
    return table


def _curve(points: list[dict[str, Any]], lines: int = 10) -> Table:
    """Epsilon against rounds, as bars."""
    table = Table("round", "epsilon", "", box=None)
    highest = points[-1]["epsilon"]
    shown = points if len(points) <= lines else [points[i * (len(points) - 1) // (lines - 1)] for i in range(lines)]
    for point in shown:
        bar = "█" * max(1, round(30 * point["epsilon"] / highest))
        table.add_row(str(point["round"]), f"{point['epsilon']:.2f}", bar)
    return table
