"""Estimators against a row-by-row oracle, and against truths that are known exactly."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrec.errors import ConfigError, DataError
from fedrec.evaluation.off_policy import (
    CLIPS,
    ESTIMATORS,
    Estimator,
    Evidence,
    choose_clip,
    effective_size,
    estimate_all,
    resample,
    terms_of,
)

RATES = np.array([0.1, 0.3, 0.6])
LOGGING = np.array([0.6, 0.3, 0.1])
TARGET = np.array([0.1, 0.2, 0.7])
TRUTH = float(TARGET @ RATES)
NAIVE = float(LOGGING @ RATES)


def simulate(n: int, seed: int, logging: np.ndarray = LOGGING, model: np.ndarray = RATES) -> Evidence:
    generator = np.random.default_rng(seed)
    actions = generator.choice(3, size=n, p=LOGGING)
    rewards = (generator.random(n) < RATES[actions]).astype(float)
    return Evidence(rewards, TARGET[actions], logging[actions], model[actions], np.full(n, TARGET @ model))


def oracle(name: Estimator, e: Evidence, clip: float) -> float:
    """One row at a time."""
    total, weight, base = 0.0, 0.0, 0.0
    for r, target, logged, q, t in zip(e.rewards, e.target, e.logged, e.predicted, e.expected, strict=True):
        w = target / logged
        match name:
            case "naive":
                total, weight = total + r, weight + 1
            case "ips":
                total, weight = total + w * r, weight + 1
            case "snips":
                total, weight = total + w * r, weight + w
            case "clipped":
                total, weight = total + min(w, clip) * r, weight + min(w, clip)
            case "dm":
                base, weight = base + t, weight + 1
            case "dr":
                total, weight, base = total + w * (r - q), weight + 1, base + t
    return base / len(e.rewards) + total / weight


@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimators_equal_a_sum_over_rows(name: Estimator) -> None:
    evidence = simulate(200, 1, model=np.array([0.2, 0.2, 0.5]))
    assert terms_of(name, evidence, 3.0).value() == pytest.approx(oracle(name, evidence, 3.0))


def mean_of(name: Estimator, clip: float = np.inf, **changes: np.ndarray) -> float:
    return float(np.mean([terms_of(name, simulate(2000, seed, **changes), clip).value() for seed in range(60)]))


def test_weights_find_what_the_log_hides() -> None:
    assert mean_of("naive") == pytest.approx(NAIVE, abs=0.005)
    for name in ("ips", "snips", "dr"):
        assert mean_of(name) == pytest.approx(TRUTH, abs=0.01), name
    assert NAIVE + 0.05 < mean_of("clipped", clip=2.0) < TRUTH - 0.02


def test_doubly_robust_needs_only_one_of_the_two_to_be_right() -> None:
    wrong_model, wrong_propensities = np.array([0.9, 0.1, 0.2]), np.array([0.2, 0.3, 0.5])
    assert mean_of("dr", model=wrong_model) == pytest.approx(TRUTH, abs=0.02)
    assert mean_of("dr", logging=wrong_propensities) == pytest.approx(TRUTH, abs=0.01)
    assert abs(mean_of("ips", logging=wrong_propensities) - TRUTH) > 0.1
    assert abs(mean_of("dm", model=wrong_model) - TRUTH) > 0.1
    assert abs(mean_of("dr", logging=wrong_propensities, model=wrong_model) - TRUTH) > 0.1


@given(shift=st.floats(0.0, 0.5), seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_snips_moves_with_the_rewards_and_ips_does_not(shift: float, seed: int) -> None:
    evidence = simulate(50, seed)
    halved = replace(evidence, rewards=evidence.rewards / 2)
    moved = replace(halved, rewards=halved.rewards + shift)
    for name in ("snips", "clipped"):
        before, after = (terms_of(name, one, 2.0).value() for one in (halved, moved))  # type: ignore[arg-type]
        assert after - before == pytest.approx(shift, abs=1e-9)
    by_ips = terms_of("ips", moved).value() - terms_of("ips", halved).value()
    assert by_ips == pytest.approx(shift * evidence.weights.mean(), abs=1e-9)


def test_judging_the_logging_policy_is_its_own_rate() -> None:
    evidence = simulate(300, 2)
    same = replace(evidence, target=evidence.logged)
    for name in ("naive", "ips", "snips", "clipped"):
        assert terms_of(name, same).value() == pytest.approx(same.rewards.mean())  # type: ignore[arg-type]


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    held, near = 0, 0
    for seed in range(100):
        terms = terms_of("snips", simulate(400, seed))
        low, high = np.percentile(resample({"snips": terms}, 200, np.random.default_rng(seed))["snips"], (2.5, 97.5))
        held += low <= TRUTH <= high
        near += abs(terms.value() - TRUTH) <= 1.96 * terms.standard_error()
    assert 88 <= held <= 99
    assert 88 <= near <= 99


def test_a_resampling_is_a_mean_over_drawn_rows() -> None:
    evidence = simulate(7, 3)
    drawn = resample({"ips": terms_of("ips", evidence)}, 5, np.random.default_rng(4))["ips"]
    rows = np.random.default_rng(4).integers(7, size=(5, 7))
    assert drawn == pytest.approx((evidence.weights * evidence.rewards)[rows].mean(axis=1))


def test_the_clip_is_low_where_noise_hides_bias_and_high_where_it_does_not() -> None:
    assert choose_clip(simulate(100, 5)) < 5
    assert choose_clip(simulate(200_000, 5)) >= 5
    with pytest.raises(ConfigError, match="decrease"):
        choose_clip(simulate(10, 1), CLIPS[::-1])


def test_thin_estimates_are_doubted_and_solid_ones_are_not() -> None:
    solid, _ = estimate_all(simulate(5000, 6), 100, np.random.default_rng(1))
    assert not any(one.doubts for one in solid.values())
    evidence = simulate(5000, 6)
    logged = evidence.logged.copy()
    logged[0] = 1e-7
    thin, _ = estimate_all(replace(evidence, logged=logged), 100, np.random.default_rng(1))
    for name in ("ips", "snips", "dr"):
        assert any("effective rows" in doubt for doubt in thin[name].doubts), name  # type: ignore[index]
    assert any("mean" in doubt for doubt in thin["ips"].doubts)
    assert not thin["naive"].doubts


@given(st.lists(st.floats(0.01, 100.0), min_size=1, max_size=30))
def test_effective_rows_lie_between_one_and_all(weights: list[float]) -> None:
    size = effective_size(np.array(weights))
    assert 1 - 1e-9 <= size <= len(weights) * (1 + 1e-9)
    assert effective_size(np.zeros(3)) == 0


def test_evidence_that_cannot_be_is_refused_at_once() -> None:
    one = np.array([0.5, 0.5])
    with pytest.raises(DataError) as refused:
        Evidence(np.array([2.0, 0.0]), np.array([0.1, -1.0]), np.array([0.0, np.nan]), one, one)
    assert all(word in str(refused.value) for word in ("rewards", "target", "propensities", "finite"))
    with pytest.raises(DataError, match="unequal"):
        Evidence(one, one, one, one, one[:1])
    with pytest.raises(ConfigError, match="clipped"):
        terms_of("clipped", simulate(5, 1), 0.0)
