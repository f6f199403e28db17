"""Who hides behind whom: everybody behind everybody up to 100 partners, above that behind some chosen by lot.

Reference: Bell et al. 2020, doi:10.1145/3372297.3417885, Section 3 and Algorithm 3: every partner draws its own
neighbours, so that a coordinator cannot surround anybody with partners of its own.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

from fedrec.errors import ConfigError

# A sum of two tells each of them the other's vector.
LEAST_PARTNERS = 3
# Up to so many partners everybody is everybody's neighbour.
COMPLETE_UP_TO = 100
# Above, of all partners: how many may work with the coordinator, and how many may be lost.
HOSTILE_SHARE, LOST_SHARE = 0.1, 0.2
# Chance, as a power of two, that a draw of neighbours hides somebody badly, or that a sum cannot be opened.
SECURITY_BITS, CORRECTNESS_BITS = 40, 30


@dataclass(frozen=True)
class Graph:
    """How many neighbours, and how many of them can open a secret. Public.

    Attributes:
        partners: in the cohort.
        degree: neighbours that a partner draws and gives shares to; `partners - 1` in the complete graph.
        threshold: shares, of `degree + 1` with the own one in the complete graph, that open a secret.
    """

    partners: int
    degree: int
    threshold: int

    @property
    def is_complete(self) -> bool:
        """Everybody is everybody's neighbour."""
        return self.degree == self.partners - 1


def two_thirds(partners: int) -> int:
    """Least number of partners any two groups of which share more than a third of all: floor(2n/3) + 1."""
    return 2 * partners // 3 + 1


@lru_cache(maxsize=64)
def graph_of(partners: int) -> Graph:
    """The smallest graph that is safe for so many partners.

    Raises: ConfigError: fewer than `LEAST_PARTNERS`.
    """
    if partners < LEAST_PARTNERS:
        raise ConfigError(f"secure aggregation of {partners} partners hides nothing", "have at least 3")
    if partners <= COMPLETE_UP_TO:
        return Graph(partners, partners - 1, two_thirds(partners))
    for degree in range(2, partners - 1):
        threshold = _least_safe_threshold(partners, degree)
        opens = threshold <= degree and lost_too_many(partners, degree, threshold) <= 2.0**-CORRECTNESS_BITS
        if opens and falls_apart(partners, degree) <= 2.0**-SECURITY_BITS:
            return Graph(partners, degree, threshold)
    return Graph(partners, partners - 1, two_thirds(partners))


def hostile_too_many(partners: int, degree: int, threshold: int) -> float:
    """Chance that some partner drew `threshold` or more hostile neighbours, who could open its secrets alone."""
    hostile = math.floor(HOSTILE_SHARE * partners)
    tail = sum(_chance(k, partners - 1, hostile, degree) for k in range(threshold, degree + 1))
    return partners * tail


def lost_too_many(partners: int, degree: int, threshold: int) -> float:
    """Chance that of some partner's neighbours fewer than `threshold` are left, so that its masks stay."""
    lost = math.floor(LOST_SHARE * partners)
    tail = sum(_chance(k, partners - 1, lost, degree) for k in range(degree - threshold + 1, degree + 1))
    return partners * tail


def falls_apart(partners: int, degree: int) -> float:
    """Chance that honest partners that are left are no one connected group: sums of parts would show.

    A union bound over all groups of up to half of them: nobody inside drew anybody outside, nor the other way.
    """
    honest = partners - math.floor(HOSTILE_SHARE * partners) - math.floor(LOST_SHARE * partners)
    others = partners - 1
    total = 0.0
    for size in range(1, honest // 2 + 1):
        log = _log_choose(honest, size)
        for drawers, drawn in ((size, honest - size), (honest - size, size)):
            log += drawers * (_log_choose(others - drawn, degree) - _log_choose(others, degree))
        total += math.exp(log) if log > -700 else 0.0
    return total


def _least_safe_threshold(partners: int, degree: int) -> int:
    """The first at which hostile neighbours alone are too few; `degree + 1` if there is none."""
    for threshold in range(1, degree + 1):
        if hostile_too_many(partners, degree, threshold) <= 2.0**-SECURITY_BITS:
            return threshold
    return degree + 1


def _chance(hits: int, population: int, marked: int, drawn: int) -> float:
    """Hypergeometric: exactly so many marked ones among those drawn."""
    if not max(0, drawn + marked - population) <= hits <= min(drawn, marked):
        return 0.0
    log = _log_choose(marked, hits) + _log_choose(population - marked, drawn - hits) - _log_choose(population, drawn)
    return math.exp(log)


def _log_choose(n: int, k: int) -> float:
    if not 0 <= k <= n:
        return -math.inf
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
