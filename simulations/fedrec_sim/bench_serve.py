"""`fedrec bench serve`: a run's service under load, its client beside it on the same cores."""

import asyncio
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedrec_sim.run import commit_of_checkout, read_run
from fedrec_sim.serving_bench.phases import reflection, saturation, steady, warm_up
from fedrec_sim.serving_bench.sasrec_forward import sasrec_forward_ms
from fedrec_sim.serving_bench.stage import machine, running
from fedrec_sim.serving_bench.workload import fill
from fedrec_sim.world import load_world, on_any_device

Json = dict[str, Any]


@dataclass(frozen=True)
class ServeBench:
    """What is asked of a service.

    Attributes:
        rate: requests a second of the steady load, for `seconds`; `event_share` of them are events.
        callers: that ask again at once, for `saturation_s`.
        tries: events whose next answer is looked at.
        history: items of each user at the start.
    """

    rate: float = 100.0
    seconds: float = 60.0
    event_share: float = 0.2
    callers: int = 16
    saturation_s: float = 15.0
    tries: int = 1000
    history: int = 100


def bench_serve(run: Path, wanted: ServeBench, say: Callable[[str], None]) -> Json:
    """Measure; the figures that are asked for stand at the top. Raises RunError: no such run; DataError."""
    world = load_world(on_any_device(read_run(run).config), say)
    place = Path(tempfile.mkdtemp(prefix="fedrec-bench-serve-"))
    try:
        load = fill(place, world, wanted.history)
        say(f"{len(load.users)} users with histories of {wanted.history}")
        sasrec = [sasrec_forward_ms(load.n_items, wanted.history)]
        with running(run, place) as server:
            say(f"ready after {server.start_s:.1f} s")

            async def measure() -> Json:
                told: Json = {"cold": await warm_up(server, load)}
                say("everybody was asked for once")
                told["steady"] = await steady(server, load, wanted.rate, wanted.seconds, wanted.event_share)
                say(f"steady: {told['steady']['p50_ms']} ms, p99 {told['steady']['p99_ms']} ms")
                told["saturation"] = await saturation(server, load, wanted.callers, wanted.saturation_s)
                told["saturation_with_events"] = await saturation(
                    server, load, wanted.callers, wanted.saturation_s, wanted.event_share
                )
                say(f"saturation: {told['saturation']['recommendations_per_s']} recommendations a second")
                told["reflection"] = await reflection(server, load, wanted.tries)
                return told

            told = asyncio.run(measure())
            told |= {"start_s": round(server.start_s, 1), "rss_mb": server.rss_bytes() >> 20}
        sasrec.append(sasrec_forward_ms(load.n_items, wanted.history))
    finally:
        shutil.rmtree(place, ignore_errors=True)
    phases = [told[name] for name in ("steady", "saturation", "saturation_with_events", "reflection")]
    return {
        "p50_ms": told["steady"]["p50_ms"],
        "p99_ms": told["steady"]["p99_ms"],
        "recommendations_per_s": told["saturation"]["recommendations_per_s"],
        "errors": sum(phase["errors"] for phase in phases),
        "reflected": told["reflection"]["reflected"],
        "sasrec_forward_ms": sasrec,
        "users": len(load.users),
        "items": load.n_items,
        "history": wanted.history,
        "machine": machine(),
        "commit": commit_of_checkout(),
        **told,
    }
