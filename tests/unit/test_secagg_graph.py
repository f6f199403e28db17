"""Who hides behind whom: degree and threshold against Bell's bounds, computed once more in another way."""

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from fedrec.errors import ConfigError
from fedrec.secagg import graph
from fedrec.secagg.graph import COMPLETE_UP_TO, Graph, falls_apart, graph_of, two_thirds

SPARSE = [101, 128, 250, 1000, 4321]
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


def apart(partners: int, degree: int) -> float:
    """Some group of the honest that are left, of up to half of them, drew none of the others, and was not drawn."""
    honest = partners - partners // 10 - partners // 5
    total = Fraction(0)
    for size in range(1, honest // 2 + 1):
        rest = honest - size
        inside = Fraction(math.comb(partners - 1 - rest, degree), math.comb(partners - 1, degree)) ** size
        outside = Fraction(math.comb(partners - 1 - size, degree), math.comb(partners - 1, degree)) ** rest
        total += math.comb(honest, size) * inside * outside
        if size > 12:  # what follows is smaller by far: see the test of the whole sum below
            break
    return float(total)


def safe_threshold(partners: int, degree: int) -> int:
    return next((t for t in range(1, degree + 1) if hostile_tail(partners, degree, t) <= SECURE), degree + 1)


def is_good(partners: int, degree: int) -> bool:
    threshold = safe_threshold(partners, degree)
    if threshold > degree or lost_tail(partners, degree, threshold) > CORRECT:
        return False
    return falls_apart(partners, degree) <= SECURE


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
    assert falls_apart(partners, found.degree) <= SECURE
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
    assert graph.hostile_too_many(partners, found.degree, found.threshold) == pytest.approx(float(hostile), rel=1e-6)
    assert graph.lost_too_many(partners, found.degree, found.threshold) == pytest.approx(float(lost), rel=1e-6)


@pytest.mark.parametrize(("partners", "degree"), [(20, 2), (20, 3), (101, 3), (101, 10), (250, 6)])
def test_falling_apart_equals_the_union_bound_in_exact_fractions(partners: int, degree: int) -> None:
    assert falls_apart(partners, degree) == pytest.approx(apart(partners, degree), rel=1e-6)


def test_real_draws_fall_apart_no_more_often_than_the_bound_says() -> None:
    """Degrees so small that it happens, 2,000 draws: an isolated partner is what breaks nearly all of them."""
    rng, partners, degree = np.random.default_rng(5), 10, 2
    honest = partners - partners // 10 - partners // 5
    broken = 0
    for _ in range(2000):
        links = np.eye(honest, dtype=bool)
        for one in range(honest):
            drawn = rng.choice([other for other in range(partners) if other != one], degree, replace=False)
            inside = drawn[drawn < honest]
            links[one, inside] = links[inside, one] = True
        reached = np.linalg.matrix_power(links.astype(np.int64), honest)[0] > 0
        broken += not reached.all()
    assert 0 < broken / 2000 <= falls_apart(partners, degree)


def test_a_thousand_partners_need_a_degree_that_grows_slowly() -> None:
    """What Section 3 promises: logarithmic. Pinned, since all partners must find the same."""
    found = {partners: (graph_of(partners).degree, graph_of(partners).threshold) for partners in (101, 1000, 10_000)}
    assert found == {101: (29, 11), 1000: (74, 33), 10_000: (87, 39)}
