"""Requests and events of the last minutes, second by second, in this process's memory."""

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

KEPT_S = 300
# Not of interest: the operator's own page, and what watches.
_WITHOUT = ("/operate", "/static", "/health", "/ready", "/metrics", "/api/health")
# Times of a second that are kept; of more requests every further one counts, but its time is not kept.
_MOST_TIMES = 500


@dataclass
class Second:
    """What happened in one.

    Attributes:
        at: Unix seconds, whole.
        times: seconds that answers took.
    """

    at: int
    requests: int = 0
    failed: int = 0
    events: int = 0
    times: list[float] = field(default_factory=list)


class Pulse:
    """Told by `ServingMetrics`. Used on the event loop's thread; others may read.

    Args:
        clock: Unix seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._seconds: deque[Second] = deque(maxlen=KEPT_S)

    def note_answer(self, route: str, status: int, seconds: float) -> None:
        """Count an answer."""
        if route.startswith(_WITHOUT):
            return
        now = self._now()
        now.requests += 1
        now.failed += status >= 500
        if len(now.times) < _MOST_TIMES:
            now.times.append(seconds)

    def note_events(self, n: int) -> None:
        """Count stored events."""
        self._now().events += n

    def _now(self) -> Second:
        at = int(self._clock())
        if not self._seconds or self._seconds[-1].at < at:
            self._seconds.append(Second(at))
        return self._seconds[-1]

    def last(self, n: int) -> list[Second]:
        """The last whole seconds, oldest first, empty ones among them."""
        end = int(self._clock())
        known = {one.at: one for one in list(self._seconds)}
        return [known.get(at) or Second(at) for at in range(end - n, end)]


def quantile_ms(seconds: Sequence[Second], share: float) -> float | None:
    """Of the times of answers, in milliseconds; None if there were none.

    >>> quantile_ms([Second(1, times=[0.001, 0.002, 0.003])], 0.5)
    2.0
    """
    times = sorted(one for second in seconds for one in second.times)
    if not times:
        return None
    return round(1000 * times[max(0, math.ceil(share * len(times)) - 1)], 3)
