"""Ranking metrics with popularity taken out: each target counts by how rarely such an item is observed at all.

A row of a data set is there because somebody had the item, and everybody has more of what is shown more. Under the
assumption that an item's chance of being observed grows as a power of its popularity, weighting each target by the
inverse of that chance gives what the metric would be had all items been observed alike. The power cannot be learnt from
such rows: taste and exposure both make an item popular. So it is varied, from 0 (the plain metric) to the one at which
popularity is nothing but exposure, and a ranking that holds only at one end should not be trusted.

Reference: Schnabel et al. 2016, arXiv:1602.05352; Yang et al. 2018, doi:10.1145/3240323.3240355.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from fedrec.errors import DataError

Floats = NDArray[np.float64]
Ints = NDArray[np.integer]


def fit_power(targets: Ints, counts: Ints) -> float:
    """The power p at which `(count + 1)^p` says best which items are asked for: the most that can be exposure.

    Args:
        targets: item codes `[n]`, private; of validation, so that the test decides nothing about itself.
        counts: `[items]`, users per item in training.
    Raises: DataError: no targets, or items outside the catalogue.
    """
    _check(targets, counts)
    logs = np.log(counts + 1.0)

    def loss(power: float) -> float:
        scores = power * logs
        return float(np.logaddexp.reduce(scores) * len(targets) - scores[targets].sum())

    return float(minimize_scalar(loss, bounds=(0.0, 4.0), method="bounded").x)


def propensity_weights(targets: Ints, counts: Ints, power: float) -> Floats:
    """One weight a target, of mean 1: the inverse of `(count + 1)^power`."""
    _check(targets, counts)
    weights = (counts[targets] + 1.0) ** -power
    return np.asarray(weights / weights.mean())


def _check(targets: Ints, counts: Ints) -> None:
    if not len(targets) or targets.min() < 0 or targets.max() >= len(counts) or counts.min() < 0:
        raise DataError("no targets, or targets outside the counted catalogue", "count over the same catalogue")


@dataclass(frozen=True)
class Weighted:
    """A self-normalised weighted mean with a percentile interval over resampled users."""

    value: float
    low: float
    high: float


def weighted_mean(
    values: Floats, weights: Floats, replicates: int, generator: np.random.Generator, coverage: float = 0.95
) -> Weighted:
    """`sum(w v) / sum(w)` over users, one value and weight each.

    Privacy: an exact function of private rows; it leaves a partner only charged, or public by declaration.
    """
    n = len(values)
    draws = generator.integers(n, size=(replicates, n))
    means = (weights * values)[draws].sum(axis=1) / weights[draws].sum(axis=1)
    low, high = (float(x) for x in np.percentile(means, (50 * (1 - coverage), 50 * (1 + coverage))))
    return Weighted(float(weights @ values / weights.sum()), low, high)
