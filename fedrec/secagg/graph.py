"""Who hides behind whom: everybody behind everybody up to 100 partners, above that behind some chosen by lot.

Reference: Bell et al. 2020, doi:10.1145/3372297.3417885, Section 3 and Algorithm 3: every partner draws its own
neighbours, so that a coordinator cannot surround anybody with partners of its own.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from fedrec.errors import ConfigError

# A sum of two tells each of them the other's vector.
LEAST_PARTNERS = 3
# Up to so many partners everybody is everybody's neighbour.
COMPLETE_UP_TO = 100
# Above, of all partners: how many may work with the coordinator, and how many may be lost by chance.
HOSTILE_SHARE, LOST_SHARE = 0.1, 0.2
# Chance, as a power of two, that a draw of neighbours hides somebody badly, or that a sum cannot be opened. Of one
# attempt: a coordinator may begin anew until it likes a draw, so that partners bound the attempts.
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
def graph_of(partners: int, dishonest: int = 0) -> Graph:
    """The smallest graph that is safe for so many partners.

    Args:
        dishonest: partners that may work with the coordinator, where the plan says more than `HOSTILE_SHARE` is.
    Raises: ConfigError: fewer than `LEAST_PARTNERS`.
    """
    if partners < LEAST_PARTNERS:
        raise ConfigError(f"secure aggregation of {partners} partners hides nothing", "have at least 3")
    hostile = max(math.floor(HOSTILE_SHARE * partners), dishonest)
    complete = Graph(partners, partners - 1, two_thirds(partners))
    if partners <= COMPLETE_UP_TO or hostile > HOSTILE_SHARE * partners:
        return complete
    for degree in range(2, partners - 1):
        threshold = _least_safe_threshold(partners, degree, hostile)
        opens = threshold <= degree and lost_too_many(partners, degree, threshold) <= 2.0**-CORRECTNESS_BITS
        if opens and cut_off(partners, degree, threshold, hostile) <= 2.0**-SECURITY_BITS:
            return Graph(partners, degree, threshold)
    return complete


def hostile_too_many(partners: int, degree: int, threshold: int, hostile: int) -> float:
    """Chance that some partner drew `threshold` or more hostile neighbours, who could open its secrets alone."""
    return partners * math.exp(_log_at_least(partners - 1, hostile, degree, threshold))


def lost_too_many(partners: int, degree: int, threshold: int) -> float:
    """Chance that of some partner's neighbours fewer than `threshold` are left, so that its masks stay."""
    lost = math.floor(LOST_SHARE * partners)
    return partners * math.exp(_log_at_least(partners - 1, lost, degree, degree - threshold + 1))


def cut_off(partners: int, degree: int, threshold: int, hostile: int) -> float:
    """Chance that a coordinator who sees the graph, and then chooses whom to lose, can open the sum of a part.

    A part of the honest partners whose seeds are opened has, with hostile ones, `threshold` holders for each of its
    members, and no neighbour among the other survivors. A union bound over all parts of up to half of them; for
    each size the smaller of two: every member has its holders there, whoever is lost; or the same, over every choice
    of whom to lose, and nobody outside drew a member.
    """
    honest, others = partners - hostile, partners - 1
    lost = partners - two_thirds(partners)
    logs = []
    for size in range(2, (honest - lost) // 2 + 1):
        near = size - 1 + hostile
        whoever = _log_choose(honest, size) + size * _log_at_least(others, near, degree, threshold)
        outside = honest - size - lost
        draws = _log_sum(
            _log_choose(near, inside) + _log_choose(lost, degree - inside) for inside in range(threshold, degree + 1)
        )
        chosen = _log_choose(honest, size) + _log_choose(honest - size, lost)
        chosen += size * (draws - _log_choose(others, degree))
        chosen += outside * (_log_choose(others - size, degree) - _log_choose(others, degree))
        logs.append(min(whoever, chosen))
    return math.exp(min(0.0, _log_sum(logs)))


def _least_safe_threshold(partners: int, degree: int, hostile: int) -> int:
    """The first at which hostile neighbours alone are too few; `degree + 1` if there is none."""
    for threshold in range(1, degree + 1):
        if hostile_too_many(partners, degree, threshold, hostile) <= 2.0**-SECURITY_BITS:
            return threshold
    return degree + 1


def _log_at_least(population: int, marked: int, drawn: int, least: int) -> float:
    """Log of the chance of so many marked ones or more among those drawn: hypergeometric."""
    hits = range(max(0, least), min(drawn, marked) + 1)
    logs = (_log_choose(marked, k) + _log_choose(population - marked, drawn - k) for k in hits)
    return min(0.0, _log_sum(logs) - _log_choose(population, drawn))


def _log_sum(logs: Iterable[float]) -> float:
    """Log of a sum, of logs."""
    found = [log for log in logs if log > -math.inf]
    top = max(found, default=-math.inf)
    return top + math.log(math.fsum(math.exp(log - top) for log in found)) if found else -math.inf


def _log_choose(n: int, k: int) -> float:
    if not 0 <= k <= n:
        return -math.inf
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
