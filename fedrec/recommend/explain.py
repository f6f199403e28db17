"""Why an item was recommended: what its score loses when a history item is left out."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fedrec.data.catalog import ItemCatalog
from fedrec.recommend.recommender import RankedList, Recommender


@dataclass(frozen=True)
class Reason:
    """The history item whose absence costs a recommended item most.

    Attributes:
        item: catalogue code of that history item, or None if none raises the score.
        gain: how much of the score is owed to it.
    """

    item: int | None = field(repr=False)
    gain: float = field(repr=False)

    def in_words(self, catalog: ItemCatalog) -> str:
        """A sentence for the person who gets the list."""
        if self.item is None:
            return "liked by many, whatever you watched"
        return f"because of {catalog.titles[self.item]}"


def leave_one_out(
    recommender: Recommender, history: np.ndarray, ranked: RankedList, latest: int = 20
) -> Sequence[Reason]:
    """For each recommended item, the one of the `latest` history items that raises its score most.

    Scores are compared after centring over the catalogue, since a constant shift of all scores changes no rank.
    """
    if len(history) < 2:
        lone = int(history[-1]) if len(history) else None
        return [Reason(lone, 0.0) for _ in ranked.items]
    places = range(max(0, len(history) - latest), len(history))
    variants = [history, *(np.delete(history, place) for place in places)]
    scores = recommender.score(variants)
    scores = scores - scores.mean(1, keepdims=True)
    gains = scores[0, ranked.items] - scores[1:, ranked.items]  # [places, k]
    best = gains.argmax(0)
    return [
        Reason(int(history[places[place]]) if gains[place, column] > 0 else None, float(gains[place, column]))
        for column, place in enumerate(best)
    ]
