"""From scores of all items to the candidates that are arranged, and how they are arranged in each arm."""

import math
import time
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedrec.recommend.arrangement import ArrangementSettings
from fedrec.recommend.compiled_rules import CompiledRules
from fedrec.recommend.final import FinalWeights, feature_columns
from fedrec.recommend.index import Codes, best
from fedrec.recommend.live_model import Floats, LiveModel
from fedrec.recommend.popularity import Popularity
from fedrec_client.serving.settings import RankingSettings
from fedrec_client.serving.tenant import Tenant

# How long counts stand before popularity is worked out anew.
_STALE_S = 10.0


class Ruled(Protocol):
    """A request as far as candidates go."""

    @property
    def arm(self) -> str: ...
    @property
    def rules(self) -> CompiledRules: ...
    @property
    def near(self) -> Codes | None: ...


class Ranking:
    """See the module."""

    def __init__(self, tenant: Tenant) -> None:
        self._tenant = tenant
        self._popularity: tuple[float, Popularity] | None = None
        self.learned: dict[str, FinalWeights] = {}
        self._settings: dict[str, ArrangementSettings] = {}
        self._of_arm: dict[str, RankingSettings] = {}

    def settings(self, arm: str) -> ArrangementSettings:
        """How an arm arranges."""
        found = self._settings.get(arm)
        if found is None:
            found = self._settings[arm] = self._made(arm)
        return found

    def learn(self, arm: str, weights: FinalWeights) -> None:
        """Weigh as clicks taught, from now on."""
        self.learned[arm] = weights
        self._settings.pop(arm, None)

    def _told(self, arm: str) -> RankingSettings:
        found = self._of_arm.get(arm)
        if found is None:
            found = self._of_arm[arm] = self._tenant.settings.ranking_of(arm)
        return found

    def _made(self, arm: str) -> ArrangementSettings:
        told = self._told(arm)
        weights = _weights(told)
        return ArrangementSettings(
            self.learned.get(arm, weights) if told.learned else weights,
            told.diversity,
            told.relevance,
            told.calibration,
            told.negative,
        )

    async def near(self, model: LiveModel, vector: Floats, arm: str, wanted: int) -> Codes | None:
        """What the graph of items finds for a list of `wanted`; None: no graph answers, and all items are scored."""
        probe = self._tenant.settings.model.index_probe
        return await self._tenant.index.candidates(model, vector, 2 * self._most(arm, wanted), probe)

    def _most(self, arm: str, wanted: int) -> int:
        """So many are arranged: twice as many as are wanted at least."""
        return max(self._told(arm).candidates, 2 * wanted)

    def of_model(
        self, request: Ruled, model: LiveModel, vector: Floats, blocked: NDArray[np.bool_], wanted: int
    ) -> tuple[Codes, Floats]:
        """Codes to be arranged, and their scores by the model: from `request.near` if enough of these are open."""
        most = self._most(request.arm, wanted)
        if request.near is not None:
            is_open = request.rules.open & ~blocked
            boosted = np.flatnonzero(request.rules.boost > 0)
            codes = np.union1d(request.near[request.near < len(is_open)], boosted)
            codes = codes[is_open[codes]]
            if len(codes) >= most:
                scores = model.score_rows[codes] @ vector
                order = np.argsort(-(scores + request.rules.boost[codes]), kind="stable")[:most]
                return codes[order], scores[order]
        scores = model.scores(vector[None])[0]
        codes = self.candidates(request, scores, blocked, wanted)
        return codes, scores[codes]

    def learns(self, arm: str) -> bool:
        """Whether clicks teach its weights."""
        return self._told(arm).learned

    def start(self, arm: str) -> FinalWeights:
        """The weights that the settings name, where learning begins."""
        return _weights(self._told(arm))

    def features(
        self, arm: str, codes: Sequence[int], scores: Sequence[float], now: float
    ) -> list[dict[str, float | None]]:
        """What an arm's final ranking weighs of each item, by name; None where it is not known.

        Args:
            scores: the model's, nats; NaN where another source put the item in the list.
        """
        weights, popularity = self.settings(arm).weights, self.popularity()
        columns = feature_columns(
            weights, self._tenant.shelf, np.array(codes, np.int64), np.array(scores, np.float64), popularity, now
        )
        return [
            {name: _rounded(value) for name, value in zip(weights.names, row, strict=True)} for row in columns.tolist()
        ]

    def candidates(
        self, request: Ruled, scores: NDArray[np.floating], blocked: NDArray[np.bool_], wanted: int
    ) -> Codes:
        """Codes to be arranged: the best by score and boost."""
        scored = scores + request.rules.boost
        return self.best(scored, request.rules.open & ~blocked, self._most(request.arm, wanted))

    def best(self, scores: NDArray[np.floating], is_open: NDArray[np.bool_], k: int) -> Codes:
        """Codes of the k best that are open."""
        column = np.asarray(scores, np.float32)
        return best(column, is_open & (column > -np.inf), k)

    def popularity(self) -> Popularity:
        """By the counts of some seconds ago."""
        n, now = len(self._tenant.shelf), time.monotonic()
        if self._popularity is None or now - self._popularity[0] > _STALE_S or len(self._popularity[1].log) != n:
            self._popularity = (now, Popularity.of(self._tenant.trends.popular(n)))
        return self._popularity[1]


def _weights(settings: RankingSettings) -> FinalWeights:
    return FinalWeights(settings.model, settings.recency, settings.popularity, dict(settings.fields))


def _rounded(value: float) -> float | None:
    """Six digits, so that a stored list stays small."""
    return float(f"{value:.6g}") if math.isfinite(value) else None
