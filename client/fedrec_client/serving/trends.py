"""What is popular here, ever and lately: counted from events as they come, forgetting by half every so often."""

import numpy as np
from numpy.typing import NDArray

# Half-lives after which the reference moment moves on, far from where float64 overflows.
_REBASE = 500.0
# So many half-lives are looked back when counts are loaded: what is older weighs below a thousandth.
_STEPS = 10


class Trends:
    """Counts by item code. Changed by one thread.

    Args:
        half_life_s: after so many seconds an event counts half in what is trending.
    """

    def __init__(self, half_life_s: float) -> None:
        self._half_life_s = half_life_s
        self._counts = np.zeros(0, np.float64)
        self._recent = np.zeros(0, np.float64)  # in units of an event at `_since`
        self._since = 0.0
        self.latest = float("-inf")

    def grow(self, n_items: int) -> None:
        """Have room for codes below `n_items`."""
        if n_items > len(self._counts):
            more = max(n_items, 2 * len(self._counts)) - len(self._counts)
            self._counts = np.concatenate([self._counts, np.zeros(more)])
            self._recent = np.concatenate([self._recent, np.zeros(more)])

    def note(self, code: int, timestamp: float, weight: float = 1.0, count: float = 1.0) -> None:
        """Count events of an item at a moment."""
        self.note_many(np.array([code]), timestamp, np.array([count], np.float64), weight)

    def note_many(
        self, codes: NDArray[np.int64], timestamp: float, counts: NDArray[np.float64], weight: float = 1.0
    ) -> None:
        """Count events of several items, each named once, at a moment."""
        self.grow(int(codes.max(initial=-1)) + 1)
        if self.latest == float("-inf"):
            self._since = timestamp
        self.latest = max(self.latest, timestamp)
        if (self.latest - self._since) / self._half_life_s > _REBASE:
            self._recent *= 2.0 ** max(-1000.0, (self._since - self.latest) / self._half_life_s)
            self._since = self.latest
        self._counts[codes] += counts
        age = max(-1000.0, (timestamp - self._since) / self._half_life_s)
        self._recent[codes] += weight * counts * 2.0**age

    def popular(self, n_items: int) -> NDArray[np.float64]:
        """Events of each item, `[n_items]`."""
        self.grow(n_items)
        return self._counts[:n_items]

    def trending(self, n_items: int) -> NDArray[np.float64]:
        """Events of each item, the older the less, in some unit, `[n_items]`."""
        self.grow(n_items)
        return self._recent[:n_items]


def looks_back(latest: float, half_life_s: float) -> list[float]:
    """Moments between which events are counted together when trends are loaded, the latest first; then all before."""
    return [latest - half_life_s * step for step in range(1, _STEPS + 1)]
