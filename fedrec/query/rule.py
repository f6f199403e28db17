"""What a request asks of an item, as a rule over the public catalogue: by it requests are made, and answers judged."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedrec.data.catalog import ItemCatalog

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class QueryRule:
    """A conjunction of what an item must be and must not be. Public: it names catalogue facts only.

    Attributes:
        wanted: categories of which the item has every one.
        unwanted: categories of which it has none.
        first_year, last_year: of release, inclusive; None: open. An item without a year is in no range.
        like: code of an item that it must be like: it shares at least half of that item's categories, and is another.
        title: code of the one item that is asked for by its title; nothing else is then said.
    """

    wanted: tuple[str, ...] = ()
    unwanted: tuple[str, ...] = ()
    first_year: int | None = None
    last_year: int | None = None
    like: int | None = None
    title: int | None = None


@dataclass(frozen=True)
class CatalogFacts:
    """What rules are about. Public.

    Attributes:
        names: the catalogue's categories, in alphabetical order.
        has: bool `[items, categories]`.
        years: float64 `[items]`, NaN where unknown.
    """

    names: tuple[str, ...]
    has: Mask = field(repr=False)
    years: NDArray[np.float64] = field(repr=False)

    @classmethod
    def of(cls, catalog: ItemCatalog) -> "CatalogFacts":
        """Of a whole catalogue."""
        names = tuple(sorted({name for of_item in catalog.categories for name in of_item}))
        return cls.named(names, catalog.categories, catalog.years)

    @classmethod
    def named(
        cls, names: tuple[str, ...], categories: Sequence[Sequence[str]], years: Sequence[int | None]
    ) -> "CatalogFacts":
        """Of some items, with another catalogue's categories; those that have no name there count as none."""
        place = {name: number for number, name in enumerate(names)}
        has = np.zeros((len(categories), len(names)), bool)
        for row, of_item in zip(has, categories, strict=True):
            row[[place[name] for name in of_item if name in place]] = True
        return cls(names, has, np.array([np.nan if year is None else year for year in years], float))

    def satisfied(self, rule: QueryRule) -> Mask:
        """Which items answer a request: bool `[items]`.

        >>> films = ItemCatalog(("1", "2"), ("Alien", "Heat"), ("-", "-"), (("Horror",), ("Crime",)), (1979, 1995))
        >>> CatalogFacts.of(films).satisfied(QueryRule(unwanted=("Horror",), first_year=1990)).tolist()
        [False, True]
        """
        mask = np.ones(len(self.has), bool)
        for category in rule.wanted:
            mask &= self._column(category)
        for category in rule.unwanted:
            mask &= ~self._column(category)
        if rule.first_year is not None:
            mask &= self.years >= rule.first_year  # False where the year is unknown
        if rule.last_year is not None:
            mask &= self.years <= rule.last_year
        if rule.like is not None:
            mask &= self._alike(rule.like)
        if rule.title is not None:
            mask &= np.arange(len(mask)) == rule.title
        return mask

    def _column(self, name: str) -> Mask:
        return self.has[:, self.names.index(name)] if name in self.names else np.zeros(len(self.has), bool)

    def _alike(self, like: int) -> Mask:
        own = self.has[like]
        shared = (self.has & own).sum(1)
        mask: Mask = (shared >= max(1, -(-int(own.sum()) // 2))) & (np.arange(len(self.has)) != like)
        return mask
