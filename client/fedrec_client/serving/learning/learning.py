"""All that learns beside an open service, started and ended together."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from fedrec_client.serving.learning.periodic import periodically
from fedrec_client.serving.learning.promotion import Promotion, Sources
from fedrec_client.serving.learning.promotion_record import Candidate
from fedrec_client.serving.learning.scheduler import Budget, Questions, Scheduler
from fedrec_client.serving.learning.watch import Watch
from fedrec_client.serving.service import Service

_EVERY_S = 60.0


@dataclass(frozen=True)
class Coordination:
    """What the scheduler asks of the node; both in a thread.

    Attributes:
        budget: see `Questions`.
        ask: see `Questions`.
    """

    budget: Callable[[], Budget | None]
    ask: Callable[[], object]


class Learning:
    """Watches, promotion and scheduler of a service. Made on the event loop once the service is open.

    Args:
        began: what the service was opened with, by `PromotionBook.at_start`; None: the untrained one.
        sources: see there; its `click_types` are those of the watches.
        coordination: None: rounds are never asked for.
    Raises: RunError: `promotion.json` is damaged. StorageError.
    """

    def __init__(
        self,
        service: Service,
        began: Candidate | None,
        sources: Sources,
        coordination: Coordination | None = None,
        every_s: float = _EVERY_S,
    ) -> None:
        self._service, self._began, self._every_s = service, began, every_s
        settings, folder = service.settings.learning, service.folder
        self.alerts = service.alerts
        self.watches = {
            one.tenant.name: Watch(one, folder / f"watch-{one.tenant.name}.json", self.alerts)
            for one in service.tenants()
        }
        sources = replace(sources, click_types=lambda tenant: self.watches[tenant].click_types())
        self.promotion = Promotion(service, sources, self.alerts)
        self.scheduler: Scheduler | None = None
        if coordination is not None:
            questions = Questions(self._events, self._drifted_at, coordination.budget, coordination.ask)
            self.scheduler = Scheduler(folder, settings, questions, self.alerts)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to look. Raises StorageError."""
        await self.promotion.began(self._began)
        for one in self._service.tenants():
            one.tenant.on_removed.append(partial(self.forget, one.tenant.name))
        looks = [(f"drift of {name}", watch.look) for name, watch in self.watches.items()]
        work: list[tuple[str, Callable[[], Any]]] = [*looks, ("promotion", self.promotion.look)]
        if self.scheduler is not None:
            work.append(("scheduler", self.scheduler.look))
        self._tasks = [asyncio.create_task(periodically(name, look, self._every_s)) for name, look in work]

    async def close(self) -> None:
        """End all of it, a replay that is under way too; before the service is closed."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.alerts.close()

    def forget(self, tenant: str, user: str) -> None:
        """Of a person who was deleted."""
        self.watches[tenant].forget(user)

    def _events(self) -> int:
        return sum(watch.n_events for watch in self.watches.values())

    def _drifted_at(self) -> float:
        return max((d.found_at for watch in self.watches.values() for d in watch.drifts), default=float("-inf"))
