"""When a share has risen: a CUSUM over yes and no, whose threshold gives a chosen rate of false alarms."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

_GRID = np.arange(0.5, 12.0, 0.1)
_STREAMS, _TEXTS, _SKIPPED = 400, 1000, 100
_HIGHEST = 30.0


@dataclass(frozen=True)
class RiseSettings:
    """What is a rise, and how seldom chance may look like one. Public.

    Attributes:
        base: the share as it usually is, within 0..1.
        raised: the share that must be found.
        false_per_1000: alarms per 1,000 texts that chance alone may give while the share is `base`.
    """

    base: float
    raised: float
    false_per_1000: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.base < self.raised < 1:
            raise ValueError(f"shares must rise within 0..1: base {self.base}, raised {self.raised}")
        if not 0 < self.false_per_1000 <= 100:
            raise ValueError(f"false_per_1000 = {self.false_per_1000} is not within 0..100")

    @property
    def gains(self) -> tuple[float, float]:
        """What a yes and a no add: logarithms of how much likelier each is after the rise."""
        return math.log(self.raised / self.base), math.log((1 - self.raised) / (1 - self.base))


@dataclass
class RiseWatch:
    """Adds up evidence for a rise, and never owes any; an alarm starts it anew.

    Args:
        settings: see there.
        threshold: evidence in nats at which it alarms; see `threshold_for`.
        since: how many came since there has been evidence.
    Reference: Page 1954, doi:10.1093/biomet/41.1-2.100; optimal by Moustakides 1986, doi:10.1214/aos/1176350164.
    """

    settings: RiseSettings
    threshold: float
    evidence: float = 0.0
    since: int = 0

    def take(self, is_yes: bool) -> int:
        """The next one.

        Returns: texts since the rise began, as likely as not, when it alarms; else 0.

        >>> watch = RiseWatch(RiseSettings(0.2, 0.6), 3.0)
        >>> [watch.take(True) for _ in range(4)]
        [0, 0, 3, 0]
        """
        self.evidence = max(0.0, self.evidence + self.settings.gains[0 if is_yes else 1])
        self.since = self.since + 1 if self.evidence > 0 else 0
        if self.evidence < self.threshold:
            return 0
        since, self.evidence, self.since = self.since, 0.0, 0
        return since


@lru_cache(16)
def threshold_for(settings: RiseSettings, seed: int = 1) -> float:
    """The threshold at which independent texts of the base share alarm `false_per_1000` times in 1,000, or seldomer.

    The least on a grid, by 400 simulated streams of 1,000 texts after 100 that are not counted; deterministic. 30 if
    none on the grid is high enough.
    """
    yes, no = settings.gains
    rng, evidence = np.random.default_rng(seed), np.zeros((len(_GRID), _STREAMS))
    alarms = np.zeros(len(_GRID))
    for at in range(_SKIPPED + _TEXTS):
        evidence += np.where(rng.random(_STREAMS) < settings.base, yes, no)
        np.maximum(evidence, 0.0, out=evidence)
        is_over = evidence >= _GRID[:, None]
        evidence[is_over] = 0.0
        alarms += is_over.sum(1) if at >= _SKIPPED else 0
    enough = np.flatnonzero(alarms <= settings.false_per_1000 * _STREAMS * _TEXTS / 1000)
    return float(_GRID[enough[0]]) if len(enough) else _HIGHEST
