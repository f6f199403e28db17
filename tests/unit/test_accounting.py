"""Two accountants, the analytic Gaussian, and the errors that a wrong composition makes."""

import math
import sys

import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from fedrec.errors import PrivacyError
from fedrec.privacy import accounting
from fedrec.privacy.accounting import checked_epsilon, epsilon_pld, epsilon_prv
from fedrec.privacy.mechanism import Event
from fedrec.privacy.plan import PartShare, calibrate

SHARES: list[PartShare] = [
    ("prior", 1, 1.0, 1.0, 0.2),
    ("head", 40, 1.0, 0.3, 0.7),
    ("lora", 12, 0.1, 0.1, 0.1),
]
GRID: list[list[Event]] = [
    [("a", 1.0, 1.0, 1)],
    [("a", 1.0, 8.0, 100)],
    [("a", 0.01, 1.0, 1000)],
    [("a", 0.5, 30.0, 40)],
    [("a", 0.1, 0.7, 12), ("b", 1.0, 5.0, 40), ("c", 1.0, 1.5, 1)],
]


def gaussian_epsilon(noise_multiplier: float, delta: float) -> float:
    """Balle & Wang 2018, arXiv:1805.06530, theorem 8."""

    def gap(epsilon: float) -> float:
        low, high = 1 / (2 * noise_multiplier), epsilon * noise_multiplier
        return float(norm.cdf(low - high) - math.exp(epsilon) * norm.cdf(-low - high) - delta)

    return float(brentq(gap, 0.0, 500.0))


@pytest.mark.parametrize("noise", [0.5, 1.0, 3.0, 20.0])
@pytest.mark.parametrize("steps", [1, 30])
def test_unsampled_steps_are_the_analytic_gaussian(noise: float, steps: int) -> None:
    expected = gaussian_epsilon(noise / math.sqrt(steps), 1e-5)
    assert epsilon_pld([("a", 1.0, noise, steps)], 1e-5) == pytest.approx(expected, abs=1e-3)


def test_known_value() -> None:
    assert epsilon_pld([("a", 1.0, 1.0, 1)], 1e-5) == pytest.approx(4.377, abs=0.001)


@pytest.mark.parametrize("events", GRID)
def test_both_accountants_agree(events: list[Event]) -> None:
    pld, prv = epsilon_pld(events, 1e-5), epsilon_prv(events, 1e-5)
    assert abs(pld - prv) <= 0.03
    assert checked_epsilon(events, 1e-5) == pld


def test_rounds_add_up() -> None:
    """A fresh engine each round is the classic error: it goes on reporting what one round cost."""
    one, ten = (epsilon_pld([("a", 0.5, 1.7, 1)] * rounds, 1e-5) for rounds in (1, 10))
    assert ten > 2 * one
    assert ten == pytest.approx(epsilon_prv([("a", 0.5, 1.7, 10)], 1e-5), abs=0.03)
    assert ten == epsilon_pld([("a", 0.5, 1.7, 10)], 1e-5)


def test_sampling_amplifies_and_everybody_does_not() -> None:
    whole, half = (epsilon_pld([("a", prob, 2.0, 10)], 1e-5) for prob in (1.0, 0.5))
    assert half < 0.8 * whole
    almost = epsilon_pld([("a", 1 - 1e-9, 2.0, 10)], 1e-5)
    assert almost == pytest.approx(whole, abs=0.01)


def test_nothing_costs_nothing() -> None:
    assert epsilon_pld([], 1e-5) == epsilon_prv([], 1e-5) == checked_epsilon([], 1e-5) == 0.0


@pytest.mark.parametrize("noise", [0.02, 1e-3, 1e-9])
def test_tiny_noise_is_a_large_finite_figure_at_once(noise: float) -> None:
    assert 0.5 / noise**2 < epsilon_pld([("a", 1.0, noise, 10)], 1e-5) < math.inf


def test_accountants_that_disagree_stop_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounting, "epsilon_prv", lambda events, delta: epsilon_pld(events, delta) + 0.031)
    with pytest.raises(PrivacyError, match="disagree"):
        checked_epsilon(GRID[0], 1e-5)
    assert checked_epsilon(GRID[0], 1e-5, tolerance=None) == epsilon_pld(GRID[0], 1e-5)


def test_an_accountant_that_says_nan_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounting, "epsilon_prv", lambda events, delta: math.nan)
    with pytest.raises(PrivacyError, match="disagree"):
        checked_epsilon(GRID[0], 1e-5)


def test_a_missing_accountant_is_a_named_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opacus.accountants", None)
    with pytest.raises(PrivacyError, match="not installed"):
        epsilon_prv([("a", 1.0, 1.2345, 1)], 1e-5)


def test_wrong_events_are_refused_all_at_once() -> None:
    with pytest.raises(PrivacyError) as caught:
        epsilon_pld([("a", 1.5, 1.0, 1), ("b", 0.5, -1.0, 0)], 2.0)
    assert "4 problems" in caught.value.problem


@pytest.mark.parametrize("epsilon", [0.5, 2.0, 8.0, 20.0])
def test_calibration_hits_its_target_from_below(epsilon: float) -> None:
    plan = calibrate(SHARES, epsilon, 1e-4, "inspect", 1)
    assert epsilon - 0.05 < epsilon_pld(plan.events(), 1e-4) <= epsilon


def test_calibrated_noise_follows_the_shares() -> None:
    plan = calibrate(SHARES, 8.0, 1e-4, mode="secagg", quorum=4)
    weights = [p.total_steps * (p.sampling_prob / p.noise_multiplier) ** 2 for p in plan.parts]
    assert [w / sum(weights) for w in weights] == pytest.approx([0.2, 0.7, 0.1])
    assert [p.l2_clip_norm for p in plan.parts] == [1.0, 0.3, 0.1]
    assert (plan.mode, plan.quorum, plan.delta, plan.unit) == ("secagg", 4, 1e-4, "user")


def test_calibration_refuses_wrong_figures_all_at_once() -> None:
    with pytest.raises(PrivacyError) as caught:
        calibrate([("a", 0, 1.0, 1.0, 0.5), ("b", 1, 2.0, 1.0, -0.5)], -1.0, 1e-5, "inspect", 1)
    assert "4 problems" in caught.value.problem
    with pytest.raises(PrivacyError, match="delta"):
        calibrate(SHARES, 1.0, 0.0, "inspect", 1)
    with pytest.raises(PrivacyError, match="empty"):
        calibrate([], 1.0, 1e-5, "inspect", 1)
