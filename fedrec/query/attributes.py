"""Items as requests see them: categories and years as numbers that a request weighs."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedrec.data.catalog import ItemCatalog
from fedrec.query.rule import CatalogFacts

Floats = NDArray[np.float32]
_MOST_CATEGORIES, _MOST_YEARS = 512, 96


@dataclass(frozen=True)
class AttributeSpace:
    """Which categories and years there are; public, part of what a reader of requests was trained for.

    A year becomes a thermometer: one number for each threshold that it reaches. So any span of years is a sum of two
    weights. An item without a year has all numbers of the years at their mean, which says nothing, and lacks the last.

    Attributes:
        categories: the commonest, in alphabetical order.
        thresholds: years, ascending.
        year_means: share of the catalogue's dated items that reach each threshold.
    """

    categories: tuple[str, ...]
    thresholds: tuple[int, ...] = field(repr=False)
    year_means: tuple[float, ...] = field(repr=False)

    @classmethod
    def of(cls, catalog: ItemCatalog) -> "AttributeSpace":
        """Of a catalogue."""
        facts = CatalogFacts.of(catalog)
        order = np.argsort(-facts.has.sum(0), kind="stable")[:_MOST_CATEGORIES]
        dated = facts.years[~np.isnan(facts.years)]
        years = np.unique(dated).astype(int)
        if len(years) > _MOST_YEARS:
            years = np.unique(np.quantile(dated, np.linspace(0, 1, _MOST_YEARS), method="nearest").astype(int))
        means = (dated[:, None] >= years).mean(0) if len(dated) else np.zeros(0)
        names = tuple(sorted(facts.names[place] for place in order))
        return cls(names, tuple(years.tolist()), tuple(float(mean) for mean in means))

    @property
    def width(self) -> int:
        """Numbers of an item."""
        return len(self.categories) + len(self.thresholds) + 1

    def of_items(self, facts: CatalogFacts) -> Floats:
        """float32 `[items, width]`; `facts` with this space's categories, see `CatalogFacts.named`."""
        dated = ~np.isnan(facts.years)[:, None]
        reached = (facts.years[:, None] >= np.array(self.thresholds)) - np.array(self.year_means)
        rows: Floats = np.concatenate([facts.has, np.where(dated, reached, 0.0), dated], 1).astype(np.float32)
        return rows

    def of_catalog(self, catalog: ItemCatalog) -> Floats:
        """float32 `[items, width]`."""
        return self.of_items(CatalogFacts.named(self.categories, catalog.categories, catalog.years))

    def meaning(self, first_year: int | None, last_year: int | None, wanted: Floats) -> Floats:
        """What an ideal reader would make of a rule: `[width]`, from weights of the categories `[categories]`."""
        years = np.zeros(len(self.thresholds), np.float32)
        for year, sign in ((first_year, 1.0), (None if last_year is None else last_year + 1, -1.0)):
            if year is not None and (place := int(np.searchsorted(self.thresholds, year))) < len(years):
                years[place] += sign
        return np.concatenate([wanted, years, np.zeros(1, np.float32)])

    def raised(self, weights: Floats, least: float, share: float) -> tuple[str, ...]:
        """Categories that weights `[width]` raise by `least`, and by a share of the strongest; that first."""
        of_categories = weights[: len(self.categories)]
        least = max(least, share * float(of_categories.max(initial=0.0)))
        order = np.argsort(-of_categories, kind="stable")
        return tuple(self.categories[place] for place in order if of_categories[place] >= least)
