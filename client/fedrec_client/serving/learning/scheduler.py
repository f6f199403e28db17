"""When a round is asked for: by time, by number of new events, by drift; never beyond the privacy budget.

What the coordinator learns from the time of a wish. One by time comes whatever the events are, at a moment drawn
beforehand: nothing. One by number or drift comes at the next full hour plus some minutes drawn beforehand, so that the
hour shows, and no more: within the hours since the last wish the partner had `new_events` events, or drifted, unless
the coordinator takes it for one by time. The ledger does not charge this; whoever may not tell as much leaves
`new_events` 0 and `on_drift` off, or `learning.rounds` off, as it is by default.
"""

import asyncio
import json
import logging
import math
import os
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from fedrec.errors import FedrecError, RunError
from fedrec.files import json_bytes, read_json, replace_file, storage_errors
from fedrec_client.serving.learning.alerts import Alert, Alerts
from fedrec_client.serving.settings import LearningSettings

_log = logging.getLogger(__name__)
FORMAT = 1
STATE, DECISIONS = "scheduler.json", "decisions.jsonl"
_HOUR_S = 3600.0
# Partners that ask by time spread over a tenth of the interval, others over the first minutes of the hour.
_SPREAD, _SPREAD_S = 0.1, 300.0
_AGAIN_S = 600.0

Reason = Literal["off", "nothing yet", "waits", "time", "events", "drift", "budget unknown", "budget spent"]


@dataclass(frozen=True)
class Budget:
    """What a partner's data may still pay, and what a round costs."""

    remaining_epsilon: float
    next_epsilon: float


@dataclass(frozen=True)
class Situation:
    """What a decision hangs on. Private.

    Attributes:
        since: Unix seconds of the last wish; before the first, of the beginning.
        new_events, has_drifted: since then.
        pending: reason and Unix seconds of a wish that waits for its hour.
        draw: within 0..1, drawn when the last wish was made.
    """

    now: float
    since: float
    new_events: int
    has_drifted: bool
    budget: Budget | None
    draw: float
    pending: tuple[Reason, float] | None = None


@dataclass(frozen=True)
class Decision:
    """What comes of it.

    Attributes:
        asks: now.
        due: Unix seconds of a wish that waits.
    """

    asks: bool
    reason: Reason
    due: float | None = None


def decide(settings: LearningSettings, s: Situation) -> Decision:
    """Whether to ask now.

    >>> quiet = Situation(now=7200, since=0, new_events=0, has_drifted=False, budget=Budget(8, 1), draw=0)
    >>> decide(LearningSettings(rounds=True, every_hours=2), quiet)
    Decision(asks=True, reason='time', due=None)
    """
    if not settings.rounds:
        return Decision(False, "off")
    pending = s.pending or _pending(settings, s)
    by_time = s.since + settings.every_hours * _HOUR_S * (1 + _SPREAD * s.draw) if settings.every_hours else math.inf
    reason: Reason = "time" if s.now >= by_time else "nothing yet"
    if pending is not None and reason != "time":
        reason = pending[0] if s.now >= pending[1] else "waits"
    if reason in ("nothing yet", "waits"):
        return Decision(False, reason, pending[1] if pending else None)
    if s.budget is None:
        return Decision(False, "budget unknown", pending[1] if pending else None)
    if s.budget.next_epsilon > s.budget.remaining_epsilon:
        return Decision(False, "budget spent", pending[1] if pending else None)
    return Decision(True, reason)


def _pending(settings: LearningSettings, s: Situation) -> tuple[Reason, float] | None:
    """A wish that the events make, and when it may be told: at a full hour, and never too soon after the last."""
    if settings.on_drift and s.has_drifted:
        reason: Reason = "drift"
    elif settings.new_events and s.new_events >= settings.new_events:
        reason = "events"
    else:
        return None
    earliest = max(s.now, s.since + settings.min_hours * _HOUR_S)
    return reason, math.ceil(earliest / _HOUR_S) * _HOUR_S + _SPREAD_S * s.draw


@dataclass(frozen=True)
class SchedulerState:
    """What outlives a restart. Private.

    Attributes:
        since: Unix seconds of the last wish, or of the beginning.
        events: that there were then, of all tenants.
        pending: see `Situation`.
        draw: see `Situation`.
    """

    since: float
    events: int
    draw: float
    pending: tuple[Reason, float] | None = None


@dataclass(frozen=True)
class Questions:
    """What a scheduler asks of the rest.

    Attributes:
        events: that were ever read, of all tenants.
        drifted_at: Unix seconds of the latest drift; -inf before the first.
        budget: None: unknown, so that nothing is asked for. In a thread.
        ask: tells the coordinator; raises FedrecError. In a thread.
    """

    events: Callable[[], int]
    drifted_at: Callable[[], float]
    budget: Callable[[], Budget | None]
    ask: Callable[[], object]


class Scheduler:
    """Looks every minute. Used on the event loop.

    Args:
        folder: the service's; state and decisions are kept there.
        draw: numbers within 0..1.
    """

    def __init__(
        self,
        folder: Path,
        settings: LearningSettings,
        questions: Questions,
        alerts: Alerts,
        *,
        clock: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._folder, self._settings, self._questions, self._alerts = folder, settings, questions, alerts
        self._clock, self._draw = clock, draw
        self._said: Reason | None = None
        self._not_before = -math.inf
        self._state = self._read()

    async def look(self) -> Decision:
        """Decide, and ask if that is what was decided. Raises StorageError."""
        situation = await self._situation()
        decision = decide(self._settings, situation)
        pending = situation.pending or (_pending(self._settings, situation) if self._settings.rounds else None)
        if pending != self._state.pending:
            await self._keep(replace(self._state, pending=pending))
        if decision.asks:
            return await self._ask(decision, situation)
        if decision.reason != self._said:
            await self._note(decision, situation)
        return decision

    async def _situation(self) -> Situation:
        state, events = self._state, self._questions.events()
        if events < state.events:  # what was kept of events was lost
            state = replace(state, events=events)
            await self._keep(state)
        return Situation(
            now=self._clock(),
            since=state.since,
            new_events=events - state.events,
            has_drifted=self._questions.drifted_at() > state.since,
            budget=await asyncio.to_thread(self._questions.budget) if self._settings.rounds else None,
            draw=state.draw,
            pending=state.pending,
        )

    async def _ask(self, decision: Decision, situation: Situation) -> Decision:
        """First the coordinator, then the disk: a wish that is told twice does no harm, one that is lost does."""
        now = situation.now
        if now < self._not_before:
            return Decision(False, "waits", self._not_before)
        try:
            await asyncio.to_thread(self._questions.ask)
        except FedrecError as error:
            self._not_before = now + _AGAIN_S
            _log.warning("no round was asked for: %s", error.problem, extra={"event": "wish_lost"})
            return Decision(False, "waits", self._not_before)
        await self._keep(SchedulerState(now, self._questions.events(), self._draw()))
        await self._note(decision, situation)
        return decision

    async def _note(self, decision: Decision, situation: Situation) -> None:
        """A line of the log of decisions, and an alert where somebody can do something about it."""
        self._said = decision.reason
        line = {"at": situation.now, **asdict(decision), "new_events": situation.new_events}
        line |= {"has_drifted": situation.has_drifted, "budget": situation.budget and asdict(situation.budget)}
        await asyncio.to_thread(_append, self._folder / DECISIONS, line)
        _log.info("rounds: %s", decision.reason, extra={"event": "round_decision", "asks": decision.asks})
        if decision.reason in ("budget unknown", "budget spent"):
            self._alerts.raise_alert(Alert("budget", f"no round is asked for: {decision.reason}"))

    async def _keep(self, state: SchedulerState) -> None:
        await asyncio.to_thread(self._write, state)
        self._state = state

    def _write(self, state: SchedulerState) -> None:
        with storage_errors(self._folder):
            replace_file(self._folder / STATE, json_bytes({"format": FORMAT, **asdict(state)}))

    def _read(self) -> SchedulerState:
        """A damaged file counts as a wish of now: to wait is no loss, to spend the budget early is one."""
        if (path := self._folder / STATE).exists():
            try:
                values, _ = read_json(path, FORMAT)
                pending = values["pending"] and (values["pending"][0], float(values["pending"][1]))
                return SchedulerState(float(values["since"]), int(values["events"]), float(values["draw"]), pending)
            except (RunError, KeyError, TypeError, ValueError):
                _log.warning("what was kept of wishes is damaged; it begins anew", extra={"event": "scheduler_lost"})
        state = SchedulerState(self._clock(), self._questions.events(), self._draw())
        self._write(state)
        return state


def _append(path: Path, line: dict[str, Any]) -> None:
    """Durably, for the owner alone. Raises StorageError."""
    with storage_errors(path.parent):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(handle, (json.dumps(line) + "\n").encode())
            os.fsync(handle)
        finally:
            os.close(handle)


def decisions(folder: Path, n: int = 100) -> list[dict[str, Any]]:
    """The latest decisions, oldest first; a line that a crash cut off is left out."""
    path = folder / DECISIONS
    if not path.exists():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines()[-n:]:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found
