"""The step benchmark: four ways to the same step, compared with the oracle before they are timed."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fedrec.model.backbone import load_backbone
from fedrec.model.features import ItemFeatures
from fedrec.model.recommender import AdapterShape, build_model
from fedrec.training.local import PlainSettings
from fedrec_sim.bench_step import WAYS, StepBench, interleaved, peak_bytes, ratios
from fedrec_sim.bench_train import measure

SHAPE = AdapterShape(rank=2, item_dim=0, summary_dim=4, context_dim=6, score_dim=5)


@pytest.fixture
def bench(tiny_llama: Path, features: ItemFeatures, histories: list[np.ndarray]) -> StepBench:
    backbone = load_backbone(tiny_llama, 2, torch.device("cpu"), torch.float32)
    return StepBench.of(build_model(backbone, features, SHAPE, seed=3), histories[:12], 50)


def test_our_gradients_are_the_oracles(bench: StepBench) -> None:
    errors = bench.oracle_errors()
    assert errors["alone"] <= 1e-5
    assert errors["same_pass"] <= 1e-6


def test_a_wrong_gradient_shows(bench: StepBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedrec.privacy.capture._row_products", lambda g, x: 1.001 * g.transpose(1, 2) @ x)
    errors = bench.oracle_errors()
    assert errors["alone"] == pytest.approx(1e-3, rel=0.05)
    assert errors["same_pass"] == pytest.approx(1e-3, rel=0.05)


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("way", WAYS)
def test_every_way_steps_and_leaves_nothing_behind(bench: StepBench, way: str) -> None:
    before = torch.cat([p.detach().flatten().clone() for p in bench.parameters])
    bench.step(way)
    moved = (torch.cat([p.detach().flatten() for p in bench.parameters]) - before).abs().max()
    assert 0 < float(moved) < 1e-6
    assert all(p.grad is None and getattr(p, "grad_sample", None) is None for p in bench.parameters)


def test_ratios_are_of_pairs_not_of_medians() -> None:
    rounds = [{"ours": 1.0, "plain": 2.0}, {"ours": 9.0, "plain": 9.0}, {"ours": 30.0, "plain": 20.0}]
    assert ratios(rounds, over="plain")["median"] == 1.0


def test_each_way_steps_once_a_round_in_changing_order() -> None:
    steps: list[str] = []
    rounds = interleaved(steps.append, 20)
    assert len(rounds) == 20
    orders = [tuple(steps[i : i + len(WAYS)]) for i in range(0, len(steps), len(WAYS))]
    assert all(sorted(order) == sorted(WAYS) for order in orders)
    assert len(set(orders)) > 5


def test_memory_of_a_step_is_what_it_holds_at_once() -> None:
    """40 MB held, then given back; where the system does not say, nothing is claimed."""

    def hold(_: str) -> None:
        torch.ones(10_000_000).add_(1)

    peak = peak_bytes(hold, "any", torch.device("cpu"))
    assert peak is None or 35e6 < peak < 80e6


def test_training_is_timed_beside_the_machines_own_products(
    tiny_llama: Path, features: ItemFeatures, histories: list[np.ndarray]
) -> None:
    backbone = load_backbone(tiny_llama, 2, torch.device("cpu"), torch.float32)
    some, longest = histories[:6], 20
    settings = PlainSettings(1e-3, 0.0, batch_users=4, max_history=longest)
    found = measure(build_model(backbone, features, SHAPE, seed=3), some, settings, repeats=3)
    tokens = sum(min(len(history) - 1, longest) for history in some)
    assert (found["users"], found["tokens"]) == (6, tokens)
    assert found["tokens_per_s"] / found["users_per_s"] == pytest.approx(tokens / 6)
    assert found["matmul_share"] > 0
    # Scores of every item, and their two products backward, are among the operations of a head epoch.
    scores = 2 * tokens * SHAPE.score_dim * len(features.vectors)
    head, everything = (found["phases"][phase]["useful_operations"] for phase in ("head", "everything"))
    assert 2 * scores < head < everything
