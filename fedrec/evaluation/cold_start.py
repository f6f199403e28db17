"""Users and items that training never met."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fedrec.evaluation.protocol import Items, Scorer, Scores


@dataclass(frozen=True)
class PopularToStrangers:
    """A scorer whose users of empty history get what is popular: it would have nothing but ties for them.

    Attributes:
        scorer: for everybody else.
        popularity: float32 `[items]`.
    """

    scorer: Scorer
    popularity: np.ndarray = field(repr=False)

    def score(self, histories: Sequence[Items]) -> Scores:
        """The scorer's scores, and popularity where a history is empty."""
        scores = np.array(self.scorer.score(histories))
        scores[[len(history) == 0 for history in histories]] = self.popularity
        return scores
