"""Whether what comes in or goes out is still what it was: histograms by PSI, streams of numbers by ADWIN.

Everything here is a private count over a partner's people. It stays in the partner's own folder and logs.
"""

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from river.drift import ADWIN
from scipy.special import chdtri

# Added to each bin, so that an empty one is no infinite surprise.
_SMOOTHING = 0.5
# Bins that hold a smaller share of the reference are counted together.
_LEAST_SHARE = 0.01
_REST = "the rest"
# Chance alone passes the bound in one of so many comparisons.
_CHANCE = 1e-4
# ADWIN's own confidence, and the latest numbers of a stream that outlive a restart.
_ADWIN_DELTA = 0.002
_KEPT = 2000

Histogram = Mapping[str, float]


@dataclass(frozen=True)
class Drift:
    """Something is no longer what it was.

    Attributes:
        what: the measure, "events by type", say; never an item or a person.
        value: the index, or by how much the mean changed.
        bound: that it passed.
        since: Unix seconds from which on the changed window reaches.
        found_at: Unix seconds.
    """

    what: str
    value: float
    bound: float
    since: float
    found_at: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def population_stability(
    reference: Histogram, current: Histogram, people: tuple[int, int] | None = None
) -> tuple[float, float]:
    """The population stability index, and what chance alone would rarely pass with so few counts.

    Args:
        reference, current: counts by bin; rare bins of the reference are counted together.
        people: whose counts these are. What one person does hangs together, so that no more than these count as
            independent; None: every count does.
    Returns: index >= 0, and the bound of chance: under no change the index, divided by the sum of the reciprocal
        totals, follows chi-squared with one degree less than there are bins; the bound is its upper 1e-4 quantile.
    Reference: Yurdakul and Naranjo 2020, "Statistical properties of the population stability index".

    >>> population_stability({"a": 500, "b": 500}, {"a": 500, "b": 500})[0]
    0.0
    >>> index, chance = population_stability({"a": 500, "b": 500}, {"a": 100, "b": 900})
    >>> index > 0.2 > chance
    True
    """
    n, m = sum(reference.values()), sum(current.values())
    if not n or not m:
        return 0.0, math.inf
    before, after = _merged(reference, current, n)
    bins = sorted(before.keys() | after.keys())
    p = [before.get(name, 0.0) + _SMOOTHING for name in bins]
    q = [after.get(name, 0.0) + _SMOOTHING for name in bins]
    shares = zip([x / sum(p) for x in p], [x / sum(q) for x in q], strict=True)
    index = math.fsum((b - a) * math.log(b / a) for a, b in shares)
    n, m = (n, m) if people is None else (max(1, min(n, people[0])), max(1, min(m, people[1])))
    return index, float(chdtri(max(1, len(bins) - 1), _CHANCE)) * (1 / n + 1 / m)


def _merged(reference: Histogram, current: Histogram, n: float) -> tuple[dict[str, float], dict[str, float]]:
    kept = {name for name, count in reference.items() if count >= _LEAST_SHARE * n}

    def of(counts: Histogram) -> dict[str, float]:
        merged: dict[str, float] = {}
        for name, count in counts.items():
            name = name if name in kept else _REST
            merged[name] = merged.get(name, 0.0) + count
        return merged

    return of(reference), of(current)


def histogram_drift(
    what: str,
    reference: Histogram,
    current: Histogram,
    bound: float,
    since: float,
    now: float,
    people: tuple[int, int] | None = None,
) -> Drift | None:
    """Drift, if the index passes both the bound and what chance alone gives."""
    index, chance = population_stability(reference, current, people)
    bound = max(bound, chance)
    return Drift(what, index, bound, since, now) if index > bound else None


@dataclass
class Stream:
    """ADWIN over numbers within 0..1; it goes on after a restart from the latest of them.

    Attributes:
        what: the measure.
        only_down: a rise is good news, and no drift.
    Reference: Bifet and Gavaldà 2007, doi:10.1137/1.9781611972771.42.
    """

    what: str
    only_down: bool = False
    _values: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=_KEPT), repr=False)
    _adwin: ADWIN = field(default_factory=lambda: ADWIN(delta=_ADWIN_DELTA), repr=False)

    @property
    def mean(self) -> float:
        """Of the window that counts now; 0 if it is empty."""
        return float(self._adwin.estimation) if self._values else 0.0

    def update(self, value: float, at: float) -> Drift | None:
        """Take in the next number.

        Args:
            value: within 0..1, as ADWIN's bound assumes.
            at: Unix seconds.
        """
        before = self.mean
        self._adwin.update(value)
        self._values.append((at, value))
        if not self._adwin.drift_detected:
            return None
        width = max(1, min(int(self._adwin.width), len(self._values)))
        self._values = deque(list(self._values)[-width:], maxlen=_KEPT)
        change = self.mean - before
        if self.only_down and change > 0:
            return None
        return Drift(self.what, change, _least_change(width), self._values[0][0], at)

    def values(self) -> list[tuple[float, float]]:
        """To be kept: moments and numbers of the window, oldest first."""
        return list(self._values)

    def restore(self, values: Iterable[tuple[float, float]]) -> None:
        """Go on from what `values` gave."""
        self._adwin = ADWIN(delta=_ADWIN_DELTA)
        self._values.clear()
        for at, value in values:
            self._adwin.update(value)
            self._values.append((at, value))


def _least_change(width: int) -> float:
    """By how much the mean of so many must differ from that before to be found, for numbers of any spread."""
    return math.sqrt(math.log(2 * max(width, 2) / _ADWIN_DELTA) / (2 * width))
