"""How often somebody may call: a token bucket each."""

import math
import time
from collections.abc import Callable

# Of callers that are remembered; beyond it the ones that have their full allowance back are forgotten.
_MOST_CALLERS = 10_000


class Buckets:
    """A token bucket for each caller; full at first.

    Args:
        per_s: tokens that come back a second.
        burst: that a caller has at most.
        clock: seconds that only rise.
    """

    def __init__(self, per_s: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s, self._burst, self._clock = per_s, max(1.0, burst), clock
        self._left: dict[str, tuple[float, float]] = {}  # caller -> tokens, when

    def take(self, caller: str) -> int:
        """Spend a token: 0, or whole seconds to wait where there is none."""
        now = self._clock()
        left = self._now(caller, now)
        if left < 1:
            return max(1, math.ceil((1 - left) / self._per_s))
        if caller not in self._left and not self._has_room(now):
            return 1
        self._left[caller] = (left - 1, now)
        return 0

    def wait_s(self, caller: str) -> int:
        """Whole seconds until there is a token; none is spent."""
        left = self._now(caller, self._clock())
        return 0 if left >= 1 else max(1, math.ceil((1 - left) / self._per_s))

    def _now(self, caller: str, now: float) -> float:
        left, since = self._left.get(caller, (self._burst, now))
        return min(self._burst, left + (now - since) * self._per_s)

    def _has_room(self, now: float) -> bool:
        if len(self._left) >= _MOST_CALLERS:
            self._left = {c: v for c, v in self._left.items() if self._now(c, now) < self._burst}
        return len(self._left) < _MOST_CALLERS
