"""Groups of items, between which exposure is shared, and of people, between whom quality is compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedrec.data.catalog import ItemCatalog
from fedrec.errors import DataError
from fedrec.recommend.popularity import Popularity

Floats = NDArray[np.float64]
TIERS = ("head", "middle", "tail")
NO_GROUP = "none"


@dataclass(frozen=True)
class ItemGroups:
    """Which groups an item speaks for, and with how much of its exposure. Public.

    Attributes:
        name: what the groups are: "popularity", "genre", "provider".
        names: of the groups.
        weights: float64 `[groups, items]`, >= 0; of each item they add up to 1, so that no list counts twice.
    """

    name: str
    names: tuple[str, ...]
    weights: Floats = field(repr=False)

    def __post_init__(self) -> None:
        whole = self.weights.sum(0)
        if self.weights.shape[0] != len(self.names) or (self.weights < 0).any() or not np.allclose(whole, 1):
            raise DataError(f"groups of {self.name}: an item's weights must add up to 1", "share its exposure out")

    @property
    def members(self) -> NDArray[np.bool_]:
        """bool `[groups, items]`."""
        return self.weights > 0


@dataclass(frozen=True)
class PeopleGroups:
    """Which group each person is in. The names are public, who is in which is private.

    Attributes:
        name: what the groups are: "gender", "age".
        names: of the groups, fixed before anybody's data are read.
        codes: int64 `[people]`, place in `names`; private.
    """

    name: str
    names: tuple[str, ...]
    codes: NDArray[np.int64] = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.codes) and not ((self.codes >= 0) & (self.codes < len(self.names))).all():
            raise DataError(f"groups of {self.name}: somebody is in none", "make a group for the others")

    def of(self, chosen: NDArray[np.integer]) -> "PeopleGroups":
        """Some of the people."""
        return PeopleGroups(self.name, self.names, self.codes[chosen])


def popularity_tiers(prior: NDArray[np.floating]) -> ItemGroups:
    """Head, middle and tail: the items with the first, the middle three and the last fifth of all interactions.

    Args:
        prior: `[items]`, how popular each is: the released, noised one, since exact counts are private.
    """
    classes = Popularity.of(np.maximum(np.asarray(prior, np.float64), 0)).classes
    return ItemGroups("popularity", TIERS, (classes[None] == np.arange(3)[:, None]).astype(np.float64))


def by_category(catalog: ItemCatalog, name: str = "genre") -> ItemGroups:
    """One group for each category; an item of several gives each the same part, one of none speaks for `none`."""
    return by_labels(name, [kinds or (NO_GROUP,) for kinds in catalog.categories])


def by_labels(name: str, labels: Sequence[Sequence[str]]) -> ItemGroups:
    """One group for each label of items: providers, brands.

    >>> by_labels("brand", [("a",), ("a", "b")]).weights.tolist()
    [[1.0, 0.5], [0.0, 0.5]]
    """
    names = tuple(sorted({label for own in labels for label in own}))
    place = {label: at for at, label in enumerate(names)}
    weights = np.zeros((len(names), len(labels)))
    for item, own in enumerate(labels):
        for label in own:
            weights[place[label], item] += 1 / len(own)
    return ItemGroups(name, names, weights)


def by_label(name: str, labels: Sequence[str], names: Sequence[str]) -> PeopleGroups:
    """People by a label of each; the names are given, since which of them occur is private."""
    place = {label: at for at, label in enumerate(names)}
    if not set(labels) <= set(place):
        raise DataError(f"groups of {name}: a label is not among the names", "name every label there can be")
    return PeopleGroups(name, tuple(names), np.array([place[label] for label in labels], np.int64))


def by_bounds(name: str, values: NDArray[np.number], bounds: Mapping[str, float]) -> PeopleGroups:
    """People by a number: the first band whose bound is above it.

    Args:
        bounds: upper bounds, not included, by the band's name, rising; the last is infinite. Public, never quantiles
            of the very people: these would tell of them.

    >>> by_bounds("age", np.array([17, 18, 70]), {"under 18": 18, "18 and more": np.inf}).codes.tolist()
    [0, 1, 1]
    """
    edges = np.array(list(bounds.values()), np.float64)
    if (np.diff(edges) <= 0).any() or edges[-1] != np.inf:
        raise DataError(f"groups of {name}: bounds must rise to infinity", "mend the bounds")
    return PeopleGroups(name, tuple(bounds), np.searchsorted(edges, values, side="right").astype(np.int64))
