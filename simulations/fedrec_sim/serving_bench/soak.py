"""A service for minutes under load with adapter swaps, kills and restarts: is anything lost, broken or growing?"""

import asyncio
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fedrec.processes import stop_process
from fedrec_client.serving.settings import default_settings
from fedrec_client.serving.store.store import ServingStore, store_url
from fedrec_sim.serving_bench.caller import Caller, Reply
from fedrec_sim.serving_bench.phases import recommend_path
from fedrec_sim.serving_bench.stage import Server, start_server
from fedrec_sim.serving_bench.workload import Workload

Json = dict[str, Any]
Say = Callable[[str], None]
_CALLERS = 8


@dataclass(frozen=True)
class SoakPlan:
    """What happens in how many seconds.

    Attributes:
        quiet_share: of the time at the beginning, in which adapters are swapped but nothing is killed: memory is
            watched there.
        swap_every_s, kill_every_s: a swap, and, after the quiet time, a SIGKILL or in turn a SIGTERM with a restart.
    """

    seconds: float = 600.0
    rate: float = 50.0
    event_share: float = 0.3
    quiet_share: float = 0.5
    swap_every_s: float = 45.0
    kill_every_s: float = 40.0


@dataclass
class Soak:
    """A running soak. Everything in one event loop; callers never stop while the server comes and goes."""

    run: Path
    place: Path
    load: Workload
    plan: SoakPlan
    say: Say
    server: Server = field(init=False)
    statuses: dict[str, int] = field(default_factory=dict)
    acknowledged: list[str] = field(default_factory=list, repr=False)
    rss_mb: list[tuple[float, int]] = field(default_factory=list)
    swaps: int = 0
    failed_swaps: int = 0
    kills: int = 0
    restarts: int = 0
    down: bool = False

    async def run_all(self) -> Json:
        """The whole of it. Raises RunError: the service does not come back."""
        self.server = start_server(self.run, self.place)
        await asyncio.to_thread(self.server.wait)
        began = time.monotonic()
        until = began + self.plan.seconds
        try:
            await asyncio.gather(
                *(self._ask(until, number) for number in range(_CALLERS)),
                self._swap(until),
                self._kill(began + self.plan.quiet_share * self.plan.seconds, until),
                self._watch(began, until),
            )
        finally:
            stop_process(self.server.process)
        return self._told()

    async def _ask(self, until: float, number: int) -> None:
        caller = Caller("127.0.0.1", self.server.port)
        pause = _CALLERS / self.plan.rate
        await asyncio.sleep(number * pause / _CALLERS)
        while time.monotonic() < until:
            began = time.monotonic()
            await self._one(caller, self.down)
            await asyncio.sleep(max(0.0, pause - (time.monotonic() - began)))
        caller.close()

    async def _one(self, caller: Caller, was_down: bool) -> None:
        user = self.load.user()
        if not self.load.is_event(self.plan.event_share):
            self._count(await caller.get(recommend_path(user)), was_down)
            return
        event = self.load.event(user) | {"id": uuid.uuid4().hex}
        reply = await caller.post("/v1/events", event)
        self._count(reply, was_down)
        if 200 <= reply.status < 300:
            self.acknowledged.append(str(event["id"]))

    def _count(self, reply: Reply, was_down: bool) -> None:
        """An answer that is missing or 503 while the server is away is what a restart is; elsewhere it is a fault."""
        name = str(reply.status) if reply.status else "none"
        if was_down or self.down:
            name += " during a restart"
        self.statuses[name] = self.statuses.get(name, 0) + 1

    async def _swap(self, until: float) -> None:
        """Now one adapter, now another."""
        caller = Caller("127.0.0.1", self.server.port)
        while time.monotonic() + self.plan.swap_every_s < until:
            await asyncio.sleep(self.plan.swap_every_s)
            told = await caller.get("/v1/adapters")
            if self.down or told.status != 200:
                continue
            name = told.json()["adapters"][-1 - (self.swaps + 1) % 2]
            reply = await caller.post(f"/v1/adapters/{name}/serve", {})
            if self.down:
                continue
            self.swaps += 1
            self.failed_swaps += not 200 <= reply.status < 300
        caller.close()

    async def _kill(self, start: float, until: float) -> None:
        await asyncio.sleep(max(0.0, start - time.monotonic()))
        while time.monotonic() + self.plan.kill_every_s < until:
            await asyncio.sleep(self.plan.kill_every_s)
            port, is_kill = self.server.port, self.kills <= self.restarts
            self.down = True
            if is_kill:
                self.server.process.kill()
                await asyncio.to_thread(self.server.process.wait)
            else:
                await asyncio.to_thread(stop_process, self.server.process)
            self.kills, self.restarts = self.kills + is_kill, self.restarts + (not is_kill)
            self.server = start_server(self.run, self.place, port)
            await asyncio.to_thread(self.server.wait)
            await asyncio.sleep(0.5)
            self.down = False
            self.say(f"{'killed' if is_kill else 'stopped'} and back after {self.server.start_s:.1f} s")

    async def _watch(self, began: float, until: float) -> None:
        while time.monotonic() < until:
            await asyncio.sleep(min(5.0, max(0.1, until - time.monotonic())))
            if not self.down and self.server.process.poll() is None:
                self.rss_mb.append((round(time.monotonic() - began, 1), self.server.rss_bytes() >> 20))

    def _told(self) -> Json:
        lost = missing_events(self.place, self.acknowledged)
        faults = {name: count for name, count in self.statuses.items() if is_fault(name)}
        quiet = [(at, mb) for at, mb in self.rss_mb if at <= self.plan.quiet_share * self.plan.seconds]
        return {
            "acknowledged": len(self.acknowledged),
            "lost": len(lost),
            "faults": faults,
            "statuses": dict(sorted(self.statuses.items())),
            "swaps": self.swaps,
            "failed_swaps": self.failed_swaps,
            "kills": self.kills,
            "restarts": self.restarts,
            "growth_mb_per_minute": growth_mb_per_minute(quiet),
            "rss_mb": self.rss_mb,
        }


def is_fault(status: str) -> bool:
    """Anything but a good answer, or a missing one or 503 while the server was away.

    >>> [is_fault(status) for status in ("200", "503", "503 during a restart", "500 during a restart")]
    [False, True, False, True]
    """
    if status.endswith("during a restart"):
        return not status.startswith(("2", "none", "503"))
    return not status.startswith("2")


def growth_mb_per_minute(samples: list[tuple[float, int]]) -> float | None:
    """The slope of memory over the later half of the quiet time, when caches are full; None with too few samples."""
    later = samples[len(samples) // 2 :]
    if len(later) < 4:
        return None
    moments, sizes = np.array(later).T
    return round(float(np.polyfit(moments / 60, sizes, 1)[0]), 2)


def missing_events(place: Path, ids: list[str]) -> list[str]:
    """Acknowledged events that the store does not have."""
    store = ServingStore.open(store_url(place, default_settings().store.database))
    try:
        there: set[str] = set()
        seq = 0
        while rows := store.of("default").log.since(seq, 10_000):
            there |= {row.event.id for row in rows}
            seq = rows[-1].seq
    finally:
        store.close()
    return [name for name in ids if name not in there]
