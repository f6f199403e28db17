"""From a folder with `serving.toml` to a process that answers: health at once, lists as soon as the model is read."""

import asyncio
import gc
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from fedrec_client.serving.http.app import make_app
from fedrec_client.serving.http.keys import KeyRing
from fedrec_client.serving.http.metrics import EngineFigures, ServingMetrics
from fedrec_client.serving.http.server import listen, serve
from fedrec_client.serving.pages.outside import Outside
from fedrec_client.serving.routes import all_routes
from fedrec_client.serving.service import Served, Service
from fedrec_client.serving.settings import ServingSettings

_log = logging.getLogger(__name__)
# The event loop must not wait the usual 5 ms for a thread that writes or reads.
_SWITCH_S = 0.0005
Say = Callable[[str], None]


@dataclass
class Starting:
    """A service on its way up.

    Args:
        folder: of `serving.toml`.
        make: reads what is served from; slow, called in a thread once the port is taken.
        outside: what those who train say of adapter and budget.
        say: progress for people.
        after: runs in the event loop beside the ready service, and is cancelled before the service is closed.
    """

    folder: Path
    settings: ServingSettings
    make: Callable[[Say], Served]
    say: Say = lambda _: None
    after: Callable[[Service, ServingMetrics], Awaitable[None]] | None = None
    outside: Outside = field(default_factory=Outside)
    _failed: BaseException | None = field(default=None, repr=False)

    def run(self) -> None:
        """Answer until SIGTERM or Ctrl-C.

        Raises: ConfigError: the port is taken, or strangers could listen or call. What `make` and the store raise.
        """
        listener = listen(self.settings.http)
        try:
            service = Service(self.folder, self.settings)
        except BaseException:
            listener.close()
            raise
        metrics = ServingMetrics(lambda: self._figures(service))
        keys = service.store.keys
        ring = KeyRing(keys.find, lambda: bool(keys.every()))
        app = make_app(
            self.settings,
            all_routes(service, metrics, ring, self.outside),
            ring=ring,
            metrics=metrics,
            is_ready=service.is_ready,
            on_start=lambda: self._open(service, metrics),
            on_stop=service.close,
        )
        serve(app, self.settings, has_keys=bool(keys.every()), listener=listener)
        if self._failed is not None:
            raise self._failed

    async def _open(self, service: Service, metrics: ServingMetrics) -> None:
        """What fails here ends the process, with its words, instead of a service that is never ready."""
        try:
            served = await asyncio.to_thread(self.make, self.say)
            await service.open(served, self.say)
            sys.setswitchinterval(_SWITCH_S)  # not before: threads that read would take turns too often
            gc.collect()
            gc.freeze()  # what is there now stays: to look through it again and again would stall answers
            http = self.settings.http
            self.say(f"ready: {'https' if http.certificate else 'http'}://{http.host}:{http.port}")
            if self.after is not None:
                await self.after(service, metrics)
        except Exception as error:  # noqa: BLE001  # raised again by `run`, after the server has ended
            self._failed = error
            _log.error("the service cannot start: %s", type(error).__name__, extra={"event": "serving_failed"})
            os.kill(os.getpid(), signal.SIGTERM)

    def _figures(self, service: Service) -> EngineFigures | None:
        if not service.is_ready():
            return None
        engines = [one.tenant.engine for one in service.tenants()]
        budget = self.outside.budget()
        found = re.match(r"round-(\d+)", service.version)
        waiting = [one.tenant.store.reviews.waiting() for one in service.tenants()]
        shares = [share for one in service.tenants() if (share := one.sentiment.negative_share) is not None]
        oldest = min((since for _, since in waiting if since is not None), default=None)
        return EngineFigures(
            users_cached=sum(engine.desk.reader.n_kept for engine in engines),
            queue_length=sum(engine.desk.waiting for engine in engines),
            adapter_round=int(found[1]) if found else None,
            index_items=sum(engine.model.n_items for engine in engines),
            epsilon_remaining=None if budget is None else budget.get("epsilon_left"),
            review_waiting=sum(count for count, _ in waiting),
            review_oldest_seconds=0.0 if oldest is None else max(0.0, time.time() - oldest),
            sentiment_negative_share=max(shares, default=None),
        )
