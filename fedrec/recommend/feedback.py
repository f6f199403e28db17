"""What events say: how much each type weighs, and what is like the things that somebody did not want."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fedrec.recommend.diversity import unit


def type_weights(types: Sequence[str], weights: Mapping[str, float]) -> NDArray[np.float32]:
    """The weight of each event by its type, 1 where none is given: `[events]`.

    >>> type_weights(["view", "purchase"], {"purchase": 2.0}).tolist()
    [1.0, 2.0]
    """
    return np.array([weights.get(kind, 1.0) for kind in types], np.float32)


def less_like(negatives: NDArray[np.floating], candidates: NDArray[np.floating]) -> NDArray[np.float64]:
    """How like each candidate is to the most alike of the things that were not wanted, 0..1: `[candidates]`.

    Args:
        negatives: `[things, d]`, private; none gives zeros.
        candidates: `[candidates, d]`.
    """
    if not len(negatives):
        return np.zeros(len(candidates))
    return np.asarray(np.clip((unit(candidates) @ unit(negatives).T).max(1), 0, 1), np.float64)
