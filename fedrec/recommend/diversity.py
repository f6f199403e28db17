"""Lists that do not say the same thing ten times: greedy choice by relevance and difference.

A `Gain` says what each candidate would add to what was taken; `choose` takes the best, again and again. Gains add up,
so difference, calibration and limits go together. All is vectorised over candidates; equal gains go to the first.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
RIDGE = 1e-3  # added to the DPP's diagonal: vectors of d numbers span no more than d items


class Gain(Protocol):
    """What candidates would add."""

    def gain(self) -> Floats:
        """Of each candidate beside what was taken: `[candidates]`."""

    def take(self, candidate: int) -> None:
        """It is in the list now."""


def unit(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Rows of length one, for cosines; zero and non-finite rows are like nothing: `[candidates, d]`."""
    rows = np.nan_to_num(np.asarray(vectors, np.float32), posinf=0.0, neginf=0.0)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1), np.float32)


class Mmr:
    """Maximal marginal relevance: `relevance * r - (1 - relevance) * the largest cosine with what was taken`.

    Args:
        scores: `[candidates]`, in standard deviations, say.
        vectors: `[candidates, d]`.
        relevance: 1 is relevance alone, 0 difference alone.
    Reference: Carbonell and Goldstein 1998, equation 1.
    """

    def __init__(self, scores: Floats, vectors: NDArray[np.floating], relevance: float) -> None:
        self._unit = unit(vectors)
        self._wanted = relevance * np.asarray(scores, np.float64)
        self._weight = 1 - relevance
        self._nearest: Floats | None = None

    def gain(self) -> Floats:
        """Nothing is near where nothing was taken."""
        return self._wanted if self._nearest is None else self._wanted - self._weight * self._nearest

    def take(self, candidate: int) -> None:
        """Cosines with it."""
        near = (self._unit @ self._unit[candidate]).astype(np.float64)
        self._nearest = near if self._nearest is None else np.maximum(self._nearest, near)


class Dpp:
    """The determinantal point process's most probable list: `relevance * sum of r + (1 - relevance) * log det S`.

    S holds the cosines, and a ridge on its diagonal. Each step costs one product with the vectors.
    Reference: Chen, Zhang and Zhou 2018, arXiv:1709.05135, Algorithm 1.
    """

    def __init__(self, scores: Floats, vectors: NDArray[np.floating], relevance: float) -> None:
        self._unit = unit(vectors).astype(np.float64)
        self._wanted = relevance * np.asarray(scores, np.float64)
        self._weight = 1 - relevance
        self._left = (self._unit**2).sum(1) + RIDGE  # d² of the paper
        self._rows: list[Floats] = []  # c of the paper: one row for each taken

    def gain(self) -> Floats:
        """The logarithm of what the determinant would be multiplied with."""
        return np.asarray(self._wanted + self._weight * np.log(np.maximum(self._left, RIDGE * 1e-3)))

    def take(self, candidate: int) -> None:
        """One row more of the Cholesky factor."""
        similar = self._unit @ self._unit[candidate]
        similar[candidate] += RIDGE
        for row in self._rows:
            similar -= row[candidate] * row
        row = similar / np.sqrt(max(self._left[candidate], RIDGE * 1e-3))
        self._rows.append(row)
        self._left = self._left - row**2


class Scaled:
    """Another gain, times a factor."""

    def __init__(self, gain: Gain, factor: float) -> None:
        self._gain = gain
        self._factor = factor

    def gain(self) -> Floats:
        """The other's, times the factor."""
        return self._gain.gain() * self._factor

    def take(self, candidate: int) -> None:
        """The other takes it."""
        self._gain.take(candidate)


class Plain:
    """The scores alone."""

    def __init__(self, scores: Floats) -> None:
        self._scores = np.asarray(scores, np.float64)

    def gain(self) -> Floats:
        """Whatever was taken."""
        return self._scores

    def take(self, candidate: int) -> None:
        """Changes nothing."""


def choose(
    n: int,
    gains: Sequence[Gain],
    may_take: Callable[[], NDArray[np.bool_]],
    taken: Sequence[int] = (),
) -> list[int]:
    """Up to n candidates, best first, none of them twice.

    Args:
        gains: added up; finite.
        may_take: which candidates may be taken now: `[candidates]`; asked before each.
        taken: stand in the list already, and are not chosen again.
    """
    is_free = np.ones(len(gains[0].gain()), bool)
    is_free[list(taken)] = False
    for candidate in taken:
        for gain in gains:
            gain.take(candidate)
    chosen: list[int] = []
    while len(chosen) < n:
        total = gains[0].gain()
        for gain in gains[1:]:
            total = total + gain.gain()
        total = np.where(may_take() & is_free, total, -np.inf)
        best = int(total.argmax()) if len(total) else 0
        if not len(total) or total[best] == -np.inf:
            break
        for gain in gains:
            gain.take(best)
        chosen.append(best)
        is_free[best] = False
    return chosen
