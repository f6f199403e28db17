"""`fedrec bench causal`: the command."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from fedrec_sim.cli_output import DEFAULT_RUNS, AsJson, RunsFolder, command_line, console, emit_json, errors


def causal(
    run: Annotated[str | None, typer.Option(help="A finished run on ml-100k whose adapter is asked as well.")] = None,
    replicates: Annotated[int, typer.Option(help="Resamplings for an interval.", min=100, max=10_000)] = 2000,
    seed: Annotated[int, typer.Option(help="Of resamplings, folds and made logs.", min=0)] = 1,
    to: Annotated[Path | None, typer.Option(help="Folder of causal.md, for causal.json, plots and tables.")] = None,
    folder: RunsFolder = DEFAULT_RUNS,
    as_json: AsJson = False,
) -> None:
    """Estimate what another policy would have earned from logged propensities, and hold it against what it did earn.

    Naive, IPS, SNIPS, clipped, direct and doubly robust estimates on the Open Bandit log and on made logs of known
    truth; training with and without propensities; rankings on MovieLens-100K with popularity taken out. Minutes.

    Example: `fedrec bench causal --run demo --json`
    """
    from fedrec_sim.causal.page import around_tables, publish_study
    from fedrec_sim.causal.popular import refuse_unfit
    from fedrec_sim.causal.study import study

    def say(line: str) -> None:
        if not as_json:
            errors.print(line, style="dim", markup=False, highlight=False)

    # What is asked for in vain should be said at once, not after a minute.
    if run:
        refuse_unfit(folder / run)
    if to is not None:
        around_tables(to)
    found = study(folder / run if run else None, replicates, seed, say) | {"command": command_line()}
    if to is not None:
        publish_study(found, to)
    if as_json:
        emit_json(found)
        return
    for direction in found["values"]:
        console.print(_table(found, direction))
    for figure in ("hr@10", "ndcg@10"):
        console.print(_popularity(found["popularity"], figure))


def _table(found: dict[str, Any], direction: str) -> Table:
    of = found["values"][direction]
    table = Table("estimator", *of["campaigns"], "mean", "error", title=f"click rate, %: {direction.replace('_', ' ')}")
    truths = [part["truth"]["click_rate"] for part in of["campaigns"].values()]
    table.add_row("truth", *(f"{100 * rate:.2f}" for rate in (*truths, of["pooled"]["truth"])), "", end_section=True)
    for name, pooled in of["pooled"]["estimates"].items():
        cells = [part["estimates"][name] for part in of["campaigns"].values()]
        shown = [_interval(one) + (" refused" if one["doubts"] else "") for one in cells]
        table.add_row(name, *shown, _interval(pooled), f"{pooled['mean_relative_error']:.0%}")
    table.caption = "refused: too few effective rows or rewards to rely on; `--json` says why (`doubts`)"
    return table


def _popularity(of: dict[str, Any], figure: str) -> Table:
    table = Table("row", *(f"{name} ({power:.2f})" for name, power in of["powers"].items()), "kept", title=figure)
    for row, cells in of["rows"].items():
        figures = [f"{cells[figure][name]['value']:.4f}" for name in of["powers"]]
        table.add_row(row, *figures, f"{cells[figure]['kept']:.0%}")
    table.caption = f"popularity taken out; {of['data']}, protocol {of['protocol']} ({of['which']})"
    return table


def _interval(one: dict[str, Any]) -> str:
    return f"{100 * one['value']:.2f} [{100 * one['low']:.2f}, {100 * one['high']:.2f}]"
