"""A head trained by partners of one process: over Flower's messages, from ledgers, with and without masks."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedrec.aggregation.server_optimizer import ServerOptimizer
from fedrec.data.datasets import load_data
from fedrec.data.interactions import InteractionTable
from fedrec.errors import PrivacyError, QuorumError
from fedrec.model.adapter import AdapterState
from fedrec.tasks.click import Click
from fedrec.tasks.examples import TaskExamples
from fedrec.tasks.head import HeadShape
from fedrec.tasks.item_part import ItemPart
from fedrec.tasks.own_rows import OwnRows, TasteRows
from fedrec.tasks.rating import Rating
from fedrec.tasks.taste import PublicTaste
from fedrec.tasks.terms import TaskTerms
from fedrec.tasks.training import PlainWork
from fedrec_sim.pooled_ledgers import LedgerPool, PooledLedger
from fedrec_sim.tasks.federation import federate_head
from fedrec_sim.tasks.protocols import tallrec_windows
from fedrec_sim.tasks.rounds import TaskPromise, TaskRounds

TERMS = TaskTerms.fresh(Click(), 3, inputs="made", inputs_hash="0" * 64)
ROUNDS = TaskRounds(3, ServerOptimizer("sgd", 2.0, 0.0), PlainWork(0.3, most_rows=8))
TRUTH = np.array([1.0, -1.0, 0.5])


def shares(partners: int = 4, users: int = 40, seed: int = 0) -> list[TaskExamples]:
    rng = np.random.default_rng(seed)
    inputs = rng.standard_normal((partners, users * 5, 3))
    return [TaskExamples.of(x, x @ TRUTH > 0, np.arange(users * 5) // 5) for x in inputs]


def auc(trained: object) -> float:
    x = np.random.default_rng(9).standard_normal((500, 3)).astype(np.float32)
    predictions = trained.predict(x)  # type: ignore[attr-defined]
    return Click().figures((x @ TRUTH > 0).astype(np.float32), predictions, np.zeros(500, int))["auc"]


@pytest.mark.parametrize("mode", ["none", "inspect", "secagg"])
def test_partners_learn_together(mode: str, tmp_path: Path) -> None:
    promise = None if mode == "none" else TaskPromise(8.0, 1e-3, mode)  # type: ignore[arg-type]
    events: list[dict[str, object]] = []
    trained = federate_head(
        TERMS, shares(), ROUNDS, run="r", seed=1, promise=promise, folder=tmp_path, on_event=events.append
    )
    assert auc(trained) > 0.9
    assert trained.statement["mode"] == mode
    assert sum(event["event"] == "round_committed" for event in events) == 3
    if promise and mode == "inspect":
        ledger = PooledLedger(LedgerPool(tmp_path / "ledger.pool"), partner="partner-1", dataset="r")
        assert ledger.spent()[0] == pytest.approx(trained.statement["epsilon"], abs=0.05)
        assert 7.9 < trained.statement["epsilon"] <= 8
        again = federate_head(TERMS, shares(), ROUNDS, run="r", seed=1, promise=promise)
        assert again.state.hash == trained.state.hash


def test_a_partner_without_rows_takes_part_all_the_same() -> None:
    none = TaskExamples.of(np.zeros((0, 3)), np.zeros(0), np.zeros(0))
    for promise in (None, TaskPromise(8.0, 1e-3)):
        assert federate_head(TERMS, [*shares(2), none], ROUNDS, run="r", seed=1, promise=promise).state.is_finite


def test_a_delta_that_users_outnumber_is_refused() -> None:
    with pytest.raises(PrivacyError, match="one over 160 users"):
        federate_head(TERMS, shares(), ROUNDS, run="r", seed=1, promise=TaskPromise(8.0, 0.01))


def test_other_inputs_than_agreed_stop_the_round_and_not_the_process() -> None:
    wrong = [TaskExamples.of(s.inputs[:, :2], s.targets, s.user_of_row) for s in shares(2)]
    with pytest.raises(QuorumError, match="partner-1"):
        federate_head(TERMS, wrong, ROUNDS, run="r", seed=1)


@pytest.mark.parametrize("mode", ["none", "secagg"])
def test_items_are_asked_about_before_the_head_is_trained(mode: str) -> None:
    rng = np.random.default_rng(0)
    quality = np.where(np.arange(12) < 6, 0.8, -0.8)
    taste = PublicTaste(np.zeros(12), np.ones((12, 1)) * 0.1, 0.2, np.ones((12, 1)), "made")

    def own() -> OwnRows:
        items = rng.permutation(12)[:6].astype(np.int32)
        return OwnRows(items, quality[items] + 0.1 * rng.standard_normal(6))

    partners = [TasteRows(taste, tuple(own() for _ in range(60))) for _ in range(4)]
    state = AdapterState(
        {"task.outer.weight": np.array([[1, 0]], np.float32), "task.outer.bias": -3 * np.ones(1, "f4")}
    )
    terms = TaskTerms(Rating(), HeadShape(2, 1), state, "taste", "0" * 64, items=ItemPart(1, 0.8), n_items=12)
    promise = None if mode == "none" else TaskPromise(8.0, 1e-3, "secagg")
    trained = federate_head(terms, partners, replace(ROUNDS, rounds=1), run="i", seed=1, promise=promise)
    moved = trained.terms.corrected(taste, trained.state).mean
    assert np.corrcoef(moved, quality)[0, 1] > 0.95


@pytest.mark.real
def test_tallrecs_windows_are_its_own() -> None:
    _, table = load_data("ml-100k", lambda _: None)
    assert isinstance(table, InteractionTable)
    cut = tallrec_windows(table)
    likes = [int(sum(user.answers.sum() for user in part)) for part in (cut.validation, cut.test)]
    assert likes == [658, 528]
    assert [len(part) for part in (cut.train, cut.validation, cut.test)] == [80, 14, 16]
    assert sum(len(user.asked) for user in cut.train) == 8000
