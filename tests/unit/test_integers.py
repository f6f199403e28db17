"""Noised sums as integers: the rounding's distribution, the theorem behind it, and a range that nothing leaves."""

import dataclasses
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy import stats

from fedrec.errors import PrivacyError
from fedrec.privacy import integer_code, integers
from fedrec.privacy.clipping import BoundedSum
from fedrec.privacy.integer_code import REACH, ROUNDING_STD, IntegerCode, slack
from fedrec.privacy.integers import noised_integers, round_at_random
from fedrec.privacy.noise import NoiseSource
from fedrec.privacy.plan import PartPlan, PrivacyPlan
from fedrec.secagg.masks import from_words, to_words

PLAN = PrivacyPlan("user", "secagg", 1e-5, (PartPlan("head", 1.0, 0.5, 4.0, 10),), quorum=4, dishonest=1)
NOISE = PLAN.noise_std("head")  # 1.0


def source(context: str = "run|1|head") -> NoiseSource:
    return NoiseSource.from_root(bytes(range(32)), context.encode())


def discrete(centre: float, std: float = ROUNDING_STD) -> tuple[np.ndarray, np.ndarray]:
    """Support and probabilities of the discrete Gaussian around a centre, far beyond where it matters."""
    reach = math.ceil(40 * std)
    support = np.arange(round(centre) - reach, round(centre) + reach + 1)
    weights = np.exp(-((support - centre) ** 2) / (2 * std**2))
    return support, weights / weights.sum()


def p_of(draws: np.ndarray, support: np.ndarray, probabilities: np.ndarray) -> float:
    """Chi-square over the integers that are expected ten times and more, and one cell for the rest."""
    common = probabilities * len(draws) >= 10
    seen = np.array([(draws == value).sum() for value in support[common]])
    expected = probabilities[common] * len(draws)
    seen, expected = np.append(seen, len(draws) - seen.sum()), np.append(expected, len(draws) - expected.sum())
    return float(stats.chisquare(seen, expected).pvalue)


@pytest.mark.parametrize("centre", [0.0, 0.5, -0.5, 0.25, 1000.49, -7.51])
def test_rounding_draws_from_the_discrete_gaussian_around_the_centre(centre: float) -> None:
    draws = round_at_random(np.full(60_000, centre), source(f"{centre}"))
    assert draws.dtype == np.int64
    assert p_of(draws, *discrete(centre)) > 0.001
    assert abs(draws.mean() - centre) < 4 * ROUNDING_STD / math.sqrt(60_000)
    assert draws.std() == pytest.approx(ROUNDING_STD, rel=4 / math.sqrt(2 * 60_000))


@pytest.mark.parametrize("wrong", [0.4, -0.4])
def test_mutant_another_centre_is_seen(wrong: float) -> None:
    draws = round_at_random(np.full(60_000, 0.25), source())
    assert p_of(draws, *discrete(0.25 + wrong)) < 1e-6


def test_mutant_without_the_acceptance_the_centre_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NoiseSource, "uniform", lambda self, n: np.zeros(n))
    draws = round_at_random(np.full(60_000, 0.49), source())
    assert p_of(draws, *discrete(0.49)) < 1e-4


def test_rounding_of_nothing_and_of_many_different_numbers() -> None:
    assert round_at_random(np.zeros(0), source()).shape == (0,)
    centres = np.linspace(-1e6, 1.0003e6, 50_001)
    residue = round_at_random(centres, source()) - centres
    assert stats.kstest(residue / ROUNDING_STD, "norm").pvalue > 0.001
    assert np.abs(residue).max() <= REACH + 0.5


def test_the_table_is_the_discrete_gaussians() -> None:
    table = integers._thresholds()
    assert len(table) == 2 * REACH
    assert (np.diff(table.astype(object)) >= 0).all()
    _, exact = discrete(0.0)
    middle = len(exact) // 2
    cumulative = np.cumsum(exact[middle - REACH : middle + REACH])
    assert np.allclose(table.astype(np.float64) / 2.0**64, cumulative, rtol=0, atol=1e-15)


def test_the_table_is_symmetric_to_the_last_bit_but_for_rounding_down() -> None:
    """A draw of k and one of -k are as likely: from integers, so that no sum of floats tilts it."""
    table = [int(threshold) for threshold in integers._thresholds()]
    masses = [high - low for low, high in itertools.pairwise([0, *table, 2**64])]
    assert len(masses) == 2 * REACH + 1
    assert max(abs(one - other) for one, other in zip(masses, reversed(masses), strict=True)) <= 1
    assert all(abs(low + high - 2**64) <= 1 for low, high in zip(table, reversed(table), strict=True))
    weights = [Fraction(math.exp(-(k**2) / 128)) for k in range(-REACH, REACH + 1)]
    exact = list(itertools.accumulate(weights))
    assert all(abs(found - part * 2**64 / exact[-1]) <= 1 for found, part in zip(table, exact, strict=False))


def of_the_sum(centres: list[float], std: float) -> float:
    """Largest |ratio - 1| between the sum of rounded numbers and the discrete Gaussian around their sum.

    By exact convolution, within 7 standard deviations, where float64 still has digits enough.
    """
    support, probabilities = discrete(centres[0], std)
    start = support[0]
    for centre in centres[1:]:
        more, others = discrete(centre, std)
        probabilities, start = np.convolve(probabilities, others), start + more[0]
    total, wide = sum(centres), std * math.sqrt(len(centres))
    values = np.arange(start, start + len(probabilities))
    weights = np.exp(-((values - total) ** 2) / (2 * wide**2))
    near = np.abs(values - total) < 7 * wide
    return float(np.abs(probabilities[near] / (weights / weights.sum())[near] - 1).max())


CENTRES = [[0.0, 0.0], [0.5, 0.5], [0.25, 0.75, 0.1], [0.5, -0.25, 0.125, 7.3, 2.9]]


@pytest.mark.parametrize("centres", CENTRES)
def test_sums_of_rounded_numbers_are_the_discrete_gaussian_around_the_sum(centres: list[float]) -> None:
    """The theorem: whoever sees the sum learns nothing of the single numbers but their sum."""
    assert of_the_sum(centres, ROUNDING_STD) < 1e-11


@pytest.mark.parametrize("std", [0.6, 1.0, 1.4])
@pytest.mark.parametrize("centres", CENTRES)
def test_slack_bounds_what_is_missing_of_the_theorem(
    std: float, centres: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(integer_code, "ROUNDING_STD", std)
    assert of_the_sum(centres, std) <= slack(partners=len(centres), numbers=1, steps=1) + 1e-11


def test_a_narrower_rounding_would_tell_the_parts_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the test above can fail: at a fifth of a grain the sum's distribution depends on the parts."""
    assert of_the_sum([0.25, 0.75, 0.1], 0.2) > 0.5
    monkeypatch.setattr(integer_code, "ROUNDING_STD", 0.2)
    assert slack(3, 1, 1) > 0.5


def test_slack_is_nothing_in_earnest_and_adds_up() -> None:
    assert 0 < slack(10_000, 10**8, 10**5) < 1e-250
    assert slack(6, 5, 4) == pytest.approx(120 * slack(1, 1, 1))


@pytest.mark.parametrize("std", [0.3, 1.0, 7.7])
@pytest.mark.parametrize("partners", [3, 50])
def test_the_worst_case_fits_into_the_bits(std: float, partners: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All partners at the clamp, with the furthest noise that there is, and rounded away as far as it goes."""
    plan = dataclasses.replace(PLAN, parts=(PartPlan("head", 1.0, 0.5, 4.0 * std, 10),))
    code = IntegerCode.of(plan, "head", partners, range_users=20)
    noise_std = plan.noise_std("head")
    furthest = math.sqrt(-2 * math.log(2.0**-64))
    for sign in (1, -1):
        total = BoundedSum(torch.full((3,), sign * 1e30), 0.5)
        monkeypatch.setattr(NoiseSource, "gaussian_float64", lambda self, n, s=sign: np.full(n, s * furthest))
        near = noised_integers(total, noise_std, code, source())
        assert np.abs(near).min() > (code.clamp + 9.3 * noise_std) / code.grain
        summed = partners * (np.rint(sign * (code.clamp + furthest * noise_std) / code.grain) + sign * REACH)
        assert np.array_equal(from_words(to_words(np.array([summed], np.int64), code.bits), code.bits), [summed])
    # And no bit is wasted: half of the modulus would not do.
    assert 2 ** (code.bits - 2) < partners * ((code.clamp + 9.5 * noise_std) / code.grain + REACH + 2)


@pytest.mark.parametrize("exponent", [-40, -3, 0, 7])
def test_the_grain_of_a_power_of_two_is_exact(exponent: int) -> None:
    """Where a logarithm could come out on either side."""
    for noise, grain in (
        (2.0**exponent, 2.0 ** (exponent - 9)),
        (math.nextafter(2.0**exponent, 0), 2.0 ** (exponent - 10)),
    ):
        plan = PrivacyPlan("user", "secagg", 1e-5, (PartPlan("head", 1.0, noise, 1.0, 10),), quorum=1)
        assert plan.noise_std("head") == noise
        assert IntegerCode.of(plan, "head", 3, range_users=1).grain == grain


@pytest.mark.parametrize("noise_multiplier", [0.01, 0.7, 1.0, 3.3, 512.0])
def test_the_grain_is_a_power_of_two_and_at_most_a_512th_of_the_noise(noise_multiplier: float) -> None:
    plan = dataclasses.replace(PLAN, parts=(PartPlan("head", 1.0, 0.5, noise_multiplier, 10),))
    code = IntegerCode.of(plan, "head", 3, range_users=1)
    assert math.frexp(code.grain)[0] == 0.5
    assert plan.noise_std("head") / 1024 < code.grain <= plan.noise_std("head") / 512
    assert code.clamp == 0.5


def test_more_than_32_bits_and_unknown_parts_are_refused() -> None:
    fits = IntegerCode.of(PLAN, "head", 1000, range_users=100)
    assert fits.bits <= 32
    with pytest.raises(PrivacyError, match=r"sums of 1000 partners need 3[3-9] bits, 32 are had"):
        IntegerCode.of(PLAN, "head", 1000, range_users=100_000)
    with pytest.raises(PrivacyError, match="'lora'"):
        IntegerCode.of(PLAN, "lora", 3, range_users=1)


CODE = IntegerCode.of(PLAN, "head", 4, range_users=20)


def bounded(n: int = 40_000, value: float = 0.3) -> BoundedSum:
    return BoundedSum(torch.full((n,), value), 0.5)


def test_noised_integers_have_the_noise_of_the_plan_and_of_the_rounding() -> None:
    found = noised_integers(bounded(), NOISE, CODE, source())
    assert found.dtype == np.int64
    values = found * CODE.grain
    variance = NOISE**2 + ROUNDING_STD**2 * CODE.grain**2
    assert abs(values.mean() - 0.3) < 4 * math.sqrt(variance / len(values))
    assert values.var() == pytest.approx(variance, rel=4 * math.sqrt(2 / len(values)))
    assert stats.kstest((values - 0.3) / math.sqrt(variance), "norm").pvalue > 0.001


def test_the_rounding_is_part_of_the_variance() -> None:
    """The same noise, not rounded, lies closer to the sum by just that much."""
    again = source()
    noise = NOISE * again.gaussian_float64(40_000)
    residue = noised_integers(bounded(), NOISE, CODE, source()) - (np.float64(np.float32(0.3)) + noise) / CODE.grain
    assert residue.std() == pytest.approx(ROUNDING_STD, rel=0.02)
    assert abs(residue.mean()) < 4 * ROUNDING_STD / 200


def test_the_same_source_gives_the_same_integers_and_another_does_not() -> None:
    one, same, other = (noised_integers(bounded(), NOISE, CODE, source(name)) for name in ("a", "a", "b"))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.03


def test_a_sum_is_used_up_and_one_of_nobody_is_noised_alike() -> None:
    total = bounded(100)
    noised_integers(total, NOISE, CODE, source())
    with pytest.raises(PrivacyError, match="twice"):
        noised_integers(total, NOISE, CODE, source("b"))
    empty = noised_integers(bounded(value=0.0), NOISE, CODE, source()) * CODE.grain
    assert empty.std() == pytest.approx(NOISE, rel=0.02)
    assert noised_integers(bounded(0), NOISE, CODE, source()).shape == (0,)


@pytest.mark.parametrize("noise_std", [0.0, NOISE / 3, -1.0, math.inf, math.nan])
def test_a_code_of_more_noise_is_refused_and_the_sum_not_used_up(noise_std: float) -> None:
    total = bounded(10)
    with pytest.raises(PrivacyError, match="too coarse"):
        noised_integers(total, noise_std, CODE, source())
    noised_integers(total, NOISE, CODE, source())


def test_clamping_moves_no_two_sums_further_apart() -> None:
    """Before the noise, so that the sensitivity stays; and without noise it would show."""
    rng = np.random.default_rng(3)
    one = rng.normal(0, 12, 50_000).astype(np.float32)
    other = one + rng.normal(0, 0.002, 50_000).astype(np.float32)
    found = [noised_integers(BoundedSum(torch.from_numpy(x), 0.5), NOISE, CODE, source()) for x in (one, other)]
    apart = np.linalg.norm(np.clip(one, -10, 10).astype(np.float64) - np.clip(other, -10, 10))
    assert apart <= np.linalg.norm(one.astype(np.float64) - other)
    assert max(np.abs(x).max() for x in found) <= (CODE.clamp + 9.5 * NOISE) / CODE.grain + REACH


def test_the_worst_case_fits_for_any_number_of_partners() -> None:
    """Some of them fill the modulus nearly whole, so that a range that is a little too small would show."""
    furthest, fullest = math.sqrt(-2 * math.log(2.0**-64)), 0.0
    for partners in range(3, 400):
        code = IntegerCode.of(PLAN, "head", partners, range_users=1)
        worst = partners * (math.ceil((code.clamp + furthest * NOISE) / code.grain) + REACH)
        assert worst < 2 ** (code.bits - 1)
        fullest = max(fullest, worst / 2 ** (code.bits - 1))
    assert fullest > 0.98


def test_a_draw_is_never_further_out_than_its_bound_and_radii_have_64_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    words = {
        "least": np.array([0, 0], np.uint64),
        "next": np.array([3, 0], np.uint64),
        "most": np.array([2**64 - 1, 0], np.uint64),
    }
    found = {}
    for name, pair in words.items():
        monkeypatch.setattr(NoiseSource, "words", lambda self, n, pair=pair: pair)
        found[name] = np.abs(source().gaussian_float64(2)).max()
    assert found["least"] == pytest.approx(math.sqrt(-2 * math.log(2.0**-64)))
    assert found["least"] < integer_code._FURTHEST_NOISE
    assert found["next"] == pytest.approx(math.sqrt(-2 * math.log(3 * 2.0**-64)))  # of 53 bits both would be one
    assert found["most"] == 0
