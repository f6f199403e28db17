"""What is measured: a steady load from an open loop, saturation, and events in the next answer."""

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import numpy as np

from fedrec_sim.serving_bench.caller import Caller, Reply
from fedrec_sim.serving_bench.stage import Server
from fedrec_sim.serving_bench.workload import Workload

N = 10
Json = dict[str, Any]


@dataclass
class Tally:
    """Answers of a phase."""

    latencies_s: dict[str, list[float]] = field(default_factory=lambda: {"recommend": [], "event": []}, repr=False)
    statuses: dict[int, int] = field(default_factory=dict)

    def add(self, kind: str, reply: Reply, seconds: float) -> None:
        """Count one."""
        self.statuses[reply.status] = self.statuses.get(reply.status, 0) + 1
        self.latencies_s[kind].append(seconds)

    @property
    def errors(self) -> int:
        """Answers that were none of 2xx, and requests without one."""
        return sum(count for status, count in self.statuses.items() if not 200 <= status < 300)

    def to_dict(self) -> Json:
        """Percentiles in milliseconds, over all and by kind."""
        every = [one for kind in self.latencies_s.values() for one in kind]
        told: Json = {"requests": len(every), "errors": self.errors, **percentiles(every)}
        told |= {kind: percentiles(seconds) for kind, seconds in self.latencies_s.items() if seconds}
        return told | {"statuses": {str(status): count for status, count in sorted(self.statuses.items())}}


def percentiles(seconds: Sequence[float]) -> Json:
    """`p50_ms`, `p99_ms`, `max_ms`."""
    if not seconds:
        return {}
    found = 1000 * np.quantile(seconds, [0.5, 0.99, 1.0])
    return {name: round(float(value), 2) for name, value in zip(("p50_ms", "p99_ms", "max_ms"), found, strict=True)}


def recommend_path(user: str, n: int = N) -> str:
    """Of our own API."""
    return f"/v1/recommend/{quote(user, safe='')}?n={n}"


async def warm_up(server: Server, load: Workload) -> Json:
    """Ask for everybody once, one after the other: nothing of them is in memory yet."""
    caller, tally = Caller("127.0.0.1", server.port), Tally()
    for user in load.users:
        began = time.perf_counter()
        tally.add("recommend", await caller.get(recommend_path(user)), time.perf_counter() - began)
    caller.close()
    return tally.to_dict()


async def steady(server: Server, load: Workload, rate: float, seconds: float, event_share: float) -> Json:
    """Requests at fixed moments, whether answers have come or not; each is measured from its moment on.

    So that a stall counts for all who would have come during it.
    """
    tally, idle = Tally(), asyncio.LifoQueue[Caller]()
    callers = [Caller("127.0.0.1", server.port) for _ in range(64)]
    for caller in callers:
        idle.put_nowait(caller)
    began, cpu = time.perf_counter() + 0.1, server.cpu_s()

    async def one(moment: float) -> None:
        user = load.user()
        is_event = load.is_event(event_share)
        caller = await idle.get()
        call = caller.post("/v1/events", load.event(user)) if is_event else caller.get(recommend_path(user))
        reply = await call
        idle.put_nowait(caller)
        tally.add("event" if is_event else "recommend", reply, time.perf_counter() - moment)

    tasks = []
    for number in range(int(rate * seconds)):
        moment = began + number / rate
        await asyncio.sleep(max(0.0, moment - time.perf_counter()))
        tasks.append(asyncio.create_task(one(moment)))
    await asyncio.gather(*tasks)
    took = time.perf_counter() - began
    for caller in callers:
        caller.close()
    return {"rate": rate, "event_share": event_share, **tally.to_dict(), "server_cpu": (server.cpu_s() - cpu) / took}


async def saturation(server: Server, load: Workload, callers: int, seconds: float, event_share: float = 0.0) -> Json:
    """As many answers as come when `callers` ask again at once."""
    tally = Tally()
    until = time.perf_counter() + seconds

    async def ask() -> None:
        caller = Caller("127.0.0.1", server.port)
        while (began := time.perf_counter()) < until:
            user = load.user()
            is_event = load.is_event(event_share)
            reply = await (
                caller.post("/v1/events", load.event(user)) if is_event else caller.get(recommend_path(user))
            )
            tally.add("event" if is_event else "recommend", reply, time.perf_counter() - began)
        caller.close()

    await asyncio.gather(*(ask() for _ in range(callers)))
    told = {"callers": callers, "event_share": event_share, **tally.to_dict()}
    good = len(tally.latencies_s["recommend"]) - tally.errors
    return told | {"recommendations_per_s": round(good / seconds, 1)}


async def reflection(server: Server, load: Workload, tries: int) -> Json:
    """Whether an event is in the next answer: its item is gone, and the other items' scores are other ones.

    The item is the one that was recommended first, so that its going shows.
    """
    caller, reflected, errors = Caller("127.0.0.1", server.port), 0, 0
    for user in itertools.islice(itertools.cycle(load.users), tries):
        before = await caller.get(recommend_path(user))
        if before.status != 200:
            errors += 1
            continue
        scores = {item["id"]: item["score"] for item in before.json()["items"]}
        first = next(iter(scores))
        told = await caller.post("/v1/events", load.event(user, first))
        after = await caller.get(recommend_path(user))
        if told.status >= 300 or after.status != 200:
            errors += 1
            continue
        fresh = {item["id"]: item["score"] for item in after.json()["items"]}
        reflected += first not in fresh and any(fresh[item] != scores.get(item) for item in fresh)
    caller.close()
    return {"tries": tries, "reflected": reflected / tries, "errors": errors}
