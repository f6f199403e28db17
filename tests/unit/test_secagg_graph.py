"""Who hides behind whom: degree and threshold against Bell's bounds, computed once more in another way."""

import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from scipy import special, stats

from fedrec.errors import ConfigError
from fedrec.secagg import graph
from fedrec.secagg.graph import COMPLETE_UP_TO, Graph, cut_off, graph_of, two_thirds

SPARSE = [101, 128, 250, 1000]
SECURE, CORRECT = 2.0**-40, 2.0**-30


def hostile_tail(partners: int, degree: int, threshold: int) -> float:
    """As scipy has it, for any of the partners."""
    hostile = partners // 10
    return partners * float(stats.hypergeom.sf(threshold - 1, partners - 1, hostile, degree))


def lost_tail(partners: int, degree: int, threshold: int) -> float:
    return partners * float(stats.hypergeom.sf(degree - threshold, partners - 1, partners // 5, degree))


def exact_tail(population: int, marked: int, drawn: int, least: int) -> Fraction:
    """P(at least so many marked ones among those drawn), without rounding."""
    ways = sum(math.comb(marked, k) * math.comb(population - marked, drawn - k) for k in range(least, drawn + 1))
    return Fraction(ways, math.comb(population, drawn))


def apart(partners: int, degree: int, threshold: int, hostile: int) -> float:
    """The bound of `cut_off` once more, in exact fractions.

    Of each group, the smaller of: each member drew enough of the group and of the hostile; or, for each choice of
    whom to lose, each member drew enough of them and nobody else but lost ones, and nobody who is left drew a member.
    """
    honest, lost, others = partners - hostile, partners - two_thirds(partners), partners - 1
    total, ways = Fraction(0), math.comb(others, degree)
    for size in range(2, (honest - lost) // 2 + 1):
        near = size - 1 + hostile
        first = math.comb(honest, size) * exact_tail(others, near, degree, threshold) ** size
        draws = sum(math.comb(near, k) * math.comb(lost, degree - k) for k in range(threshold, degree + 1))
        outside = Fraction(math.comb(others - size, degree), ways) ** (honest - size - lost)
        choices = math.comb(honest, size) * math.comb(honest - size, lost)
        total += min(first, choices * Fraction(draws, ways) ** size * outside)
    return float(min(total, Fraction(1)))


def cut_off_by_scipy(partners: int, degree: int, threshold: int, hostile: int) -> float:
    """The same in logarithms, of any number of partners."""
    honest, lost, others = partners - hostile, partners - two_thirds(partners), partners - 1
    size = np.arange(2, (honest - lost) // 2 + 1)

    def choose(n: Any, k: Any) -> Any:
        return special.gammaln(n + 1.0) - special.gammaln(k + 1.0) - special.gammaln(n - k + 1.0)

    near = size - 1 + hostile
    groups = choose(honest, size)
    first = groups + size * stats.hypergeom.logsf(threshold - 1, others, near, degree)
    # Drawn of near or lost ones alone: as many of the near as one likes, given that.
    enough = stats.hypergeom.logsf(threshold - 1, near + lost, near, degree)
    inside = enough + choose(near + lost, degree) - choose(others, degree)
    outside = (honest - size - lost) * (choose(others - size, degree) - choose(others, degree))
    second = groups + choose(honest - size, lost) + size * inside + outside
    return float(np.exp(min(0.0, special.logsumexp(np.fmin(first, second)))))


def safe_threshold(partners: int, degree: int) -> int:
    return next((t for t in range(1, degree + 1) if hostile_tail(partners, degree, t) <= SECURE), degree + 1)


def is_good(partners: int, degree: int) -> bool:
    threshold = safe_threshold(partners, degree)
    if threshold > degree or lost_tail(partners, degree, threshold) > CORRECT:
        return False
    return cut_off_by_scipy(partners, degree, threshold, partners // 10) <= SECURE


@pytest.mark.parametrize("partners", [3, 4, 5, 6, 7, 50, 99, COMPLETE_UP_TO])
def test_up_to_100_everybody_hides_behind_everybody(partners: int) -> None:
    found = graph_of(partners)
    assert found.is_complete
    assert found == Graph(partners, partners - 1, two_thirds(partners))


@pytest.mark.parametrize("partners", [3, 4, 5, 6, 7, 8, 9, 100, 101, 102, 4321])
def test_two_thirds_is_the_least_number_whose_groups_share_more_than_a_third(partners: int) -> None:
    """So that of two signed survivor sets one honest partner at least must have signed both."""

    def shares_enough(least: int) -> bool:
        return 3 * (2 * least - partners) > partners

    least = two_thirds(partners)
    assert least == math.floor(Fraction(2 * partners, 3)) + 1
    assert shares_enough(least)
    assert not shares_enough(least - 1)
    assert least <= partners


@pytest.mark.parametrize("partners", [-1, 0, 1, 2])
def test_fewer_than_three_hide_nothing(partners: int) -> None:
    with pytest.raises(ConfigError, match="hides nothing"):
        graph_of(partners)


@pytest.mark.parametrize("partners", SPARSE)
def test_above_100_degree_and_threshold_keep_every_bound(partners: int) -> None:
    found = graph_of(partners)
    assert not found.is_complete
    assert found.threshold == safe_threshold(partners, found.degree)
    assert hostile_tail(partners, found.degree, found.threshold) <= SECURE
    assert hostile_tail(partners, found.degree, found.threshold - 1) > SECURE
    assert lost_tail(partners, found.degree, found.threshold) <= CORRECT
    assert cut_off(partners, found.degree, found.threshold, partners // 10) <= SECURE
    assert found.threshold <= found.degree < partners - 1


@pytest.mark.parametrize("partners", SPARSE)
def test_no_smaller_degree_would_do(partners: int) -> None:
    assert not any(is_good(partners, degree) for degree in range(2, graph_of(partners).degree))


@pytest.mark.parametrize("partners", [101, 250, 1000])
def test_the_bounds_hold_in_exact_fractions(partners: int) -> None:
    found = graph_of(partners)
    hostile = partners * exact_tail(partners - 1, partners // 10, found.degree, found.threshold)
    lost = partners * exact_tail(partners - 1, partners // 5, found.degree, found.degree - found.threshold + 1)
    assert hostile <= Fraction(1, 2**40)  # 0 where there are fewer hostile ones than the threshold
    assert 0 < lost <= Fraction(1, 2**30)
    assert graph.hostile_too_many(partners, found.degree, found.threshold, partners // 10) == pytest.approx(
        float(hostile), rel=1e-6
    )
    assert graph.lost_too_many(partners, found.degree, found.threshold) == pytest.approx(float(lost), rel=1e-6)


BOUNDS = [(12, 2, 2, 1), (20, 3, 2, 2), (30, 8, 3, 0), (60, 9, 4, 6), (101, 29, 11, 10), (101, 12, 5, 10)]


@pytest.mark.parametrize(("partners", "degree", "threshold", "hostile"), BOUNDS)
def test_being_cut_off_equals_the_union_bound_in_exact_fractions(
    partners: int, degree: int, threshold: int, hostile: int
) -> None:
    exact = apart(partners, degree, threshold, hostile)
    assert exact > 0
    assert cut_off(partners, degree, threshold, hostile) == pytest.approx(exact, rel=1e-6)
    assert cut_off_by_scipy(partners, degree, threshold, hostile) == pytest.approx(exact, rel=1e-4)


@pytest.mark.parametrize("partners", SPARSE)
def test_being_cut_off_is_as_rare_as_scipy_says(partners: int) -> None:
    found = graph_of(partners)
    bound = cut_off_by_scipy(partners, found.degree, found.threshold, partners // 10)
    assert cut_off(partners, found.degree, found.threshold, partners // 10) == pytest.approx(bound, rel=1e-3)


def can_be_cut_off(drawn: list[set[int]], threshold: int, hostile: int) -> bool:
    """Whether a coordinator who sees who drew whom can lose few enough to open a group alone; by trying."""
    partners = len(drawn)
    honest, lost = set(range(hostile, partners)), partners - two_thirds(partners)
    for size in range(2, (len(honest) - lost) // 2 + 1):
        for group in map(set, itertools.combinations(honest, size)):
            near = group | set(range(hostile))
            if any(len(drawn[one] & near) < threshold for one in group):
                continue
            neighbours = {other for one in group for other in drawn[one]} | {w for w in honest if drawn[w] & group}
            if len(neighbours & honest - group) <= lost:
                return True
    return False


def test_real_draws_are_cut_off_no_more_often_than_the_bound_says() -> None:
    """Degrees so small that it happens, 600 draws, and every choice of whom to lose."""
    rng, partners = np.random.default_rng(5), 12
    found = 0
    for _ in range(600):
        others = ([other for other in range(partners) if other != one] for one in range(partners))
        drawn = [set(rng.choice(those, 2, replace=False).tolist()) for those in others]
        found += can_be_cut_off(drawn, threshold=2, hostile=1)
    assert 0 < found / 600 <= cut_off(partners, 2, 2, hostile=1) < 0.1


@pytest.mark.parametrize(("partners", "dishonest"), [(101, 11), (300, 31), (1000, 101)])
def test_more_than_a_tenth_dishonest_hide_behind_everybody(partners: int, dishonest: int) -> None:
    assert graph_of(partners, dishonest) == Graph(partners, partners - 1, two_thirds(partners))
    assert not graph_of(partners, dishonest - 1).is_complete
    assert graph_of(partners, dishonest - 1) == graph_of(partners)  # up to a tenth are reckoned with anyway


def test_a_plan_that_bears_more_than_a_tenth_has_the_complete_graph_in_its_terms(make_sum: Any) -> None:
    one, other = make_sum(120, dishonest=12).terms, make_sum(120, dishonest=13).terms
    assert (one.graph, one.threshold) == (graph_of(120), graph_of(120).threshold)
    assert (other.graph.is_complete, other.threshold) == (True, other.least)


def test_a_thousand_partners_need_a_degree_that_grows_slowly() -> None:
    """What Section 3 promises: logarithmic. Pinned, since all partners must find the same."""
    found = {n: (graph_of(n).degree, graph_of(n).threshold) for n in (101, 300, 1000, 5000)}
    assert found == {101: (29, 11), 300: (56, 25), 1000: (74, 33), 5000: (85, 38)}  # as docs/secagg.md has them
