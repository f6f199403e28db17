"""The final ranking: a candidate's score beside its newness, popularity and any number that items bring with them.

Each feature is counted in standard deviations over the candidates. The sum is given in the model's own unit, nats, so
that a rule's nats mean the same whatever the weights; with the model's weight alone it is the model's score.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from fedrec.errors import DataError
from fedrec.recommend.popularity import Popularity
from fedrec.recommend.shelf import Shelf

Floats = NDArray[np.float64]
DAY_S = 86_400.0
MAX_INVERSE_PROPENSITY = 10.0


@dataclass(frozen=True)
class FinalWeights:
    """Weights of the features, in standard deviations over the candidates. Public within the partner."""

    model: float = 1.0
    recency: float = 0.0
    popularity: float = 0.0
    fields: Mapping[str, float] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the features, in the order of `row`."""
        return ("model", "recency", "popularity", *self.fields)

    @property
    def row(self) -> Floats:
        """`[features]`."""
        return np.array([self.model, self.recency, self.popularity, *self.fields.values()], np.float64)

    @property
    def is_model_alone(self) -> bool:
        """Whether the final score is the model's."""
        return self.model == 1 and not (self.recency or self.popularity or any(self.fields.values()))

    def with_row(self, row: Floats) -> "FinalWeights":
        """The same features with other weights, learnt ones."""
        model, recency, popularity, *others = (float(weight) for weight in row)
        return FinalWeights(model, recency, popularity, dict(zip(self.fields, others, strict=True)))


def standardised(features: NDArray[np.floating]) -> Floats:
    """Columns in standard deviations from their mean; what is not finite counts as the mean: `[candidates, features]`.

    >>> standardised(np.array([[1.0], [3.0], [np.nan]])).ravel().tolist()
    [-1.0, 1.0, 0.0]
    """
    columns = np.array(features, np.float64)
    is_there = np.isfinite(columns)
    columns[~is_there] = 0
    count = np.maximum(is_there.sum(0), 1)
    columns = np.where(is_there, columns - columns.sum(0) / count, 0)
    spread = np.sqrt((columns**2).sum(0) / count)
    return columns / np.where(spread > 1e-12, spread, np.inf)


def feature_columns(
    weights: FinalWeights,
    shelf: Shelf,
    codes: NDArray[np.integer],
    scores: NDArray[np.floating],
    popularity: Popularity,
    now: float,
) -> Floats:
    """What the weights are for, NaN where it is not known: `[candidates, features]`.

    Newness is minus the logarithm of the age in days, so that a day counts much for what is new and little later.
    """
    appeared = shelf.timestamps()[codes]
    age_days = np.maximum(now - appeared, 0) / DAY_S
    newness = np.where(appeared > 0, -np.log1p(age_days), np.nan)
    fields = [shelf.numbers(name)[codes] for name in weights.fields]
    return np.stack([np.asarray(scores, np.float64), newness, popularity.log[codes], *fields], 1)


def final_scores(features: Floats, weights: FinalWeights) -> Floats:
    """The weighted sum, in nats: `[candidates]`. The first feature is the model's score."""
    model = features[:, 0][np.isfinite(features[:, 0])]
    if not len(model):
        return standardised(features) @ weights.row
    spread = float(model.std())
    return float(model.mean()) + (spread if spread > 1e-12 else 1.0) * (standardised(features) @ weights.row)


@dataclass(frozen=True, repr=False)
class ShownFeatures:
    """A list that somebody was shown, in its order. Private.

    Attributes:
        features: float64 `[places, features]`, as `feature_columns` gives them.
        is_clicked: bool `[places]`.
    """

    features: Floats
    is_clicked: NDArray[np.bool_]

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or self.is_clicked.shape != self.features.shape[:1]:
            raise DataError("features and clicks of a list have different lengths", "give one click for each place")


def propensities(places: int, eta: float = 1.0) -> Floats:
    """How likely each place of a list is looked at, beside the first: `1 / place ** eta`. Joachims et al. 2017."""
    return 1.0 / np.arange(1, places + 1, dtype=np.float64) ** eta


def learn_weights(
    shown: Sequence[ShownFeatures], prior: FinalWeights, *, eta: float = 1.0, strength: float = 100.0
) -> FinalWeights:
    """Weights under which what was clicked stands before what was not, as far as the data say so.

    Args:
        shown: lists; those without a click, or with nothing else, say nothing.
        prior: where it begins, and stays with few data.
        eta: of `propensities`; a click far down counts for the many that were not seen there, up to tenfold.
        strength: of the prior: about as many clicks outweigh it.
    Privacy: the weights tell of the partner's clicks: they stay with the partner.
    Reference: pairwise logistic loss of RankNet, with the inverse propensities of Joachims et al. 2017,
        arXiv:1608.04468.
    """
    pairs, counts = _pairs(shown, len(prior.row), eta)
    start = prior.row

    def loss(row: Floats) -> tuple[float, Floats]:
        margin = pairs @ row
        value = float(counts @ np.logaddexp(0, -margin) + strength / 2 * ((row - start) ** 2).sum())
        slope = -pairs.T @ (counts * np.exp(-np.logaddexp(0, margin))) + strength * (row - start)
        return value, slope

    return prior.with_row(minimize(loss, start, jac=True, method="L-BFGS-B").x) if len(pairs) else prior


def click_ndcg(shown: Sequence[ShownFeatures], weights: FinalWeights, eta: float = 1.0) -> float:
    """NDCG of clicks if these weights had ordered the lists; NaN without a list that has a click.

    Args:
        eta: as of `learn_weights`: a click far down counts for the many that were not seen there, so that the order in
            which the lists were shown is not the best for that alone.
    Reference: Joachims et al. 2017, arXiv:1608.04468, section 4; the gain of a click is its inverse propensity.
    """
    found = [_ndcg_of(one, weights, eta) for one in shown if one.is_clicked.any()]
    return float(np.mean(found)) if found else math.nan


def _ndcg_of(one: ShownFeatures, weights: FinalWeights, eta: float) -> float:
    places = len(one.is_clicked)
    gains = np.where(one.is_clicked, np.minimum(1 / propensities(places, eta), MAX_INVERSE_PROPENSITY), 0)
    discounts = 1 / np.log2(np.arange(2.0, places + 2.0))
    # Backwards first, so that equal scores do not stand in the order that was shown, which knows the clicks.
    order = np.argsort(-(standardised(one.features) @ weights.row)[::-1], kind="stable")
    return float((gains[::-1][order] * discounts).sum() / (np.sort(gains)[::-1] * discounts).sum())


def _pairs(shown: Sequence[ShownFeatures], n_features: int, eta: float) -> tuple[Floats, Floats]:
    """Differences of clicked and not clicked `[pairs, features]`, and how much each counts `[pairs]`."""
    differences, counts = [np.zeros((0, n_features))], [np.zeros(0)]
    for one in shown:
        if one.features.shape[1] != n_features:
            raise DataError("a list was shown with other features", "learn from lists of these settings only")
        columns, clicked = standardised(one.features), np.flatnonzero(one.is_clicked)
        others = np.flatnonzero(~one.is_clicked)
        if len(clicked) and len(others):
            inverse = np.minimum(1 / propensities(len(columns), eta), MAX_INVERSE_PROPENSITY)
            differences.append((columns[clicked][:, None] - columns[others][None]).reshape(-1, n_features))
            counts.append(np.repeat(inverse[clicked], len(others)) / len(others))
    return np.concatenate(differences), np.concatenate(counts)
