"""The audit of a whole training by canaries: its arithmetic, and a real worker on a tiny model, honest and not."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedrec.aggregation.server_optimizer import ServerOptimizer
from fedrec.model.backbone import load_backbone
from fedrec.model.features import ItemFeatures
from fedrec.model.recommender import AdapterShape, build_model, read_state
from fedrec.privacy import gradients
from fedrec.privacy.plan import calibrate
from fedrec.training.local import PlainSettings
from fedrec_server.rounds.schedule import RoundSpec
from fedrec_sim.audit.canaries import CanaryAudit, epsilon_of_guesses, guess_canaries, with_canaries
from fedrec_sim.audit.shadows import Stage

SHAPE = AdapterShape(rank=2, item_dim=0, summary_dim=8, context_dim=6, score_dim=8)
ROOT = bytes(range(32))


def test_without_delta_all_right_is_the_bound_by_hand() -> None:
    """Accuracy a of every guess: a**guessed = .05."""
    accuracy = 0.05 ** (1 / 40)
    expected = math.log(accuracy / (1 - accuracy))
    assert epsilon_of_guesses(100, 40, 40, delta=0.0) == pytest.approx(expected, abs=1e-6)


def test_chance_proves_nothing_and_more_right_guesses_prove_more() -> None:
    assert epsilon_of_guesses(100, 40, 20, 1e-5) == 0.0
    assert epsilon_of_guesses(100, 40, 0, 1e-5) == 0.0
    bounds = [epsilon_of_guesses(100, 40, correct, 1e-5) for correct in range(28, 41)]
    assert bounds == sorted(bounds)
    assert bounds[-1] > 2


def test_a_delta_that_explains_the_guesses_leaves_less_to_prove() -> None:
    assert epsilon_of_guesses(100, 40, 38, 1e-2) < epsilon_of_guesses(100, 40, 38, 1e-6)


def test_the_bound_holds_for_randomised_response() -> None:
    """Each coin told rightly with probability e/(1+e), which is exactly 1-private: above it in at most 5% of runs."""
    rng = np.random.default_rng(3)
    correct = rng.binomial(200, math.e / (1 + math.e), size=400)
    bounds = {int(c): epsilon_of_guesses(200, 200, int(c), 0.0) for c in set(correct.tolist())}
    above = sum(bounds[int(c)] > 1.0 for c in correct)
    assert above <= 400 * 0.05 + 3 * math.sqrt(400 * 0.05 * 0.95)
    assert np.mean([bounds[int(c)] for c in correct]) > 0.6


@pytest.fixture
def crowd(tiny_llama: Path, features: ItemFeatures, histories: list[np.ndarray]) -> Callable[[float], Stage]:
    """12 real users and 60 canaries, under a plan of an epsilon."""
    model = build_model(load_backbone(tiny_llama, 2, torch.device("cpu"), torch.float32), features, SHAPE, seed=1)

    def stage_at(epsilon: float) -> Stage:
        shares = [("prior", 1, 1.0, 1.0, 0.5), ("head", 3, 1.0, 0.1, 0.5)]
        plan = calibrate(shares, epsilon, 1e-5, "inspect", 1)
        sgd = ServerOptimizer("sgd", 0.1, 0.0)
        specs = [RoundSpec(part, 1, 1, 1.0, sgd) for part in ("prior", "head", "head", "head")]
        real = Stage(
            model, read_state(model), tuple(histories[:12]), tuple(specs), plan, PlainSettings(1e-3, 0.0, 8, 50)
        )
        return with_canaries(real, 60, seed=2)

    return stage_at


def audited(stage: Stage) -> CanaryAudit:
    coins = np.random.default_rng(5).random(60) < 0.5
    return guess_canaries(stage, 12, coins, ROOT, "tiny")


def test_an_honest_training_keeps_its_promise(crowd: Callable[[float], Stage]) -> None:
    audit = audited(crowd(1.0))
    assert audit.passed
    assert audit.epsilon_provable > audit.epsilon_claimed  # else it could not fail
    assert (audit.canaries, audit.guessed) == (60, 15)
    assert 0.97 < audit.epsilon_claimed <= 1.0


def test_a_training_that_forgets_most_of_its_noise_is_found_out(
    crowd: Callable[[float], Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = gradients.add_noise
    monkeypatch.setattr(gradients, "add_noise", lambda total, std, source: real(total, 0.02 * std, source))
    audit = audited(crowd(0.5))
    assert not audit.passed
    assert audit.correct >= 13  # 60 canaries in a catalogue of 40 items overlap
    assert audit.to_dict()["passed"] is False


def test_canaries_come_after_the_real_users_and_are_like_nobody(crowd: Callable[[float], Stage]) -> None:
    pool: Any = crowd(1.0).pool
    assert len(pool) == 72
    assert len({tuple(history.tolist()) for history in pool[12:]}) == 60
