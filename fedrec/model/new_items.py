"""New items join a trained adapter: what items of similar text learnt stands in for what nobody taught it of them."""

import math
from dataclasses import dataclass, field

import numpy as np

from fedrec.errors import ModelError
from fedrec.model.adapter import AdapterState
from fedrec.model.recommender import AdapterShape

_VECTORS, _PRIOR = ".item_emb.", ".popularity."
# Of the regression, in units of the mean variance of a component: features have a mean squared norm of 1.
_RIDGE = 1.0
# An item that nobody had has a vector too, which learnt nothing.
_LEAST_WEIGHT = 1e-4
# Far enough for the float32 logarithm by which items are sorted.
_BELOW = 0.999


def admit_new_items(
    trained: AdapterState, fresh: AdapterState, shape: AdapterShape, texts: np.ndarray, known: np.ndarray, boost: float
) -> AdapterState:
    """A trained adapter over a larger catalogue, with vectors and priors for the items that training never met.

    A new item gets the vector and the popularity that its text predicts: ridge regressions of those of the known items
    on their features. Predicted scores vary less than learnt ones, so that even well-placed new items would hardly ever
    reach a short list: `boost` pays for their exposure with accuracy for known items, and is for the operator to
    choose. Where only the most popular items have a vector (`item_rows`), new ones have none, and rank behind those in
    popularity.

    Args:
        trained: of the known items.
        fresh: untrained, of the whole catalogue.
        shape: of both.
        texts: float32 `[items, feature_dim]`, the whole catalogue's text features.
        known: int64 `[known items]`, their codes in the whole catalogue, in the order in which they were trained.
        boost: >= 0, in nats: added to the logarithm of a new item's popularity.
    Raises: ModelError: a tensor that is neither of one shape in both nor has a row for every item; fewer popular items
        than `item_rows`.
    Privacy: reads the adapter and public texts only; costs no epsilon.
    Reference: Gantner et al. 2010, "Learning Attribute-to-Feature Mappings for Cold-Start Recommendations".
    """
    new = np.setdiff1d(np.arange(len(texts)), known)
    priors = [value for name, value in trained.tensors.items() if _PRIOR in name]
    if len(priors) != 1 or len(priors[0]) != len(known):
        raise ModelError("the adapter is not one of the known items", "give their codes in the trained order")
    joined = {}
    for name, value in fresh.tensors.items():
        own = trained.tensors[name]
        if own.shape == value.shape:
            joined[name] = own
            continue
        if own.shape != (len(known), *value.shape[1:]) or len(value) != len(texts):
            raise ModelError(f"{name} of {own.shape} does not grow to {value.shape}", "use one shape for both")
        if _VECTORS in name:
            grown = vector_regression(own, priors[0], texts[known]).predict(texts[new])
        elif _PRIOR in name:
            grown = popularity_regression(own, texts[known]).predict(texts[new])[:, 0]
            grown = boosted(grown, shape, boost)
            grown = np.minimum(grown, _below_those_with_vector(own, shape))
        else:
            raise ModelError(f"{name}: nothing is known of how it grows with the catalogue")
        whole = np.empty_like(value)
        whole[known], whole[new] = own, grown
        joined[name] = whole
    return AdapterState(joined)


@dataclass(frozen=True)
class TextRegression:
    """Weighted ridge regression of what items learnt on their text features.

    Attributes:
        centre: `[feature_dim]`, mean: `[width]`, slope: `[feature_dim, width]`.
    """

    centre: np.ndarray = field(repr=False)
    mean: np.ndarray = field(repr=False)
    slope: np.ndarray = field(repr=False)

    @classmethod
    def fit(cls, learnt: np.ndarray, weights: np.ndarray, texts: np.ndarray) -> "TextRegression":
        """Of `[items, width]`, with a weight >= 0 for each item, on `[items, feature_dim]`."""
        weights = weights / weights.sum()
        features = texts.astype(np.float64)
        centre, mean = weights @ features, weights @ learnt
        inputs = features - centre
        gram = inputs.T @ (inputs * weights[:, None]) + _RIDGE / texts.shape[1] * np.eye(texts.shape[1])
        return cls(centre, mean, np.linalg.solve(gram, inputs.T @ ((learnt - mean) * weights[:, None])))

    def predict(self, texts: np.ndarray) -> np.ndarray:
        """What items of these features would have learnt: float64 `[items, width]`."""
        predicted: np.ndarray = self.mean + (texts.astype(np.float64) - self.centre) @ self.slope
        return predicted


def vector_regression(vectors: np.ndarray, histogram: np.ndarray, texts: np.ndarray) -> TextRegression:
    """For the trained vectors: what many had says more."""
    return TextRegression.fit(vectors, np.maximum(histogram.astype(np.float64), 0.0) + _LEAST_WEIGHT, texts)


def popularity_regression(histogram: np.ndarray, texts: np.ndarray) -> TextRegression:
    """For the popularity."""
    return TextRegression.fit(histogram[:, None], np.ones(len(texts)), texts)


def boosted(popularity: np.ndarray, shape: AdapterShape, boost: float) -> np.ndarray:
    """Popularity whose logarithm, with the floor, is higher by `boost`."""
    floor = shape.popularity_floor
    higher: np.ndarray = (np.maximum(popularity, 0.0) + floor) * math.exp(boost) - floor
    return higher


def _below_those_with_vector(popularity: np.ndarray, shape: AdapterShape) -> float:
    """Less than the least popular item that has a vector of its own, so that the vectors stay those of their items."""
    if not 0 < shape.item_rows < len(popularity):
        return math.inf
    least = float(np.sort(popularity)[-shape.item_rows])
    if least <= 0:  # items of no popularity are told apart by code alone, and new codes would move the vectors
        raise ModelError(f"fewer than {shape.item_rows} items have any popularity", "train the prior first")
    return least * _BELOW
