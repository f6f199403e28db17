"""`fedrec bench serve-scale`: a service with very many items and events; start, latency, and what its index finds."""

import asyncio
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fedrec.errors import RunError
from fedrec.recommend.index import best
from fedrec_client.serving.service import Service
from fedrec_client.serving.settings import FILE, default_text, read_serving
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
_EXACT_ITEMS = 20_000


def bench_scale(run: Path, items: int, events: int, rate: float, seconds: float, say: Callable[[str], None]) -> Json:
    """Fill a store, ask for everybody once, start anew, measure. Raises RunError: no such run."""
    held = read_run(run)
    world = load_world(on_any_device(held.config), say)
    place = Path(tempfile.mkdtemp(prefix="fedrec-bench-scale-"))
    try:
        say(f"filling a store with {items} items and {events} events")
        load = fill_made(place, world, items, events, _HISTORY)
        # The default scores so many one by one; here the index is to be measured.
        (place / FILE).write_text(re.sub(r"(?m)^exact_items = \d+", f"exact_items = {_EXACT_ITEMS}", default_text()))
        with running(run, place) as server:
            first_start_s = server.start_s
            say(f"first start {first_start_s:.1f} s; now everybody is asked for once")
            asyncio.run(_ask_everybody(server, load))
        index = asyncio.run(_index(run, world, place, load, say))
        say(f"the index finds {index['index_recall']:.4f} of the exact ten")
        with running(run, place) as server:
            say(f"start {server.start_s:.1f} s")
            told = asyncio.run(steady(server, load, rate, seconds, event_share=0.2))
            return {
                "start_s": round(server.start_s, 2),
                "p50_ms": told["p50_ms"],
                "p99_ms": told["p99_ms"],
                "errors": told["errors"],
                **index,
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


async def _index(run: Path, world: World, place: Path, load: Workload, say: Callable[[str], None]) -> Json:
    """Share of the ten best of all open items that are among the candidates, and what either way takes, in turn."""
    settings = read_serving(place)
    service = Service(place, settings)
    try:
        await service.open(served_run(read_run(run), world, settings), say)
        one = service.of("default")
        await one.tenant.index.settle()
        engine, index, model = one.tenant.engine, one.tenant.index, one.tenant.engine.model
        k, probe = 2 * settings.ranking.candidates, settings.model.index_probe
        found, took_s = 0, list[tuple[float, float]]()
        is_open = np.ones(model.n_items, bool)
        for user in load.users[:_ASKED]:
            _, vector = await engine.user_vector(await one.tenant.person(user))
            began = time.perf_counter()
            exact = best(model.score_rows @ vector, is_open, k)
            between = time.perf_counter()
            candidates = await index.candidates(model, vector, k, probe)
            took_s.append((between - began, time.perf_counter() - between))
            if candidates is None:
                raise RunError("the index was not built", f"ask for more than {_EXACT_ITEMS} items")
            found += len(set(exact[:10].tolist()) & set(candidates.tolist()))
        exact_s, index_s = np.median(took_s, axis=0)
        return {
            "index_recall": found / (10 * len(took_s)),
            "index_ms": round(1000 * float(index_s), 2),
            "exact_ms": round(1000 * float(exact_s), 2),
            "exact_items": settings.model.exact_items,
        }
    finally:
        await asyncio.to_thread(service.close)
