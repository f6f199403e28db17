"""`fedrec bench serve`: the command."""

from typing import Annotated

import typer
from rich.table import Table

from fedrec_sim.cli_output import DEFAULT_RUNS, AsJson, RunsFolder, command_line, console, emit_json, errors
from fedrec_sim.cli_runs import RunName


def serve(
    run: RunName = "demo",
    rate: Annotated[float, typer.Option(help="Requests a second of the steady load.", min=1)] = 100.0,
    seconds: Annotated[float, typer.Option(help="Of the steady load.", min=1)] = 60.0,
    event_share: Annotated[float, typer.Option(help="Share of the requests that are events.", min=0, max=1)] = 0.2,
    callers: Annotated[int, typer.Option(help="Callers at saturation.", min=1)] = 16,
    tries: Annotated[int, typer.Option(help="Events whose next answer is looked at.", min=1)] = 1000,
    history: Annotated[int, typer.Option(help="Items of each user at the start.", min=1)] = 100,
    folder: RunsFolder = DEFAULT_RUNS,
    as_json: AsJson = False,
) -> None:
    """Put a run's service under load, from this process on the same cores: latency, throughput, events in answers.

    Users of MovieLens with more than `--history` items; those after them are the events. Latency is counted from the
    moment at which a request was due. Beside it a plain SASRec's forward pass. Some 2 minutes.

    Example: `fedrec bench serve --json`
    """
    from fedrec_sim.bench_serve import ServeBench, bench_serve

    wanted = ServeBench(rate, seconds, event_share, callers, tries=tries, history=history)
    found = bench_serve(folder / run, wanted, lambda line: errors.print(line, markup=False, highlight=False))
    found |= {"command": command_line()}
    if as_json:
        emit_json(found)
        return
    table = Table("figure", "value")
    for name in ("p50_ms", "p99_ms", "recommendations_per_s", "errors", "reflected", "sasrec_forward_ms", "start_s"):
        table.add_row(name, str(found[name]))
    console.print(table)
