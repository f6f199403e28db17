"""What each person was shown and how good it was, as rows of bounded length; and their sums as figures.

Everything here is exact and private: for the partner's own people. What leaves goes through `release.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import DataError
from fedrec.fairness.groups import ItemGroups, PeopleGroups
from fedrec.recommend.floors import place_weights

Floats = NDArray[np.float64]
NOTHING = -1  # of a place that a short list does not have


@dataclass(frozen=True)
class Served:
    """One list for each person, and how good it was. Private.

    Attributes:
        lists: int64 `[people, places]`, item codes, `NOTHING` behind the end of a short one.
        quality: float64 `[people]` in [0, 1], HR@10 or NDCG@10, say.
        people: groups of the same people.
    """

    lists: NDArray[np.int64] = field(repr=False)
    quality: Floats = field(repr=False)
    people: tuple[PeopleGroups, ...] = field(repr=False)

    def __post_init__(self) -> None:
        lengths = {len(self.lists), len(self.quality), *(len(one.codes) for one in self.people)}
        if self.lists.ndim != 2 or len(lengths) != 1:
            raise DataError("lists, quality and groups are of different people", "give one of each a person")
        if not ((self.quality >= 0) & (self.quality <= 1)).all():
            raise DataError("a quality is outside [0, 1]", "use a metric that is bounded")

    def of(self, chosen: NDArray[np.integer]) -> "Served":
        """Some of the people."""
        return Served(self.lists[chosen], self.quality[chosen], tuple(one.of(chosen) for one in self.people))


def exposure_rows(lists: NDArray[np.int64], groups: ItemGroups) -> Floats:
    """How each list shares its exposure out among groups, `[people, groups]`.

    Returns: rows >= 0 that add up to 1, or to 0 of an empty list; so the L2 norm of each is 1 at most, whatever
        somebody was shown. Private.
    Reference: Singh and Joachims 2018, arXiv:1802.07281, equation 4: places weigh `1 / log2(1 + place)`.
    """
    is_there = lists != NOTHING
    weights = np.where(is_there, place_weights(lists.shape[1])[None], 0.0)
    weights = weights / np.maximum(weights.sum(1, keepdims=True), 1e-12)
    of_items = np.where(is_there[None], groups.weights[:, np.where(is_there, lists, 0)], 0.0)
    return np.asarray((of_items * weights[None]).sum(2).T, np.float64)


def exposure_shares(served: Served, groups: ItemGroups) -> dict[str, float]:
    """Of all exposure, the share of each group. Exact, private."""
    rows = exposure_rows(served.lists, groups)
    return _named(groups.names, rows.sum(0) / max(float(rows.sum()), 1e-12))


def quality_by_group(served: Served, people: PeopleGroups) -> dict[str, dict[str, float]]:
    """People and mean quality of each group. Exact, private; of nobody the mean is not there."""
    counts = np.bincount(people.codes, minlength=len(people.names))
    sums = np.bincount(people.codes, weights=served.quality, minlength=len(people.names))
    return {
        name: {"people": int(count)} | ({"mean": float(total / count)} if count else {})
        for name, count, total in zip(people.names, counts, sums, strict=True)
    }


def unequal(values: Sequence[float]) -> dict[str, float | None]:
    """How far apart groups are: gap (highest less lowest), ratio (lowest of the highest), Gini.

    >>> unequal([0.2, 0.1])["ratio"]
    0.5
    """
    if len(values) < 2:
        return {"gap": None, "ratio": None, "gini": None}
    ratio = min(values) / max(values) if max(values) > 0 else None
    return {"gap": max(values) - min(values), "ratio": ratio, "gini": gini(values, len(values))}


def gini(counts: Sequence[float], n_items: int) -> float:
    """How unequally things were shown: 0 all alike, near 1 one alone; those that are not among the counts count as 0.

    >>> gini([5, 5], 2), round(gini([10], 10), 2)
    (0.0, 0.9)
    """
    every = np.sort(np.concatenate([np.zeros(max(0, n_items - len(counts))), np.array(counts, float)]))
    if not every.sum():
        return 0.0
    ranks = np.arange(1, len(every) + 1)
    return float(2 * (ranks * every).sum() / (len(every) * every.sum()) - (len(every) + 1) / len(every))


def exact_figures(served: Served, items: Sequence[ItemGroups]) -> dict[str, Any]:
    """All of it, for JSON. Exact: for the partner's own people alone."""
    shares = {groups.name: exposure_shares(served, groups) for groups in items}
    quality = {people.name: quality_by_group(served, people) for people in served.people}
    means = {name: [one["mean"] for one in groups.values() if "mean" in one] for name, groups in quality.items()}
    counts = np.bincount(served.lists[served.lists != NOTHING], minlength=1)
    return {
        "people": len(served.quality),
        "quality": float(served.quality.mean()) if len(served.quality) else None,
        "exposure": shares,
        "items_gini": gini(counts.tolist(), max((groups.weights.shape[1] for groups in items), default=len(counts))),
        "quality_by_group": {name: {"groups": quality[name]} | unequal(means[name]) for name in quality},
    }


def _named(names: Sequence[str], values: Floats) -> dict[str, float]:
    return dict(zip(names, values.tolist(), strict=True))
