"""The thin ClientApp: what a failure on a partner tells the coordinator, and what it keeps to itself."""

import logging
from typing import Any

import numpy as np
import pytest
from flwr.app import RecordDict
from flwr.supercore.run import Run

from fedrec.errors import BudgetError, FedrecError, LedgerError, RunError
from fedrec.model.adapter import AdapterState
from fedrec.wire import QUESTION, RoundPlan
from fedrec_client.app import app
from fedrec_client.link import register
from fedrec_server.rounds.records import question
from fedrec_sim.grid import InProcessGrid


class Failing:
    """A worker that cannot answer."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def train(self, *_: Any) -> Any:
        raise self.error


def reason(error: Exception) -> str:
    """What the coordinator hears of an error in the worker."""
    register("failing", Failing(error))
    grid = InProcessGrid(app, {2: "failing"}, Run.create_empty(1))
    plan = RoundPlan(
        run="r",
        round=1,
        attempt=1,
        part="head",
        local_epochs=1,
        local_steps=1,
        learning_rate=1.0,
        parent_hash="h",
        privacy_plan_hash="none",
        mode="none",
        quorum=1,
        deadline_s=1.0,
        seed=1,
    )
    content = RecordDict({QUESTION: question(plan, AdapterState({"w": np.ones(1, np.float32)}))})
    (reply,) = grid.send_and_receive([grid.create_message(content, "train", 2, "1")])
    assert reply.has_error()
    return str(reply.error.reason)


def test_a_refusal_tells_its_reason() -> None:
    assert reason(BudgetError("nothing remains")) == "BudgetError: nothing remains"


@pytest.mark.parametrize(
    "error",
    [
        ValueError("user 7 bought a ring"),
        RunError("/home/anna/ledger.sqlite: in use"),
        LedgerError("/home/anna/ledger.sqlite: a copy, in use elsewhere"),
    ],
)
def test_of_any_other_failure_only_the_class_leaves(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        assert reason(error) == type(error).__name__
    assert "a ring" not in caplog.text
    assert isinstance(error, FedrecError) == ("in use" in caplog.text)
