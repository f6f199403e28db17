"""Floors of exposure of one tenant: which groups its items are in, and the prices that lists have moved so far."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from fedrec.recommend.floors import FairShares, FloorController
from fedrec.recommend.index import Codes
from fedrec.recommend.popularity import Popularity
from fedrec.recommend.shelf import Shelf
from fedrec_client.serving.settings import FairnessSettings

TIERS = ("head", "middle", "tail")
Score = Callable[[Codes], NDArray[np.floating]]


class Exposure:
    """See the module. Called on the event loop. Prices begin at nothing with each start; some hundred lists settle
    them.

    Args:
        popularity: of now, of all items.
    """

    def __init__(self, settings: FairnessSettings, shelf: Shelf, popularity: Callable[[], Popularity]) -> None:
        self._settings, self._shelf, self._popularity = settings, shelf, popularity
        self._controller = FloorController(settings.shares, settings.rate)
        self._members: tuple[object, NDArray[np.bool_]] = (None, np.zeros((0, 0), bool))

    def fair(self) -> FairShares | None:
        """What the next list has to keep to; None: nothing."""
        if not self._settings.shares:
            return None
        shares = np.array(list(self._settings.shares.values()))
        is_each, prices = self._settings.way == "each", self._controller.prices.copy()
        return FairShares(self._controller.names, shares, self._of_items(), prices, is_each)

    def note(self, items: Sequence[str]) -> None:
        """A list was shown."""
        if self._settings.shares and items:
            codes = [code for item in items if (code := self._shelf.find(item)) is not None]
            self._controller.note(self._of_items()[:, codes])

    def told(self) -> list[dict[str, float | str]]:
        """Of each group what it is to have and what it had since the start, by the operator's own lists: exact."""
        given, prices = self._controller.given(), self._controller.prices
        return [
            {"group": name, "share": share, "given": round(given[name], 4), "price": round(float(price), 4)}
            for (name, share), price in zip(self._settings.shares.items(), prices, strict=True)
        ]

    def widen(self, codes: Codes, fair: FairShares, is_open: NDArray[np.bool_], score: Score, n: int) -> Codes:
        """Candidates, and the best n of each group that might be owed a place: the model alone may name none of it.

        Args:
            score: of items by code.
        """
        found = [codes]
        for members in fair.members:
            own = np.flatnonzero(members & is_open)
            best = np.argsort(-score(own), kind="stable")[:n] if len(own) else own
            found.append(own[best])
        return np.unique(np.concatenate(found)).astype(np.int64)

    def _of_items(self) -> NDArray[np.bool_]:
        """bool `[groups, items]`, for this version of the items."""
        by, names = self._settings.by, self._controller.names
        if by == "popularity":
            now = self._popularity()
            if self._members[0] is not now:
                tiers = now.classes[None] == np.array([[TIERS.index(name)] for name in names])
                self._members = (now, tiers)
            return self._members[1]
        if self._members[0] != self._shelf.version:
            self._members = (self._shelf.version, np.stack([self._in_group(by, name) for name in names]))
        return self._members[1]

    def _in_group(self, by: str, name: str) -> NDArray[np.bool_]:
        if by == "category":
            return self._shelf.in_category(name)
        values = [self._shelf.item(code).fields.get(by) for code in range(len(self._shelf))]
        return np.array([name in value if isinstance(value, list) else value == name for value in values], bool)
