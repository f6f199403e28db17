"""The final ranking learns from clicks: a job that fits weights, holds them against those before, and keeps the better.

It reads features as they were when a list was shown: an arm that learns stores them with its lists. Made anew they
would be of today: popularity would count the very clicks that are to be foretold, and the model would have read them.
Lists that were ranked elsewhere, or before the arm learnt, have none and teach nothing.
"""

import asyncio
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from fedrec.errors import DataError
from fedrec.recommend.final import FinalWeights, ShownFeatures, click_ndcg, learn_weights
from fedrec_client.serving.errors import ConflictError
from fedrec_client.serving.ranking import Ranking
from fedrec_client.serving.records import Shown
from fedrec_client.serving.tenant import Tenant

_log = logging.getLogger(__name__)
# Latest lists with a click that are learnt from; the last fifth of them is held out.
_MOST_LISTS = 10_000
LEAST_LISTS = 50
_HELD_OUT = 0.2


@dataclass(frozen=True)
class Fit:
    """Weights, and how well they order what was clicked. Stays with the partner.

    Attributes:
        millis: that they took.
        test, train: NDCG of clicks, by inverse propensity, on the later lists, which are held out, and the earlier.
    """

    weights: FinalWeights
    millis: float
    test: float
    train: float


@dataclass(frozen=True)
class Training:
    """What came of it.

    Attributes:
        before, after: weights that were in force, and those that clicks taught.
        lists: that had a click.
        is_used: whether `after` is in force now: it is no worse on what was held out.
    """

    before: Fit
    after: Fit
    lists: int
    is_used: bool

    @property
    def weights(self) -> FinalWeights:
        """In force now."""
        return self.after.weights if self.is_used else self.before.weights

    @property
    def size_bytes(self) -> int:
        """Of the weights as they are stored."""
        return len(json.dumps(_by_name(self.weights)))


class LearningToRank:
    """Of one tenant. Called on the event loop; what takes time is done in a thread, and requests go on."""

    def __init__(self, tenant: Tenant, ranking: Ranking) -> None:
        self._tenant, self._ranking = tenant, ranking
        self._under_way: dict[str, asyncio.Task[Training]] = {}

    async def restore(self) -> None:
        """Weigh as was learnt before the restart; an arm whose fields are others now begins anew."""
        for arm, weights in (await asyncio.to_thread(self._tenant.store.learned.every)).items():
            start = self._ranking.start(arm)
            if not self._ranking.learns(arm) or set(weights) != set(start.names):
                _log.info("learnt weights do not fit the settings", extra={"event": "weights_left"})
                continue
            self._ranking.learn(arm, start.with_row(np.array([weights[name] for name in start.names])))

    async def train(self, arm: str) -> Training:
        """Learn from all clicks so far, and weigh so from the next answer on, if that is no worse.

        Two who ask at a time share the work, which goes on if nobody waits for it any more.

        Raises: DataError: the arm does not learn. ConflictError: too few of its lists were clicked.
        """
        if not self._ranking.learns(arm):
            raise DataError("this arm has `learned = false`", "let its [ranking] learn, and let people click")
        task = self._under_way.get(arm)
        if task is None:
            task = self._under_way[arm] = asyncio.create_task(self._train(arm))
            task.add_done_callback(lambda done: self._ended(arm, done))
        return await asyncio.shield(task)

    def _ended(self, arm: str, done: "asyncio.Task[Training]") -> None:
        self._under_way.pop(arm, None)
        if not done.cancelled() and done.exception() is not None:  # so that asyncio does not tell it as well
            _log.info("the final ranking learnt nothing", extra={"event": "weights_not_learnt"})

    async def _train(self, arm: str) -> Training:
        await self._tenant.written()
        start, before = self._ranking.start(arm), self._ranking.settings(arm).weights
        training = await asyncio.to_thread(self._fit, arm, start, before)
        if training.is_used:
            weights = training.after.weights
            await asyncio.to_thread(self._tenant.store.learned.put, arm, _by_name(weights), time.time())
            self._ranking.learn(arm, weights)
        _log.info("learnt from %d lists", training.lists, extra={"event": "weights_learnt"})
        return training

    def _fit(self, arm: str, start: FinalWeights, before: FinalWeights) -> Training:
        """In a thread: of live state it sees these weights alone."""
        counts = self._tenant.feedback.is_positive
        clicked, names = self._tenant.store.clicks.clicked(arm, counts), set(start.names)
        found = list(islice((row for row in clicked if set(row[0].features) == names), _MOST_LISTS))[::-1]
        if len(found) < LEAST_LISTS:
            raise ConflictError(f"fewer than {LEAST_LISTS} lists of this arm were clicked", "try again later")
        rows = [_features(shown, clicked, start.names) for shown, clicked in found]
        cut = len(rows) - max(int(_HELD_OUT * len(rows)), 1)
        return compared(rows[:cut], rows[cut:], start, before)


def compared(
    train: Sequence[ShownFeatures], test: Sequence[ShownFeatures], start: FinalWeights, before: FinalWeights
) -> Training:
    """Weights learnt from some lists beside those before, on lists that came later.

    Args:
        start: where learning begins, and stays with few clicks.
    """
    fits = []
    for weights in (before, None):
        began = time.perf_counter()
        weights = weights or learn_weights(train, start)
        millis = 1000 * (time.perf_counter() - began)
        fits.append(Fit(weights, millis, click_ndcg(test, weights), click_ndcg(train, weights)))
    is_used = bool(np.isfinite(fits[1].weights.row).all()) and fits[1].test >= fits[0].test
    return Training(fits[0], fits[1], len(train) + len(test), is_used)


def _features(shown: Shown, clicked: frozenset[str], names: Sequence[str]) -> ShownFeatures:
    columns = [np.array(shown.features[name], np.float64) for name in names]  # None becomes NaN
    return ShownFeatures(np.stack(columns, 1), np.array([item in clicked for item in shown.items], bool))


def _by_name(weights: FinalWeights) -> dict[str, float]:
    return dict(zip(weights.names, weights.row.tolist(), strict=True))
