"""A newer adapter serves once a replay says that it is no worse; it goes again if people or errors say otherwise."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from fedrec.recommend.arms import two_proportions
from fedrec.recommend.live_model import LiveModel
from fedrec_client.serving.learning.alerts import Alert, Alerts
from fedrec_client.serving.learning.promotion_record import (
    Candidate,
    PromotionBook,
    PromotionRecord,
    Refusal,
    ServingSince,
    missing,
)
from fedrec_client.serving.learning.replay import Verdict, branches, replay
from fedrec_client.serving.service import Service

_log = logging.getLogger(__name__)
# A new adapter is watched for so long after it took over, against so long before.
_WATCH_S = 14 * 86_400.0
# Looked at again and again, so that chance must be rarer than in a test that is made once.
_P_VALUE = 1e-3
_FEWEST_LISTS, _FEWEST_FAILURES = 200, 20
_CLICKS_EVERY_S = 3600.0
# An adapter that could not be loaded or replayed is not tried again sooner: that takes a lot of the machine.
_AGAIN_S = 3600.0

Outcome = Literal["nothing newer", "served", "kept", "rolled back"]


@dataclass(frozen=True)
class Sources:
    """What promotion asks of the rest of the service.

    Attributes:
        newest: the newest adapter that is held, None before the first; in a thread, every minute.
        make: a live model of it over the federation's catalogue; slow, in a thread.
        asked: recommendations asked for and failed, since the process began.
        learnt: by adapter and tenant, number of the latest event that it may have been trained on.
        click_types: by tenant, types of events that count as clicks; None: any.
    """

    newest: Callable[[], Candidate | None]
    make: Callable[[Candidate], LiveModel]
    asked: Callable[[], tuple[int, int]] = field(default=lambda: (0, 0))
    learnt: Callable[[Candidate, str], int] = field(default=lambda *_: 0)
    click_types: Callable[[str], Collection[str] | None] = field(default=lambda _: None)


class Promotion:
    """Which adapter serves. Used on the event loop of an open service.

    Args:
        sources: see there.
        clock: Unix seconds.
    Attributes:
        record: as on the disk.
    """

    def __init__(
        self, service: Service, sources: Sources, alerts: Alerts, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._service, self._sources, self._alerts, self._clock = service, sources, alerts, clock
        self._book = PromotionBook(service.folder)
        self._changing = asyncio.Lock()
        self._asked_before = (0, 0)  # of this process, when the adapter of now took over
        self._clicks_at = float("-inf")
        self._tried: tuple[str, float] = ("", float("-inf"))
        self.record: PromotionRecord = self._book.read()

    async def began(self, candidate: Candidate | None) -> None:
        """Note what the service was opened with, see `PromotionBook.at_start`; None: the untrained one."""
        if candidate is None:
            if self.record.serving is not None:  # its tensors are gone, and when they come again they must serve
                await self._write(replace(self.record, serving=None, before=None))
        elif self.record.serving is None or self.record.serving.adapter_hash != candidate.adapter_hash:
            await asyncio.to_thread(self._book.keep, candidate)
            served = ServingSince(candidate.version, candidate.adapter_hash, self._clock())
            await self._write(replace(self.record, serving=served, before=None))

    async def look(self) -> Outcome:
        """Go back if the adapter of now does badly, else see whether there is a newer one; every minute.

        Raises: as `Sources.newest` and `Sources.make` do; StorageError.
        """
        async with self._changing:
            if (bad := await self._is_bad()) is not None:
                return await self._go_back(*bad)
            candidate = await asyncio.to_thread(self._sources.newest)
            if candidate is None or self._serves(candidate) or self.record.refusal(candidate.adapter_hash):
                return "nothing newer"
            return await self._try(candidate)

    async def promote(self) -> Outcome:
        """Serve the newest adapter whatever was found of it: somebody insists.

        Raises: RunError: none is held.
        """
        async with self._changing:
            candidate = await asyncio.to_thread(self._sources.newest)
            if candidate is None:
                raise missing("newer")
            if self._serves(candidate):
                return "nothing newer"
            model = await asyncio.to_thread(self._sources.make, candidate)
            return await self._serve(candidate, model, {"by hand": True})

    async def roll_back(self) -> Outcome:
        """Serve the adapter before, and never this one again by itself. Raises RunError: there is none before."""
        async with self._changing:
            return await self._go_back("by hand", {})

    def _serves(self, candidate: Candidate) -> bool:
        return self.record.serving is not None and self.record.serving.adapter_hash == candidate.adapter_hash

    async def _try(self, candidate: Candidate) -> Outcome:
        before, now = self._tried, self._clock()
        if before[0] == candidate.adapter_hash and now - before[1] < _AGAIN_S:
            return "nothing newer"
        self._tried = (candidate.adapter_hash, now)
        model = await asyncio.to_thread(self._sources.make, candidate)
        if self.record.serving is None:  # nothing is compared with the untrained one
            return await self._serve(candidate, model, {})
        verdicts = await self._replayed(candidate, model)
        figures = {tenant: verdict.to_dict() for tenant, verdict in verdicts.items()}
        if any(verdict.outcome == "worse" for verdict in verdicts.values()):
            refusal = Refusal(candidate.version, candidate.adapter_hash, "replay", self._clock(), figures)
            await self._write(self.record.with_refusal(refusal))
            self._say("adapter kept", f"{candidate.version} ranks worse than {self._service.version}", verdicts)
            return "kept"
        return await self._serve(candidate, model, figures)

    async def _replayed(self, candidate: Candidate, model: LiveModel) -> dict[str, Verdict]:
        """By tenant, one after the other, in a thread of its own that lets all else go first."""
        verdicts: dict[str, Verdict] = {}
        loop, stop, thread = asyncio.get_running_loop(), threading.Event(), ThreadPoolExecutor(1, "replay")
        try:
            for one in self._service.tenants():
                old, new = branches(one.tenant, model)
                after = await asyncio.to_thread(self._sources.learnt, candidate, one.tenant.name)
                replaying = loop.run_in_executor(thread, replay, one.tenant, old, new, after, stop)
                verdicts[one.tenant.name] = await replaying
        finally:
            stop.set()  # where this was cancelled
            thread.shutdown(wait=False)
        return verdicts

    async def _serve(self, candidate: Candidate, model: LiveModel, figures: dict[str, Any]) -> Outcome:
        before, asked = self.record.serving, self._sources.asked()
        since = (asked[0] - self._asked_before[0], asked[1] - self._asked_before[1])
        await asyncio.to_thread(self._book.keep, candidate)
        await self._service.swap(model)
        self._asked_before = asked
        served = ServingSince(candidate.version, candidate.adapter_hash, self._clock(), *since)
        record = self.record.without_refusal(candidate.adapter_hash)
        await self._write(replace(record, serving=served, before=before, figures=figures))
        _log.info("%s serves from now on", candidate.version, extra={"event": "adapter_promoted"})
        return "served"

    async def _is_bad(self) -> tuple[str, dict[str, Any]] | None:
        """Reason and figures, if the adapter of now is to go."""
        serving, before = self.record.serving, self.record.before
        now = self._clock()
        if serving is None or before is None or now - serving.since > _WATCH_S:
            return None
        if await asyncio.to_thread(self._book.kept, before) is None:  # somebody removed it: there is no way back
            return None
        if (found := self._errors_rose(serving)) is not None:
            return "errors", found
        if now - self._clicks_at < _CLICKS_EVERY_S:
            return None
        self._clicks_at = now
        found = await asyncio.to_thread(self._clicks_fell, serving, before)
        return None if found is None else ("click-through", found)

    def _errors_rose(self, serving: ServingSince) -> dict[str, Any] | None:
        asked, failed = (now - then for now, then in zip(self._sources.asked(), self._asked_before, strict=True))
        if failed < _FEWEST_FAILURES or failed / asked <= serving.failed / max(1, serving.asked):
            return None
        # With nothing known of the one before, this one is held against as many that did not fail.
        p_value = two_proportions(asked, failed, serving.asked or asked, serving.failed)
        return {"asked": asked, "failed": failed, "p_value": p_value} if p_value < _P_VALUE else None

    def _clicks_fell(self, serving: ServingSince, before: ServingSince) -> dict[str, Any] | None:
        """In a thread. Lists of the adapter before from the time before; so a change of season counts, too."""
        lists = {serving.version: [0, 0], before.version: [0, 0]}
        since = max(before.since, serving.since - _WATCH_S)
        for one in self._service.tenants():
            types = self._sources.click_types(one.tenant.name)
            for row in one.tenant.store.clicks.by_arm(since, types):
                if row.adapter in lists:
                    counts = lists[row.adapter]
                    lists[row.adapter] = [counts[0] + row.lists, counts[1] + row.clicked_lists]
        (shown, clicked), (shown_before, clicked_before) = lists[serving.version], lists[before.version]
        if min(shown, shown_before) < _FEWEST_LISTS:
            return None
        rate, rate_before = clicked / shown, clicked_before / shown_before
        p_value = two_proportions(shown, clicked, shown_before, clicked_before)
        tolerated = self._service.settings.learning.replay_tolerance * rate_before
        if p_value >= _P_VALUE or rate >= rate_before - tolerated:
            return None
        return {"click_through": rate, "click_through_before": rate_before, "p_value": p_value, "lists": shown}

    async def _go_back(self, reason: str, figures: dict[str, Any]) -> Outcome:
        serving, before = self.record.serving, self.record.before
        candidate = None if before is None else await asyncio.to_thread(self._book.kept, before)
        if serving is None or candidate is None:
            raise missing("earlier")
        model = await asyncio.to_thread(self._sources.make, candidate)
        refusal = Refusal(serving.version, serving.adapter_hash, reason, self._clock(), figures)
        # First on the disk: should the swap end the process, the next one does not begin with the bad adapter.
        again = ServingSince(candidate.version, candidate.adapter_hash, self._clock())
        await self._write(replace(self.record.with_refusal(refusal), serving=again, before=None, figures={}))
        await self._service.swap(model)
        self._asked_before = self._sources.asked()
        told = f"{serving.version} went, {again.version} serves again: {reason}"
        self._alerts.raise_alert(Alert("adapter rolled back", told, figures=figures))
        return "rolled back"

    async def _write(self, record: PromotionRecord) -> None:
        await asyncio.to_thread(self._book.write, record)
        self.record = record

    def _say(self, kind: str, told: str, verdicts: dict[str, Verdict]) -> None:
        figures: dict[str, float | int | str] = {}
        for tenant, verdict in verdicts.items():
            figures[f"ndcg@10 before, {tenant}"] = round(verdict.ndcg_old, 4)
            figures[f"ndcg@10, {tenant}"] = round(verdict.ndcg_new, 4)
        self._alerts.raise_alert(Alert(kind, told, figures=figures))
