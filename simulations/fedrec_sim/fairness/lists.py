"""Everybody's list of a run's adapter, arranged as the service arranges them, with floors of exposure or without."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedrec.data.splits import EvaluationSplit
from fedrec.evaluation.protocol import Scorer
from fedrec.fairness.figures import NOTHING
from fedrec.recommend.arrangement import ArrangementSettings, Audience, arrange
from fedrec.recommend.compiled_rules import CompiledRules
from fedrec.recommend.floors import FairShares, FloorController
from fedrec.recommend.popularity import Popularity
from fedrec.recommend.shelf import Item, Shelf

PLACES = 10
_CANDIDATES = 200
_BATCH = 128


@dataclass(frozen=True)
class Asked:
    """Everybody's question: scores of what they do not know yet, and what they turned to. Private.

    Attributes:
        scores: float32 `[people, items]`, -inf where an item is known.
        targets: int64 `[people]`.
    """

    scores: NDArray[np.float32] = field(repr=False)
    targets: NDArray[np.int64] = field(repr=False)
    users: tuple[str, ...] = field(repr=False)
    lengths: NDArray[np.int64] = field(repr=False)

    @classmethod
    def of(cls, scorer: Scorer, splits: Sequence[EvaluationSplit]) -> "Asked":
        """The test of protocol B: the last item, after all before it."""
        asked = [one for one in splits if len(one.test) and not np.isin(one.test[0], one.history("test"))]
        histories = [one.history("test") for one in asked]
        pieces = [scorer.score(histories[at : at + _BATCH]) for at in range(0, len(histories), _BATCH)]
        scores = np.concatenate(pieces)
        for row, history in zip(scores, histories, strict=True):
            row[history] = -np.inf
        lengths = np.array([len(history) for history in histories])
        return cls(scores, np.array([one.test[0] for one in asked]), tuple(one.user for one in asked), lengths)


class Lister:
    """Makes lists of ten. Nothing but floors arranges them."""

    def __init__(self, n_items: int) -> None:
        self._shelf = Shelf(Item(str(code)) for code in range(n_items))
        self._rules = CompiledRules(np.ones(n_items, bool), np.zeros(n_items, np.float32))
        self._popularity = Popularity.of(np.ones(n_items))

    def every(self, asked: Asked, fair: FairShares | None) -> NDArray[np.int64]:
        """One list for each person, `[people, PLACES]`."""
        return np.stack([self._list(row, fair) for row in asked.scores])

    def amortised(
        self, asked: Asked, controller: FloorController, fair: FairShares, rng: np.random.Generator, warm: int
    ) -> NDArray[np.int64]:
        """The same, people coming one after another in a random order, while prices move.

        Args:
            warm: how often all come before the lists that are given back, so that prices have settled.
        """
        lists = np.full((len(asked.scores), PLACES), NOTHING, np.int64)
        for _ in range(warm + 1):
            for person in rng.permutation(len(asked.scores)):
                now = FairShares(fair.names, fair.shares, fair.members, controller.prices.copy(), is_each=False)
                lists[person] = self._list(asked.scores[person], now)
                controller.note(fair.members[:, lists[person]])
        return lists

    def _list(self, scores: NDArray[np.float32], fair: FairShares | None) -> NDArray[np.int64]:
        codes = candidates(scores, fair)
        placed = arrange(
            self._shelf,
            codes,
            scores[codes],
            lambda some: np.zeros((len(some), 1), np.float32),
            PLACES,
            ArrangementSettings(),
            self._rules,
            self._popularity,
            Audience(),
            0.0,
            fair=fair,
        )
        return np.array([one.code for one in placed], np.int64)


def candidates(scores: NDArray[np.float32], fair: FairShares | None) -> NDArray[np.int32]:
    """The best by score and price, and the best of each group that is owed places."""
    boosted = scores if fair is None else scores + fair.boost(np.arange(len(scores)))
    chosen = [np.argsort(-boosted, kind="stable")[:_CANDIDATES]]
    if fair is not None and fair.is_each:
        for own in fair.members:
            codes = np.flatnonzero(own)
            chosen.append(codes[np.argsort(-scores[codes], kind="stable")[:PLACES]])
    codes = np.unique(np.concatenate(chosen))
    return codes[np.isfinite(scores[codes])].astype(np.int32)


def hits(lists: NDArray[np.int64], targets: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """HR@10 and NDCG@10 of each person, `[people]` each. Private."""
    found = lists == targets[:, None]
    gains = 1 / np.log2(np.arange(2.0, lists.shape[1] + 2.0))
    return found.any(1).astype(np.float64), (found * gains).sum(1)
