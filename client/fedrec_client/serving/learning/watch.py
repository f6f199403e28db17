"""A look at a tenant every minute: what came, what was shown, whether either drifts, and how the lists do.

What it keeps on the disk is small and holds no id: the number of the last event, histograms, and numbers within 0..1.
"""

import asyncio
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedrec.errors import RunError
from fedrec.files import json_bytes, read_json, replace_file, storage_errors
from fedrec.recommend.live_model import Floats, LiveModel
from fedrec_client.serving.learning.alerts import Alert, Alerts
from fedrec_client.serving.learning.drift import Drift
from fedrec_client.serving.learning.measures import CONFIDENCE, HITS, UNKNOWN, Bins, Measures
from fedrec_client.serving.records import IMPORTED_TYPE, Event, Shown
from fedrec_client.serving.service import TenantService
from fedrec_client.serving.settings import FeedbackSettings
from fedrec_client.serving.store.event_log import Arrived
from fedrec_client.serving.tenant import SESSION

_log = logging.getLogger(__name__)
FORMAT = 1
_PAGE, _MOST_PAGES = 2000, 25
# Lists and events of so few seconds ago are left to the next look: a list is written down a moment after it was shown.
_SETTLED_S = 10.0
# What happened longer before it came was imported, and says nothing of now.
_LATE_S = 2 * 86_400.0
_DAY_S = 86_400.0
_FIGURES_EVERY_S = 3600.0
_COVERED_LISTS, _CONFIDENCE_LISTS = 1000, 32
_MOST_PEOPLE, _K, _KEPT_DRIFTS = 50_000, 10, 50


@dataclass(frozen=True)
class Figures:
    """How the lists of the last day did. Counts over people: stays with the partner.

    Attributes:
        lists, clicked_lists: shown, and those with a click at least.
        coverage: share of the items that the latest thousand lists hold.
    """

    at: float
    lists: int
    clicked_lists: int
    coverage: float

    @property
    def click_through(self) -> float:
        """Share of lists that were clicked; 0 of none."""
        return self.clicked_lists / max(1, self.lists)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "click_through": self.click_through}


class Watch:
    """Looks at one tenant. Made and used on the event loop.

    Args:
        path: of what is kept; a damaged file is begun anew, since nothing but comparisons is lost.
        alerts: told of drift.
        clock: Unix seconds.
    Attributes:
        n_events: that were ever read and not imported: what came since. Rounds learn imported rows without it.
        drifts: the latest, oldest first.
        figures: of the last hour's look; None before the first.
    """

    def __init__(
        self, one: TenantService, path: Path, alerts: Alerts, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._one, self._tenant, self._path, self._alerts, self._clock = one, one.tenant, path, alerts, clock
        self._bins = Bins(self._tenant)
        self._shown: OrderedDict[str, Shown] = OrderedDict()
        self._looking = asyncio.Lock()
        self.figures: Figures | None = None
        self.drifts: list[Drift] = []
        self.n_events, self._seq, self._shown_at, self._looked_at = 0, 0, 0.0, clock()
        self._version, self._measures = self._tenant.engine.model.version, Measures(clock())
        self._read()

    @property
    def name(self) -> str:
        """Of the tenant."""
        return self._tenant.name

    def click_types(self) -> list[str]:
        """Types of events that count as clicks: those that came, less negative ones and mere reading."""
        counts = (self._measures.reference, self._measures.current)
        seen = {name for one in counts for name in one.get("events by type", {})}
        return _click_types(self._tenant.settings.feedback, seen)

    async def look(self) -> list[Drift]:
        """Take in what is new; the drift that was found in it. Raises StorageError."""
        async with self._looking:
            now = self._clock()
            if self._version != (version := self._tenant.engine.model.version):
                self._measures.forget_lists()
                self._version = version
            if not self._shown:  # after a restart
                latest = await asyncio.to_thread(self._tenant.store.shown.latest, _COVERED_LISTS)
                self._keep_shown([shown for shown in latest if shown.at <= self._shown_at])
            lists = await asyncio.to_thread(self._new_lists, now - _SETTLED_S)
            events = await asyncio.to_thread(self._new_events, now)
            found = self._take_in(events, lists, now)
            found += await self._take_confidence(lists)
            found += self._close_window(now)
            if self.figures is None or now - self.figures.at >= _FIGURES_EVERY_S:
                self.figures = await asyncio.to_thread(self._make_figures, now)
            self._looked_at = now
            self.drifts = [*self.drifts, *found][-_KEPT_DRIFTS:]
            await asyncio.to_thread(self._write)
        if found:
            self._tell(found)
        return found

    def forget(self, user: str) -> None:
        """Drop from memory what a person was shown; nothing else here is anybody's."""
        self._shown.pop(user, None)
        self._measures.forget(user)

    def _new_events(self, now: float) -> list[Arrived]:
        """In a thread."""
        found: list[Arrived] = []
        seq = self._seq
        for _ in range(_MOST_PAGES):
            page = self._tenant.store.log.since(seq, _PAGE)
            for place, (_, event) in enumerate(page):
                if now - _SETTLED_S < event.timestamp <= now:
                    return found + page[:place]
            found += page
            if len(page) < _PAGE:
                break
            seq = page[-1].seq
        return found

    def _new_lists(self, until: float) -> list[Shown]:
        """In a thread."""
        found: list[Shown] = []
        after = self._shown_at
        for _ in range(_MOST_PAGES):
            page = self._tenant.store.shown.between(after, until, _PAGE)
            found += page
            if len(page) < _PAGE:
                break
            after = page[-1].at
        return found

    def _take_in(self, events: Sequence[Arrived], lists: Sequence[Shown], now: float) -> list[Drift]:
        """In the order in which they happened, so that an event meets the list before it."""
        found: list[Drift] = []
        waiting = list(reversed(lists))
        for seq, event in events:
            while waiting and waiting[-1].at <= event.timestamp:
                self._take_list(waiting.pop())
            self._seq, self.n_events = seq, self.n_events + (event.type != IMPORTED_TYPE)
            if now - event.timestamp <= _LATE_S:
                found += self._take_event(event)
        while waiting:
            self._take_list(waiting.pop())
        return found

    def _take_list(self, shown: Shown) -> None:
        self._shown_at = max(self._shown_at, shown.at)
        self._measures.count(self._bins.of_list(shown), _key(shown))
        self._keep_shown([shown])

    def _keep_shown(self, lists: Sequence[Shown]) -> None:
        """The latest of each person, in memory alone."""
        for shown in sorted(lists, key=lambda one: one.at):
            key = _key(shown)
            kept = self._shown.get(key)
            self._shown[key] = shown if kept is None or kept.at <= shown.at else kept
            self._shown.move_to_end(key)
        while len(self._shown) > _MOST_PEOPLE:
            self._shown.popitem(last=False)

    def _take_event(self, event: Event) -> list[Drift]:
        measures, streams = self._measures, self._measures.streams
        measures.count(self._bins.of_event(event), _key(event))
        measures.n_events += 1
        found = [streams[UNKNOWN].update(float(self._bins.is_unknown(event)), event.timestamp)]
        shown = self._shown.get(_key(event))
        is_positive = self._tenant.feedback.meaning(event.type, event.value) == "positive"
        if shown is not None and is_positive and 0 <= event.timestamp - shown.at <= _DAY_S:
            found.append(streams[HITS].update(float(event.item in shown.items[:_K]), event.timestamp))
        return [drift for drift in found if drift is not None]

    async def _take_confidence(self, lists: Sequence[Shown]) -> list[Drift]:
        """The share of the model's probability that the newest lists hold, of those whose person is in memory."""
        asked: list[tuple[Shown, Floats]] = []
        model, slack = self._tenant.engine.model, self._tenant.settings.model.window_slack
        for shown in lists[-_CONFIDENCE_LISTS:]:
            person = self._tenant.people.find(_key(shown))
            if person is not None and person.codes and person.is_read(model, slack) and person.read is not None:
                asked.append((shown, model.user_vector(person.user_window(person.read[1]))))
        if not asked:
            return []
        codes = [
            [code for item in shown.items if (code := self._tenant.shelf.find(item)) is not None] for shown, _ in asked
        ]
        shares = await asyncio.to_thread(_confidence, model, np.stack([vector for _, vector in asked]), codes)
        stream = self._measures.streams[CONFIDENCE]
        found = [stream.update(share, shown.at) for share, (shown, _) in zip(shares, asked, strict=True)]
        return [drift for drift in found if drift is not None]

    def _close_window(self, now: float) -> list[Drift]:
        """After whole days, so that hours are compared with the same hours, and with enough events."""
        settings, window_s = self._tenant.settings.learning, 3600 * self._tenant.settings.learning.window_hours
        began = self._measures.began
        has_passed = int((now - began) / window_s) > int(max(0.0, self._looked_at - began) / window_s)
        if not has_passed or self._measures.n_events < settings.window_events:
            return []
        return self._measures.close_window(settings.psi, now)

    def _make_figures(self, now: float) -> Figures:
        """In a thread."""
        rows = self._tenant.store.clicks.by_arm(now - _DAY_S, self.click_types())
        latest = self._tenant.store.shown.latest(_COVERED_LISTS)
        n_shown = len({item for shown in latest for item in shown.items if item in self._tenant.shelf})
        figures = Figures(
            at=now,
            lists=sum(row.lists for row in rows),
            clicked_lists=sum(row.clicked_lists for row in rows),
            coverage=n_shown / max(1, self._tenant.shelf.n_open),
        )
        _log.info("lists of the last day", extra={"event": "list_figures", "tenant": self.name, **figures.to_dict()})
        return figures

    def _tell(self, drifts: Sequence[Drift]) -> None:
        names = ", ".join(drift.what for drift in drifts)
        figures = {drift.what: round(drift.value, 4) for drift in drifts}
        self._alerts.raise_alert(Alert("drift", f"changed: {names}", self.name, figures))

    def _read(self) -> None:
        if not self._path.exists():
            return
        try:
            values, _ = read_json(self._path, FORMAT)
            measures = Measures.from_dict(values["measures"])
            drifts = [Drift(**one) for one in values["drifts"]]
            places = int(values["seq"]), float(values["shown_at"]), int(values["events"]), float(values["looked_at"])
        except (RunError, KeyError, TypeError, ValueError, AttributeError):
            _log.warning("what was kept of drift is damaged; it begins anew", extra={"event": "watch_lost"})
            return
        self._seq, self._shown_at, self.n_events, self._looked_at = places
        self._version, self._measures, self.drifts = str(values.get("version")), measures, drifts

    def _write(self) -> None:
        values = {"seq": self._seq, "shown_at": self._shown_at, "events": self.n_events, "version": self._version}
        values |= {"looked_at": self._looked_at, "measures": self._measures.to_dict()}
        with storage_errors(self._path.parent):
            drifts = [drift.to_dict() for drift in self.drifts]
            replace_file(self._path, json_bytes({"format": FORMAT, **values, "drifts": drifts}))


def _click_types(feedback: FeedbackSettings, seen: Iterable[str]) -> list[str]:
    if "*" in feedback.positive:
        return sorted(set(seen) - {*feedback.negative, *feedback.read})
    return sorted({re.split("[<>=]", text)[0].strip() for text in feedback.positive})


def _key(one: Event | Shown) -> str:
    return one.user or SESSION + one.session


def _confidence(model: LiveModel, vectors: Floats, codes: Sequence[Sequence[int]]) -> list[float]:
    """In a thread."""
    shares: list[float] = []
    for vector, some in zip(vectors, codes, strict=True):
        scores = model.scores(vector[None])[0].astype(np.float64)
        weights = np.exp(scores - scores.max())
        known = [code for code in some if code < len(weights)]
        shares.append(float(weights[known].sum() / weights.sum()))
    return shares
