"""Ranking metrics on ranks, and sums of them that add up over users and partners.

A rank is 1 for the best of a user's candidates. Kernels read ranks `[users, targets]`, int64, whose rows are
padded with `NO_TARGET`, and return one float64 number a user; every user has at least one target.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import DataError, ProtocolError

Floats = NDArray[np.floating]
Float64s = NDArray[np.float64]
Ints = NDArray[np.integer]
Int64s = NDArray[np.int64]

CUTOFFS = (5, 10, 20)
EXPOSED = 10  # length of the list whose coverage and novelty are reported
NO_TARGET = np.iinfo(np.int64).max


def target_ranks(scores: Floats, targets: Ints, tie_keys: Floats) -> Int64s:
    """Rank each target among one user's items: 1 + items above + tied items that the random keys put first.

    Args:
        scores: `[items]`, private; `-inf` where an item is no candidate.
        targets: item codes `[targets]` whose scores are finite, private.
        tie_keys: `[items]`, random, distinct: a constant scorer gets uniformly random ranks, not good ones.
    Returns: `[targets]`, from 1, distinct.

    >>> target_ranks(np.array([.1, .9, .5, .5]), np.array([0, 2]), np.array([.1, .2, .3, .4])).tolist()
    [4, 2]
    """
    own = scores[targets, None]
    above = (scores > own) | ((scores == own) & (tie_keys < tie_keys[targets, None]))
    return 1 + _count(above)


def top_items(scores: Floats, k: int, tie_keys: Floats) -> Int64s:
    """Codes of one user's k best candidates, best first, in the very order that `target_ranks` counts.

    Args: as in `target_ranks`. Fewer than k candidates give a shorter list.
    """
    k = min(k, int(np.count_nonzero(scores > -np.inf)))
    if k == 0:
        return np.zeros(0, np.int64)
    threshold = np.partition(scores, scores.size - k)[scores.size - k]
    contenders = np.flatnonzero(scores >= threshold)
    order = np.lexsort((tie_keys[contenders], -scores[contenders]))
    return contenders[order[:k]].astype(np.int64)


def pad_ranks(ranks: Sequence[Int64s]) -> Int64s:
    """Ranks of several users, of unequal number, as one padded matrix `[users, targets]`."""
    padded = np.full((len(ranks), max((len(row) for row in ranks), default=0)), NO_TARGET, np.int64)
    for row, own in zip(padded, ranks, strict=True):
        row[: len(own)] = own
    return padded


def hit_rate(ranks: Int64s, k: int) -> Float64s:
    """HR@k (Success@k): is any target among the first k?"""
    return (_count(ranks <= k) > 0).astype(np.float64)


def ndcg(ranks: Int64s, k: int) -> Float64s:
    """NDCG@k with gain 1 and log2 discount; the ideal list has min(k, targets) hits.

    Reference: Järvelin and Kekäläinen 2002, doi:10.1145/582415.582418.
    """
    gains = (ranks <= k) / np.log2(1.0 + ranks)
    ideal = np.cumsum(1 / np.log2(np.arange(2.0, k + 2.0)))
    share: Float64s = gains.sum(axis=1) / ideal[np.minimum(_count(ranks != NO_TARGET), k) - 1]
    return share


def mrr(ranks: Int64s, k: int) -> Float64s:
    """RR@k: one over the rank of the best target, 0 beyond k."""
    best: Int64s = ranks.min(axis=1)
    return (best <= k) / best


def recall(ranks: Int64s, k: int) -> Float64s:
    """R@k: the share of the targets that is among the first k."""
    return _count(ranks <= k) / _count(ranks != NO_TARGET)


def precision(ranks: Int64s, k: int) -> Float64s:
    """P@k: the share of the first k that is a target; a list shorter than k counts as k."""
    return _count(ranks <= k) / k


def _count(mask: NDArray[np.bool_]) -> Int64s:
    counts: Int64s = mask.sum(axis=1, dtype=np.int64)
    return counts


KERNELS: Mapping[str, Callable[[Int64s, int], Float64s]] = MappingProxyType(
    {"hr": hit_rate, "ndcg": ndcg, "mrr": mrr, "recall": recall, "precision": precision}
)
METRICS = tuple(f"{name}@{k}" for name in KERNELS for k in CUTOFFS)


def metric_table(ranks: Int64s) -> Float64s:
    """Every metric for every user: `[users, len(METRICS)]`, columns in the order of `METRICS`."""
    if ranks.size == 0:
        return np.zeros((len(ranks), len(METRICS)))
    return np.stack([kernel(ranks, k) for kernel in KERNELS.values() for k in CUTOFFS], axis=1)


@dataclass(frozen=True, eq=False)
class MetricSums:
    """Metrics as counts and sums: `a + b` is the evaluation of both parts' users together.

    Attributes:
        n_users: users evaluated.
        totals: float64 `[len(METRICS)]`, each metric summed over users.
        exposure: int64 `[items]`, how often an item stood in a first ten.
    Raises: ProtocolError: not what any evaluation could give (sums may come from another partner).
    Privacy: exact functions of private rows. They leave a partner only charged, or public by declaration.

    >>> part = MetricSums(1, np.ones(len(METRICS)), np.array([1, 0]))
    >>> (part + part).n_users, (part + MetricSums.empty(2)).means()["hr@10"]
    (2, 1.0)
    """

    n_users: int
    totals: Float64s = field(repr=False)
    exposure: Int64s = field(repr=False)

    def __post_init__(self) -> None:
        problems = []
        if self.n_users < 0:
            problems.append("n_users must be >= 0")
        # The slack is for rounding in a sum. NaN fails the comparison too.
        in_range = (self.totals >= 0) & (self.totals <= self.n_users * (1 + 1e-9))
        if self.totals.shape != (len(METRICS),) or not in_range.all():
            problems.append(f"totals must be {len(METRICS)} numbers within [0, n_users]")
        if self.exposure.ndim != 1 or not ((self.exposure >= 0) & (self.exposure <= self.n_users)).all():
            problems.append("exposure must be one count per item within [0, n_users]")
        if problems:
            raise ProtocolError.of_all(problems, "evaluate with this version of fedrec", "metric sums")

    @classmethod
    def empty(cls, n_items: int) -> Self:
        """The sums of nobody."""
        return cls(0, np.zeros(len(METRICS)), np.zeros(n_items, np.int64))

    def __add__(self, other: "MetricSums") -> "MetricSums":
        if self.exposure.shape != other.exposure.shape:
            raise ProtocolError("metric sums over catalogues of different size", "evaluate on one catalogue")
        return MetricSums(self.n_users + other.n_users, self.totals + other.totals, self.exposure + other.exposure)

    def means(self) -> dict[str, float]:
        """Mean over users of each metric, by name (`hr@10`).

        Raises: DataError: nobody was evaluated.
        """
        if self.n_users == 0:
            raise DataError("no user has an item to be found", "use longer histories or another split")
        return {name: float(x) for name, x in zip(METRICS, self.totals / self.n_users, strict=True)}

    def coverage(self) -> float:
        """coverage@10: the share of the catalogue that stood in anybody's first ten."""
        return float((self.exposure > 0).mean())

    def novelty(self, popularity: NDArray[np.number]) -> float:
        """novelty@10: mean of -log2 of the popularity share of what was recommended, in bits.

        Args:
            popularity: `[items]`, users per item in training; negative (noised) counts count as zero. One is
                added to each, so that an item nobody knows has a finite novelty.
        Reference: Zhou et al. 2010, doi:10.1073/pnas.1000488107 (self-information).
        """
        if popularity.shape != self.exposure.shape:
            raise DataError("popularity must have one count per item", "count over the same catalogue")
        counts = np.maximum(popularity.astype(np.float64), 0.0) + 1.0
        surprise = -np.log2(counts / counts.sum())
        return float(surprise @ self.exposure / max(int(self.exposure.sum()), 1))


@dataclass(frozen=True, eq=False)
class UserMetrics:
    """What each user got: for bootstrap and paired tests inside the partner. Private, never sent or stored.

    Attributes:
        positions: int64 `[users]`, places of the evaluated users in the list of splits.
        table: float64 `[users, len(METRICS)]`.
        exposure: int64 `[items]`, summed over these users.
    """

    positions: Int64s = field(repr=False)
    table: Float64s = field(repr=False)
    exposure: Int64s = field(repr=False)

    def column(self, name: str) -> Float64s:
        """One metric of every user, `[users]`; `name` is one of `METRICS`."""
        return self.table[:, METRICS.index(name)]

    def sums(self) -> MetricSums:
        """These users added up."""
        return MetricSums(len(self.positions), self.table.sum(axis=0), self.exposure)
