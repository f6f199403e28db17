"""A head trained by partners of one process: over Flower's messages, from ledgers, with and without masks."""

from pathlib import Path

import numpy as np
import pytest

from fedrec.aggregation.server_optimizer import ServerOptimizer
from fedrec.errors import PrivacyError, QuorumError
from fedrec.tasks.click import Click
from fedrec.tasks.examples import TaskExamples
from fedrec.tasks.terms import TaskTerms
from fedrec.tasks.training import PlainWork
from fedrec_sim.pooled_ledgers import LedgerPool, PooledLedger
from fedrec_sim.tasks.federation import federate_head
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
    if promise:
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
