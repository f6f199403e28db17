"""`fedrec bench serve-scale`: a service with very many items and events; start, latency, and what its index finds."""

import asyncio
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fedrec.recommend.index import best
from fedrec_client.serving.service import Service
from fedrec_client.serving.settings import default_settings
from fedrec_sim.run import commit_of_checkout, read_run
from fedrec_sim.serve_run import served_run
from fedrec_sim.serving_bench.caller import Caller
from fedrec_sim.serving_bench.made import fill_made
from fedrec_sim.serving_bench.phases import recommend_path, steady
from fedrec_sim.serving_bench.stage import Server, machine, running
from fedrec_sim.serving_bench.workload import Workload
from fedrec_sim.world import World, load_world, on_any_device

Json = dict[str, Any]
_HISTORY = 100
_ASKED = 200


def bench_scale(run: Path, items: int, events: int, rate: float, seconds: float, say: Callable[[str], None]) -> Json:
    """Fill a store, ask for everybody once, start anew, measure. Raises RunError: no such run."""
    held = read_run(run)
    world = load_world(on_any_device(held.config), say)
    place = Path(tempfile.mkdtemp(prefix="fedrec-bench-scale-"))
    try:
        say(f"filling a store with {items} items and {events} events")
        load = fill_made(place, world, items, events, _HISTORY)
        with running(run, place) as server:
            first_start_s = server.start_s
            say(f"first start {first_start_s:.1f} s; now everybody is asked for once")
            asyncio.run(_ask_everybody(server, load))
        recall = asyncio.run(_recall(run, world, place, load, say))
        say(f"the index finds {recall:.4f} of the exact ten")
        with running(run, place) as server:
            say(f"start {server.start_s:.1f} s")
            told = asyncio.run(steady(server, load, rate, seconds, event_share=0.2))
            return {
                "start_s": round(server.start_s, 2),
                "p50_ms": told["p50_ms"],
                "p99_ms": told["p99_ms"],
                "errors": told["errors"],
                "index_recall": recall,
                "first_start_s": round(first_start_s, 1),
                "rss_mb": server.rss_bytes() >> 20,
                "items": items,
                "events": events,
                "users": len(load.users),
                "made": "items, features and users are made: see fedrec_sim/serving_bench/made.py",
                "steady": told,
                "machine": machine(),
                "commit": commit_of_checkout(),
            }
    finally:
        shutil.rmtree(place, ignore_errors=True)


async def _ask_everybody(server: Server, load: Workload) -> None:
    waiting = list(load.users)

    async def ask() -> None:
        caller = Caller("127.0.0.1", server.port)
        while waiting:
            await caller.get(recommend_path(waiting.pop()))
        caller.close()

    await asyncio.gather(*(ask() for _ in range(16)))


async def _recall(run: Path, world: World, place: Path, load: Workload, say: Callable[[str], None]) -> float:
    """Share of the ten best of all open items that are among the candidates, over some users."""
    settings = default_settings()
    service = Service(place, settings)
    try:
        await service.open(served_run(read_run(run), world, settings), say)
        one = service.of("default")
        await one.tenant.index.settle()
        model = one.tenant.engine.model
        index = one.tenant.index
        found = 0
        is_open = np.ones(model.n_items, bool)
        for user in load.users[:_ASKED]:
            _, vector = await one.tenant.engine.user_vector(await one.tenant.person(user))
            exact = best(model.score_rows @ vector, is_open, 10)
            k, probe = 2 * settings.ranking.candidates, settings.model.index_probe
            candidates = await index.candidates(model, vector, k, probe)
            found += len(set(exact.tolist()) & set((exact if candidates is None else candidates).tolist()))
        return found / (10 * min(_ASKED, len(load.users)))
    finally:
        await asyncio.to_thread(service.close)
