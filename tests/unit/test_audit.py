"""The audit's own arithmetic: bounds that hold, attackers that cannot win against the truth, mutants that show."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import norm

from fedrec.errors import PrivacyError
from fedrec.privacy.accounting import delta_pld, epsilon_pld
from fedrec.privacy.mechanism import Event
from fedrec_sim.audit.bounds import ERROR_PROBABILITY, Guesses, epsilon_at_least, refutes
from fedrec_sim.audit.mutants import MUTANTS
from fedrec_sim.audit.order import LateLedger, watch_order
from fedrec_sim.audit.releases import DELTA, Audited, guess

ROOT = bytes(range(32))
GAUSSIAN: list[Event] = [("a", 1.0, 1.0, 1)]


def best_attacker(noise_multiplier: float, trials: int) -> Guesses:
    """Expected counts of the best test against one Gaussian: threshold half-way between both means."""
    false_alarms = round(trials * norm.sf(0.5 / noise_multiplier))
    return Guesses(trials, false_alarms, trials, trials - false_alarms)


def test_rates_are_bounded_at_the_stated_confidence() -> None:
    """Of many attackers with a known rate, hardly any lies beyond its own bound."""
    rng = np.random.default_rng(1)
    for rate in (0.01, 0.3, 0.9):
        counts = rng.binomial(500, rate, size=2000)
        beyond = sum(Guesses(500, int(k), 500, 0).false_alarm_rate_at_most() < rate for k in counts)
        assert beyond <= 3  # expected .1


def test_nobody_and_everybody() -> None:
    assert Guesses(10, 10, 10, 0).false_alarm_rate_at_most() == 1.0
    assert Guesses(10, 10, 10, 0).found_rate_at_least() == 0.0
    # With no success in n, the bound is where (1 - p)**n meets the error probability.
    assert Guesses(50, 0, 50, 50).false_alarm_rate_at_most() == pytest.approx(1 - (ERROR_PROBABILITY / 2) ** (1 / 50))


def test_the_truth_is_not_refuted_and_a_smaller_claim_is() -> None:
    guesses = best_attacker(1.0, 4000)
    assert not refutes(guesses, GAUSSIAN)
    assert refutes(guesses, [("a", 1.0, 1.5, 1)])
    assert refutes(guesses.mirrored(), [("a", 1.0, 1.5, 1)])


def test_the_lower_bound_comes_close_from_below_as_trials_grow() -> None:
    claim = epsilon_pld(GAUSSIAN, 1e-5)
    few, many = (epsilon_at_least(best_attacker(1.0, n), GAUSSIAN, 1e-5) for n in (500, 100_000))
    assert few is not None
    assert many is not None
    assert 0 < few < many <= claim
    assert many > 0.93 * claim


def test_guessing_proves_nothing_and_certainty_more_than_any_sampling_allows() -> None:
    assert epsilon_at_least(Guesses(1000, 500, 1000, 500), GAUSSIAN, 1e-5) == 0.0
    assert epsilon_at_least(Guesses(1000, 0, 1000, 1000), [("a", 0.1, 1.0, 1)], 1e-5) is None


def test_the_privacy_curve_is_that_of_the_analytic_gaussian() -> None:
    """Balle & Wang 2018, arXiv:1805.06530, theorem 8."""
    for epsilon, delta in zip((0.5, 2.0), delta_pld(GAUSSIAN, (0.5, 2.0)), strict=True):
        exact = norm.cdf(0.5 - epsilon) - math.exp(epsilon) * norm.cdf(-0.5 - epsilon)
        assert exact * (1 - 1e-9) <= delta <= exact + 1e-4
    with pytest.raises(PrivacyError, match="curve"):
        delta_pld([("a", 1.0, 1e-4, 1)], (1.0,))


def test_the_real_code_holds() -> None:
    audited = Audited()
    guesses = guess(audited, 150, ROOT)
    assert guesses.absent + guesses.present == 1500
    assert not refutes(guesses, audited.plan.events())
    assert (epsilon_at_least(guesses, audited.plan.events(), DELTA) or math.inf) < audited.plan.epsilon()


@pytest.mark.parametrize("name", ["noise_times_0.7", "noise_divided_by_sqrt_batch", "noise_reused"])
def test_mutants_show(name: str) -> None:
    audited = MUTANTS[name]
    assert refutes(guess(audited, 250, ROOT), audited.plan.events())


def test_the_same_root_gives_the_same_trials() -> None:
    assert guess(Audited(), 5, ROOT) == guess(Audited(), 5, ROOT)


@pytest.mark.parametrize(("wrap", "passed"), [(lambda ledger: ledger, True), (LateLedger, False)])
def test_a_row_that_is_read_before_it_is_paid_shows(wrap: Callable[..., object], passed: bool) -> None:
    report = watch_order(wrap)
    assert report.passed is passed
    assert report.touches > 3
    assert (report.unpaid == 0) is passed
