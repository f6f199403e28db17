"""Popularity taken out: weights against their definition, and a world in which everything but exposure is alike."""

import numpy as np
import pytest

from fedrec.data.splits import EvaluationSplit
from fedrec.errors import DataError
from fedrec.evaluation.debiased import fit_power, propensity_weights, weighted_mean
from fedrec.evaluation.protocol import evaluate_users
from fedrec_sim.causal.popular import targets_of

COUNTS = np.array([0, 1, 10, 100, 1000])


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_the_power_that_made_the_targets_is_found(power: float) -> None:
    chances = (COUNTS + 1.0) ** power
    targets = np.random.default_rng(1).choice(5, size=20_000, p=chances / chances.sum())
    assert fit_power(targets, COUNTS) == pytest.approx(power, abs=0.03)


def test_weights_undo_exposure() -> None:
    """Whether an item is found depends on the item alone, so the debiased mean is that over items."""
    found, chances = np.array([1.0, 0.0, 0.0, 1.0, 1.0]), COUNTS + 1.0
    targets = np.random.default_rng(2).choice(5, size=200_000, p=chances / chances.sum())
    plain = weighted_mean(found[targets], propensity_weights(targets, COUNTS, 0.0), 10, np.random.default_rng(1))
    full = weighted_mean(found[targets], propensity_weights(targets, COUNTS, 1.0), 10, np.random.default_rng(1))
    assert plain.value == pytest.approx(found[targets].mean())
    assert plain.value > 0.95
    assert full.value == pytest.approx(0.6, abs=0.03)
    assert full.low <= full.value <= full.high


def test_targets_stand_in_the_order_of_the_evaluated_users() -> None:
    class Last:
        def score(self, histories: list[np.ndarray]) -> np.ndarray:
            return np.tile(np.arange(5, dtype=np.float32), (len(histories), 1))

    def split(user: str, *items: int) -> EvaluationSplit:
        codes = np.array(items, np.int32)
        return EvaluationSplit(user, codes[:-2], codes[-2:-1], codes[-1:])

    splits = [split("a", 0, 1, 4), split("b", 0, 1, 0), split("c", 2, 3, 1)]  # b is asked for what it has
    users = evaluate_users(Last(), splits, "test", n_items=5, tie_seed=1)
    assert users.positions.tolist() == [0, 2]
    assert targets_of(splits, "test").tolist() == [4, 1]


def test_targets_outside_the_counts_are_refused() -> None:
    for targets in (np.array([5]), np.array([-1]), np.array([], np.int64)):
        with pytest.raises(DataError, match="targets"):
            propensity_weights(targets, COUNTS, 1.0)
