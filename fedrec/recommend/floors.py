"""Floors of exposure: groups of items that get at least a share of the places, list by list or over many lists.

Two ways, which cost relevance differently:

- *each*: in every list, in every prefix of it of length k, a group has at least `floor(share * k)` places, as far as
  it has candidates. `Floors` lets the greedy choice take only what leaves that possible, so what comes out is the
  list with the highest scores, place by place, among all that keep to it.
- *amortised*: over many lists a group gets at least its share of the exposure. `FloorController` keeps a price in
  nats for each group, raises it while the group has too little, and lowers it while it has more than enough; people
  who like what the group offers then carry it, and the others are left alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import DataError

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]
_ROUNDING = 1e-9


@dataclass(frozen=True)
class FairShares:
    """What groups of items are to get of the places. Public within the partner.

    Attributes:
        names: of the groups.
        shares: float64 `[groups]`, each in [0, 1], together at most 1.
        members: bool `[groups, items]`; an item may be in several groups, or in none.
        prices: float64 `[groups]`, nats that the amortised way adds to the scores of a group's items.
        is_each: whether every list by itself keeps to the shares.
    """

    names: tuple[str, ...]
    shares: Floats
    members: Mask = field(repr=False)
    prices: Floats
    is_each: bool

    def __post_init__(self) -> None:
        problems = []
        if not (np.isfinite(self.shares).all() and (self.shares >= 0).all() and self.shares.sum() <= 1 + _ROUNDING):
            problems.append("shares must be within [0, 1] and add up to 1 at most")
        if self.members.shape[:1] != self.shares.shape or self.prices.shape != self.shares.shape:
            problems.append("shares, prices and members must have one row for each group")
        if problems:
            raise DataError.of_all(problems, "mend the shares", "floors of exposure")

    def boost(self, codes: NDArray[np.integer]) -> Floats:
        """Nats of the amortised way, of some items: `[items]`; the dearest group of an item counts."""
        if not len(self.prices):
            return np.zeros(len(codes))
        return np.asarray(np.where(self.members[:, codes], self.prices[:, None], 0.0).max(0), np.float64)

    def least(self, places: int) -> NDArray[np.int64]:
        """How many of so many places each group is to have: `[groups]`."""
        return np.floor(self.shares * places + _ROUNDING).astype(np.int64)


class Floors:
    """Which candidates may come next so that every prefix can still have what the groups are owed.

    Args:
        fair: the shares.
        codes: of the candidates.
        n: places of the whole list; what stands in it already, as pins do, counts as its first places.
    Reference: the lower bounds of Geyik, Ambler and Kenthapadi 2019, arXiv:1905.01989, equation 1. Their algorithms
        are heuristics for the order; here the check is exact: needs that are due by place k fit into the places up to
        k (Hall's condition for jobs of unit length with deadlines).
    """

    def __init__(self, fair: FairShares, codes: NDArray[np.integer], n: int) -> None:
        self._members = fair.members[:, codes].astype(np.int64)
        lengths = np.arange(n + 1)[:, None]
        owed = np.floor(fair.shares[None] * lengths + _ROUNDING).astype(np.int64)
        # Nobody is owed more than there is: `[n + 1, groups]`.
        self._owed = np.minimum(owed, self._members.sum(1)[None])
        self._counts = np.zeros(len(fair.shares), np.int64)
        self._zero = np.zeros(len(codes))
        self._is_free = np.ones(len(codes), bool)
        self._n, self._length = n, 0

    def gain(self) -> Floats:
        """Nothing: who is owed something is let through, not scored."""
        return self._zero

    def take(self, candidate: int) -> None:
        """It counts for all its groups."""
        self._counts += self._members[:, candidate]
        self._is_free[candidate] = False
        self._length += 1

    def may_take(self, is_open: Mask) -> Mask:
        """Which of the open candidates may come next; all of them where none would do.

        Args:
            is_open: `[candidates]`, within hard limits.
        """
        is_open, place = is_open & self._is_free, self._length + 1
        if place > self._n:
            return is_open
        needs = np.maximum(self._owed[place:] - self._counts, 0)  # [places left, groups], due by each later place
        places_left = np.arange(self._n - place + 1)  # after this one
        tight = needs.sum(1) > places_left
        if not tight.any():
            return is_open
        eased = (needs[tight] > 0).astype(np.int64) @ self._members  # what each candidate takes off: [tight, c]
        fits = np.asarray(((needs[tight].sum(1)[:, None] - eased) <= places_left[tight][:, None]).all(0)) & is_open
        if fits.any():
            return fits
        most = np.where(is_open, eased.sum(0), -1)  # pins or limits are in the way: what helps most
        return np.asarray((most == most.max()) & is_open) if len(most) and most.max() > 0 else is_open


class FloorController:
    """Prices of groups, moved by what lists showed: dual ascent on the exposure that is missing.

    Args:
        fair: the shares; its prices are where it begins.
        rate: nats by which a list that shows nothing of a group raises its price, for each point of its share.
        most: nats that a price never passes.
    Reference: online mirror descent on dual variables, as Balseiro, Lu and Mirrokni 2020, arXiv:2011.10124, apply it
        to allocation; amortised exposure as in Biega, Gummadi and Weikum 2018, arXiv:1805.01788.
    """

    def __init__(self, shares: Mapping[str, float], rate: float = 0.05, most: float = 10.0) -> None:
        self.names = tuple(shares)
        self._shares = np.array(list(shares.values()), np.float64)
        self._rate, self._most = rate, most
        self.prices = np.zeros(len(self.names))
        self._given = np.zeros(len(self.names))
        self._whole = 0.0

    def note(self, members: Mask) -> None:
        """A list was shown.

        Args:
            members: bool `[groups, places]`: of which groups each place's item is.
        """
        weights = place_weights(members.shape[1])
        if not len(weights):
            return
        given = members @ weights / weights.sum()
        self._given += given
        self._whole += 1
        self.prices = np.clip(self.prices + self._rate * (self._shares - given), 0.0, self._most)

    def given(self) -> dict[str, float]:
        """The share of the exposure that each group had since the controller began."""
        return dict(zip(self.names, (self._given / max(self._whole, 1.0)).tolist(), strict=True))


def place_weights(n: int) -> Floats:
    """How much each place of a list is looked at, `1 / log2(1 + place)`, `[n]`: as NDCG discounts.

    Reference: Singh and Joachims 2018, arXiv:1802.07281, section 3.
    """
    return np.asarray(1.0 / np.log2(np.arange(2.0, n + 2.0)))
