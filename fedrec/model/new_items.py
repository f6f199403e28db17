"""New items join a trained adapter: what items of similar text learnt stands in for what nobody taught it of them."""

import math

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
    counts = np.maximum(priors[0].astype(np.float64), 0.0)
    joined = {}
    for name, value in fresh.tensors.items():
        own = trained.tensors[name]
        if own.shape == value.shape:
            joined[name] = own
            continue
        if own.shape != (len(known), *value.shape[1:]) or len(value) != len(texts):
            raise ModelError(f"{name} of {own.shape} does not grow to {value.shape}", "use one shape for both")
        if _VECTORS in name:
            grown = _predicted(own, counts + _LEAST_WEIGHT, texts, known, new)
        elif _PRIOR in name:
            grown = _boosted(_predicted(own[:, None], np.ones(len(known)), texts, known, new)[:, 0], shape, boost)
            grown = np.minimum(grown, _below_those_with_vector(own, shape))
        else:
            raise ModelError(f"{name}: nothing is known of how it grows with the catalogue")
        whole = np.empty_like(value)
        whole[known], whole[new] = own, grown
        joined[name] = whole
    return AdapterState(joined)


def _predicted(
    learnt: np.ndarray, weights: np.ndarray, texts: np.ndarray, known: np.ndarray, new: np.ndarray
) -> np.ndarray:
    """Weighted ridge regression of what was learnt on the texts' features, at the new items: float64 `[new, width]`."""
    weights = weights / weights.sum()
    features = texts.astype(np.float64)
    centre, mean = weights @ features[known], weights @ learnt
    inputs = features[known] - centre
    gram = inputs.T @ (inputs * weights[:, None]) + _RIDGE / texts.shape[1] * np.eye(texts.shape[1])
    slope = np.linalg.solve(gram, inputs.T @ ((learnt - mean) * weights[:, None]))
    predicted: np.ndarray = mean + (features[new] - centre) @ slope
    return predicted


def _boosted(popularity: np.ndarray, shape: AdapterShape, boost: float) -> np.ndarray:
    """Popularity whose logarithm, with the floor, is higher by `boost`."""
    floor = shape.popularity_floor
    boosted: np.ndarray = (np.maximum(popularity, 0.0) + floor) * math.exp(boost) - floor
    return boosted


def _below_those_with_vector(popularity: np.ndarray, shape: AdapterShape) -> float:
    """Less than the least popular item that has a vector of its own, so that the vectors stay those of their items."""
    if not 0 < shape.item_rows < len(popularity):
        return math.inf
    least = float(np.sort(popularity)[-shape.item_rows])
    if least <= 0:  # items of no popularity are told apart by code alone, and new codes would move the vectors
        raise ModelError(f"fewer than {shape.item_rows} items have any popularity", "train the prior first")
    return least * _BELOW
