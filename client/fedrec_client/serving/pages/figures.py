"""What the operator's page tells in numbers: the same for its tiles, its charts and for programs."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from fedrec.fairness.figures import gini
from fedrec.recommend.arms import DEFAULT, compare_arms
from fedrec_client.serving.pages.outside import Outside, Promise
from fedrec_client.serving.pages.pulse import KEPT_S, Pulse, Second, quantile_ms
from fedrec_client.serving.service import Service, TenantService

_NOW_S, _STEP_S = 60, 5
_CLICKS_S = 3600.0
_LISTS = 500
# What the store has to count is counted anew so often, and no more than a twentieth of the time.
_LEAST_KEPT_S, _KEPT_TIMES = 3.0, 20.0


class Figures:
    """See the module."""

    def __init__(self, service: Service, pulse: Pulse, outside: Outside) -> None:
        self._service, self._pulse, self._outside = service, pulse, outside
        self._kept: dict[str, tuple[float, dict[str, Any]]] = {}
        self._counting: dict[str, asyncio.Lock] = {}

    async def of(self, tenant: str) -> dict[str, Any]:
        """All of a tenant's; requests and events are the whole service's. Raises NotReadyError."""
        one, now = self._service.of(tenant), self._pulse.last(_NOW_S)
        outside = await asyncio.to_thread(self._told_outside)
        return {
            "at": time.time(),
            "requests_per_s": round(sum(second.requests for second in now) / _NOW_S, 3),
            "failed": sum(second.failed for second in now),
            "p50_ms": quantile_ms(now, 0.5),
            "p95_ms": quantile_ms(now, 0.95),
            "events_per_min": sum(second.events for second in now),
            "people_in_memory": len(one.tenant.people),
            "items": one.tenant.shelf.n_open,
            "adapter": {"version": self._service.version, "since": self._service.since},
            "series": series(self._pulse.last(KEPT_S)),
            **await self._stored(tenant, one),
            **outside,
        }

    def _told_outside(self) -> dict[str, Any]:
        promise, budget = Promise.read(self._outside.statement()), self._outside.budget()
        return {"promise": asdict(promise) if promise else None, "budget": dict(budget) if budget else None}

    async def _stored(self, tenant: str, one: TenantService) -> dict[str, Any]:
        async with self._counting.setdefault(tenant, asyncio.Lock()):
            until, found = self._kept.get(tenant, (0.0, {}))
            began = time.monotonic()
            if began >= until:
                n_items, arms = one.tenant.shelf.n_open, [arm.name for arm in self._service.settings.arms]
                found = await asyncio.to_thread(_counted, one, n_items, arms)
                took = time.monotonic() - began
                self._kept[tenant] = (time.monotonic() + max(_LEAST_KEPT_S, _KEPT_TIMES * took), found)
            return found


def _counted(one: TenantService, n_items: int, arms: Sequence[str]) -> dict[str, Any]:
    """What the store says of the lists of the last hour, and of the latest ones. In a thread."""
    store, counts = one.tenant.store, dict.fromkeys(arms or [DEFAULT], (0, 0))
    for row in store.clicks.by_arm(time.time() - _CLICKS_S):
        shown, clicked = counts.get(row.arm, (0, 0))
        counts[row.arm] = (shown + row.lists, clicked + row.clicked_lists)
    lists, clicks = (sum(count[place] for count in counts.values()) for place in (0, 1))
    latest = store.shown.latest(_LISTS)
    by_item = Counter(item for shown in latest for item in shown.items)
    sources = Counter(source for shown in latest for source in shown.sources)
    return {
        "lists": lists,
        "click_through": clicks / lists if lists else None,
        "arms": compare_arms(counts).to_dict()["arms"],
        "coverage": len(by_item) / n_items if n_items and latest else None,
        "gini": gini(list(by_item.values()), n_items) if latest else None,
        "latest_lists": len(latest),
        "sources": dict(sources.most_common()),
    }


def series(seconds: Sequence[Second]) -> dict[str, list[Any]]:
    """For charts, some seconds together."""
    found: dict[str, list[Any]] = {"at": [], "requests_per_s": [], "p50_ms": [], "p95_ms": [], "events": []}
    for start in range(0, len(seconds), _STEP_S):
        some = seconds[start : start + _STEP_S]
        found["at"].append(some[0].at)
        found["requests_per_s"].append(round(sum(one.requests for one in some) / len(some), 2))
        found["p50_ms"].append(quantile_ms(some, 0.5))
        found["p95_ms"].append(quantile_ms(some, 0.95))
        found["events"].append(sum(one.events for one in some))
    return found
