"""`fedrec bench serve`, `serve-scale` and `soak`: the commands."""

import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from fedrec.errors import RunError
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
    found = bench_serve(folder / run, wanted, _say)
    names = ("p50_ms", "p99_ms", "recommendations_per_s", "errors", "reflected", "sasrec_forward_ms", "start_s")
    _tell(found, names, as_json)


def serve_scale(
    run: RunName = "demo",
    items: Annotated[int, typer.Option(help="Items; those beyond the run's catalogue are made.", min=20_001)] = 100_000,
    events: Annotated[int, typer.Option(help="Events of made users, 100 each.", min=100)] = 1_000_000,
    rate: Annotated[float, typer.Option(help="Requests a second.", min=1)] = 50.0,
    seconds: Annotated[float, typer.Option(help="Of the load.", min=1)] = 60.0,
    folder: RunsFolder = DEFAULT_RUNS,
    as_json: AsJson = False,
) -> None:
    """Serve very many items and events: how soon it starts, how fast it answers, what its index misses.

    The store is filled with made items and users, everybody is asked for once, and the service started anew. Some 10
    minutes. Example: `fedrec bench serve-scale --json`
    """
    from fedrec_sim.bench_serve_scale import bench_scale

    found = bench_scale(folder / run, items, events, rate, seconds, _say)
    _tell(found, ("start_s", "p50_ms", "p99_ms", "errors", "index_recall", "rss_mb"), as_json)


def soak(
    run: RunName = "demo",
    minutes: Annotated[float, typer.Option(help="How long.", min=0.5)] = 10.0,
    rate: Annotated[float, typer.Option(help="Requests a second; a third of them are events.", min=1)] = 50.0,
    folder: RunsFolder = DEFAULT_RUNS,
    as_json: AsJson = False,
) -> None:
    """Load a service for minutes while adapters are swapped, and, in the later half, it is killed and restarted.

    Fails if an acknowledged event is lost, or if anything but 503 or a refused connection comes of a restart.
    Example: `fedrec bench soak --minutes 10 --json`
    """
    import asyncio

    from fedrec_sim.run import commit_of_checkout, read_run
    from fedrec_sim.serving_bench.soak import Soak, SoakPlan
    from fedrec_sim.serving_bench.stage import machine
    from fedrec_sim.serving_bench.workload import fill
    from fedrec_sim.world import load_world, on_any_device

    place = Path(tempfile.mkdtemp(prefix="fedrec-soak-"))
    try:
        load = fill(place, load_world(on_any_device(read_run(folder / run).config), _say), 100)
        plan = SoakPlan(seconds=60 * minutes, rate=rate)
        found = asyncio.run(Soak(folder / run, place, load, plan, _say).run_all())
    finally:
        shutil.rmtree(place, ignore_errors=True)
    found |= {"minutes": minutes, "rate": rate, "machine": machine(), "commit": commit_of_checkout()}
    _tell(found, ("acknowledged", "lost", "faults", "swaps", "kills", "restarts", "growth_mb_per_minute"), as_json)
    if found["lost"] or found["faults"] or found["failed_swaps"]:
        raise RunError("the soak failed", "see `faults`, `lost` and `failed_swaps`")


def _say(line: str) -> None:
    errors.print(line, markup=False, highlight=False)


def _tell(found: dict[str, object], names: tuple[str, ...], as_json: bool) -> None:
    found |= {"command": command_line()}
    if as_json:
        emit_json(found)
        return
    table = Table("figure", "value")
    for name in names:
        table.add_row(name, str(found[name]))
    console.print(table)
