"""How popular items are, and lists that hold as much of the popular as a person's own history does."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import DataError

HEAD_SHARE = 0.2
TAIL_SHARE = 0.2
_SMOOTHING = 0.01
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Popularity:
    """Columns by code, made once when counts change. Public within the partner.

    Attributes:
        log: float64 `[items]`, `log(1 + count)`.
        classes: int8 `[items]`, 0 head, 1 middle, 2 tail.
    """

    log: Floats = field(repr=False)
    classes: NDArray[np.int8] = field(repr=False)

    @classmethod
    def of(cls, counts: NDArray[np.number]) -> "Popularity":
        """The head are the most popular items that together have a fifth of all events, the tail the least popular.

        Raises: DataError: a count is negative or not finite.
        Reference: Abdollahpouri et al. 2021, arXiv:2103.06364, section 3.

        >>> Popularity.of(np.array([1, 20, 60, 19, 0])).classes.tolist()
        [2, 1, 0, 2, 2]
        """
        numbers = np.asarray(counts, np.float64)
        if not (np.isfinite(numbers).all() and (numbers >= 0).all()):
            raise DataError("a popularity is negative or not finite", "give how often each item was taken")
        order = np.argsort(-numbers, kind="stable")
        ahead = np.cumsum(numbers[order]) - numbers[order]
        total = max(float(numbers.sum()), 1.0)
        after = total - ahead
        classes = np.ones(len(numbers), np.int8)
        classes[order[after <= TAIL_SHARE * total]] = 2
        classes[order[ahead < HEAD_SHARE * total]] = 0
        return cls(np.log1p(numbers), classes)

    def share_of(self, codes: NDArray[np.integer]) -> Floats | None:
        """Shares of head, middle and tail in a history: `[3]`; None of an empty one. Private, as the history is."""
        if not len(codes):
            return None
        return np.bincount(self.classes[codes], minlength=3) / len(codes)


def divergence(wanted: Floats, counts: Floats) -> Floats:
    """KL of a wanted share `[3]` from that of counts `[..., 3]`, smoothed so that it is finite: `[...]`."""
    total = np.maximum(counts.sum(-1, keepdims=True), 1)
    share = (1 - _SMOOTHING) * counts / total + _SMOOTHING * wanted
    terms = np.where(wanted > 0, wanted * np.log(np.where(wanted > 0, wanted, 1) / np.where(share > 0, share, 1)), 0)
    return np.asarray(terms.sum(-1), np.float64)


class Calibration:
    """A `Gain`: how much nearer a candidate brings the list's share of popular items to the wanted one.

    Args:
        classes: of each candidate.
        wanted: `[3]`, private.
        strength: 0..1; the scores are to be weighted with 1 minus it.
    Reference: Steck 2018, equation 6; Abdollahpouri et al. 2021, section 4.
    """

    def __init__(self, classes: NDArray[np.int8], wanted: Floats, strength: float) -> None:
        self._classes = classes
        self._wanted = wanted
        self._strength = strength
        self._counts = np.zeros(3)

    def gain(self) -> Floats:
        """One of three numbers, by the candidate's class."""
        return np.asarray(-self._strength * divergence(self._wanted, self._counts + np.eye(3))[self._classes])

    def take(self, candidate: int) -> None:
        """Counts it."""
        self._counts[self._classes[candidate]] += 1
