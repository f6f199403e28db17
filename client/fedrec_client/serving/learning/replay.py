"""Prequential evaluation: would the new adapter have ranked the latest events better than the one that serves?

Each event is predicted from what its person had done before it, then joins their history. Both adapters rank the same
events, so that the difference is paired; its interval comes from drawing people anew, since one person's events hang
together.

What leaves: nothing. Verdicts are sums over the partner's own people, made on the partner's own machine for its own
people, in its own folder and log; no coordinator, adapter or round reads them. So they need no noise, and no line of
the log holds anything finer than the sums of a whole replay.

Two things bend the figures. People chose from lists of the adapter that serves, which favours it. And an adapter that
was trained on an event knows it: `after` leaves out what came before the newest training.
"""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import RunError
from fedrec.evaluation.metrics import hit_rate, ndcg, target_ranks
from fedrec.recommend.live_model import LiveModel, UserWindow, window_start
from fedrec.recommend.readings import HistoryReader, Wanted
from fedrec_client.serving.engine import join_later_items
from fedrec_client.serving.people import Person
from fedrec_client.serving.tenant import Tenant

_log = logging.getLogger(__name__)
Outcome = Literal["helps", "no worse", "worse", "unclear"]
Floats64 = NDArray[np.float64]
_K = 10
_PAGE = 2000
# Events are looked at that far back for each that is wanted.
_LOOK_BACK = 10
_RESAMPLES, _LEVEL = 2000, 0.9
_STATE_BYTES, _BATCH_USERS = 256 << 20, 8
# Of a processor's time; it rests for the remainder, so that requests are answered meanwhile.
_BUSY_SHARE = 0.5
_NICE = 10


@dataclass(frozen=True, repr=False)
class Case:
    """An event to be predicted. Private.

    Attributes:
        user: number of the person within this replay.
        codes, weights: history before it, oldest first, one at least.
        hidden: codes that they would not be shown.
        target: code of the item that they turned to.
    """

    user: int
    codes: NDArray[np.int64]
    weights: NDArray[np.float32]
    hidden: NDArray[np.int64]
    target: int


@dataclass(frozen=True)
class Verdict:
    """How two adapters ranked the same events. Counts over people: stays with the partner.

    Attributes:
        old, new: versions.
        outcome: "helps": the interval lies above zero. "worse": the new one loses more than is tolerated, and the
            interval lies below zero. "no worse": it loses no more than is tolerated. "unclear": it loses more, but
            chance alone may have done that.
        ndcg_low, ndcg_high: 90% interval of the difference of NDCG@10, by bootstrap over people.
        took_s: of this machine.
    """

    old: str
    new: str
    outcome: Outcome
    events: int
    users: int
    hr_old: float = 0.0
    hr_new: float = 0.0
    ndcg_old: float = 0.0
    ndcg_new: float = 0.0
    ndcg_low: float = 0.0
    ndcg_high: float = 0.0
    took_s: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(repr=False)
class _Later:
    """Events of a person that are asked for, by item, type and time. Private."""

    user: str
    events: set[tuple[str, str, float]] = field(default_factory=set)


def latest_cases(tenant: Tenant, n: int, after: int = 0) -> list[Case]:
    """The latest positive events of users with a history, as serving would have met them; person by person.

    Events on items that the person had already, or that nobody may be shown any more, ask nothing of a list and are
    left out. In a thread: it reads the store.

    Args:
        n: as many at most.
        after: number of the event after which they came; 0: any.
    """
    wanted = _latest_positive(tenant, n, after)
    cases: list[Case] = []
    for number, one in enumerate(wanted.values()):
        cases += _cases_of(tenant, number, one)
    return cases


def _latest_positive(tenant: Tenant, n: int, after: int) -> dict[str, _Later]:
    """By user."""
    found: dict[str, _Later] = {}
    n_found = n_seen = 0
    before: int | None = None
    while n_found < n and n_seen < _LOOK_BACK * n:
        page = tenant.store.log.latest(_PAGE, before)
        for seq, event in page:
            if seq <= after or n_found >= n:
                return found
            if event.user and tenant.feedback.meaning(event.type, event.value) == "positive":
                found.setdefault(event.user, _Later(event.user)).events.add((event.item, event.type, event.timestamp))
                n_found += 1
        if len(page) < _PAGE:
            return found
        before, n_seen = page[-1].seq, n_seen + len(page)
    return found


def _cases_of(tenant: Tenant, number: int, one: _Later) -> list[Case]:
    person, cases = Person((tenant.name, "")), []
    may_be_shown, repeats = tenant.shelf.recommendable(), tenant.settings.feedback.repeats
    for event in tenant.store.events.history(one.user):
        code = tenant.shelf.find(event.item)
        if code is None or code >= len(may_be_shown):
            continue
        hidden = set(person.negative) | (set() if repeats else person.seen)
        is_asked = (event.item, event.type, event.timestamp) in one.events
        if is_asked and person.codes and code not in hidden and may_be_shown[code]:
            cases.append(
                Case(
                    number,
                    np.array(person.codes, np.int64),
                    np.array(person.weights, np.float32),
                    np.array(sorted(hidden), np.int64),
                    code,
                )
            )
        meaning = tenant.feedback.meaning(event.type, event.value)
        person.note(code, meaning, tenant.feedback.weight(event.type), event.timestamp)
    return cases


def ranks_of(
    model: LiveModel, cases: Sequence[Case], hidden: NDArray[np.bool_], slack: int, rest: Callable[[float], None]
) -> NDArray[np.int64]:
    """The rank that a model gives each target among what its person could have been shown, `[cases]`.

    Args:
        hidden: codes that nobody may be shown, `[items]`.
        rest: called after each pass with the seconds that it took.
    """
    reader = HistoryReader(model, _STATE_BYTES, _BATCH_USERS)
    ranks = np.zeros(len(cases), np.int64)
    ties = np.random.default_rng(0).permutation(model.n_items).astype(np.float64)
    for places in _waves(cases):
        began = time.perf_counter()
        starts = [window_start(len(cases[place].codes), model.max_history, slack) for place in places]
        wanted = [Wanted(cases[p].user, cases[p].codes[start:]) for p, start in zip(places, starts, strict=True)]
        for place, start, context in zip(places, starts, reader.read(wanted), strict=True):
            one = cases[place]
            vector = model.user_vector(UserWindow(one.codes[start:], one.weights[start:], context))
            scores = model.scores(vector[None])[0].astype(np.float64)
            scores[: len(hidden)][hidden[: len(scores)]] = -np.inf
            scores[one.hidden] = -np.inf
            ranks[place] = target_ranks(scores, np.array([one.target]), ties)[0]
        rest(time.perf_counter() - began)
    return ranks


def _waves(cases: Sequence[Case]) -> list[list[int]]:
    """Some people at a time, each one's next event: so that a history is read once, and then grows by a token."""
    by_user: dict[int, list[int]] = {}
    for place, case in enumerate(cases):
        by_user.setdefault(case.user, []).append(place)
    waves: list[list[int]] = []
    people = list(by_user.values())
    for start in range(0, len(people), _BATCH_USERS):
        some = people[start : start + _BATCH_USERS]
        longest = max(map(len, some))
        waves += [[places[step] for places in some if step < len(places)] for step in range(longest)]
    return waves


def judge(
    old: str,
    new: str,
    users: NDArray[np.int64],
    ranks_old: NDArray[np.int64],
    ranks_new: NDArray[np.int64],
    tolerance: float,
) -> Verdict:
    """The verdict on ranks of the same events.

    Args:
        users: number of each event's person, `[events]`.
        tolerance: share of the old one's NDCG@10 that may be lost.
    """
    n_events, n_users = len(users), len(np.unique(users))
    if not n_events:
        return Verdict(old, new, "unclear", 0, 0)
    hr_old, hr_new = (float(hit_rate(ranks[:, None], _K).mean()) for ranks in (ranks_old, ranks_new))
    gain_old, gain_new = (ndcg(ranks[:, None], _K) for ranks in (ranks_old, ranks_new))
    low, high = paired_interval(users, gain_new - gain_old)
    before, after = float(gain_old.mean()), float(gain_new.mean())
    outcome = _outcome(after - before, low, high, tolerance * before)
    return Verdict(old, new, outcome, n_events, n_users, hr_old, hr_new, before, after, low, high)


def _outcome(difference: float, low: float, high: float, tolerated: float) -> Outcome:
    if low > 0:
        return "helps"
    if difference >= -tolerated:
        return "no worse"
    return "worse" if high < 0 else "unclear"


def paired_interval(users: NDArray[np.int64], differences: Floats64, seed: int = 0) -> tuple[float, float]:
    """90% interval of the mean difference of an event, drawing people with replacement.

    Reference: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13 (percentile interval).
    """
    _, number = np.unique(users, return_inverse=True)
    sums, counts = np.bincount(number, differences), np.bincount(number).astype(np.float64)
    rng = np.random.default_rng(seed)
    n = len(counts)
    means = np.empty(_RESAMPLES)
    for turn in range(_RESAMPLES):
        drawn = rng.integers(n, size=n)
        means[turn] = sums[drawn].sum() / counts[drawn].sum()
    low, high = np.quantile(means, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(low), float(high)


def replay(
    tenant: Tenant, old: LiveModel, new: LiveModel, after: int = 0, stop: threading.Event | None = None
) -> Verdict:
    """Both adapters over the latest events. Slow; in a thread of its own, at low priority.

    Args:
        old, new: branches that nobody else adds items to, with the tenant's later items; see `branches`.
        after: as of `latest_cases`.
        stop: set to give it up.
    Raises: StorageError. RunError: it was given up.
    """
    rest = partial(_rest, stop or threading.Event())
    began, settings = time.perf_counter(), tenant.settings
    step_back()
    cases = latest_cases(tenant, settings.learning.replay_events, after)
    cases = [case for case in cases if case.target < old.n_items and case.codes.max() < old.n_items]
    hidden, slack = ~tenant.shelf.recommendable(), settings.model.window_slack
    ranks_old, ranks_new = (ranks_of(model, cases, hidden, slack, rest) for model in (old, new))
    users = np.array([case.user for case in cases], np.int64)
    verdict = judge(old.version, new.version, users, ranks_old, ranks_new, settings.learning.replay_tolerance)
    verdict = replace(verdict, took_s=round(time.perf_counter() - began, 3))
    _log.info("replayed: %s", verdict.outcome, extra={"event": "replayed", **verdict.to_dict()})
    return verdict


def branches(tenant: Tenant, new: LiveModel) -> tuple[LiveModel, LiveModel]:
    """The adapter that serves and a new one, both with the tenant's items of now. On the event loop."""
    old, other = tenant.engine.model.branch(), new.branch()
    join_later_items(other, old)
    return old, other


def step_back() -> None:
    """Let all else go before this thread; where the system has no such thing, the rests must do."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


def _rest(stop: threading.Event, took_s: float) -> None:
    if stop.wait(took_s * (1 - _BUSY_SHARE) / _BUSY_SHARE):
        raise RunError("a replay was given up: the service ends")
