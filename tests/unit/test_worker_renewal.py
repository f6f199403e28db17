"""A worker whose data change between rounds: new data in the next round, and no second price for a second attempt."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedrec.errors import PrivacyError
from fedrec.model.adapter import AdapterState
from fedrec.model.backbone import load_backbone
from fedrec.model.features import ItemFeatures
from fedrec.model.recommender import AdapterShape, build_model, read_state
from fedrec.privacy.plan import PartPlan, PrivacyPlan
from fedrec.training.local import PlainSettings
from fedrec.wire import RoundPlan
from fedrec_client.worker import PartnerData, Worker

PLAN = PrivacyPlan("user", "inspect", 1e-5, (PartPlan("head", 1.0, 1.0, 20.0, 3),), quorum=1)
SHAPE = AdapterShape(rank=2, item_dim=0, summary_dim=4, context_dim=6, score_dim=5)
Made = tuple[Worker, AdapterState]


@pytest.fixture
def made(
    tiny_llama: Path, features: ItemFeatures, histories: list[np.ndarray], make_ledger: Any, tmp_path: Path
) -> Made:
    model = build_model(load_backbone(tiny_llama, 2, torch.device("cpu"), torch.float32), features, SHAPE, seed=1)
    ledger = make_ledger(tmp_path / "ledger.json", epsilon=50.0)
    worker = Worker("shop", model, PartnerData.of(histories), PLAN, ledger, bytes(32), PlainSettings(1e-3, 0.0, 8, 50))
    return worker, read_state(model)


def answer(made: Made, number: int, attempt: int = 1) -> str:
    worker, state = made
    values = ("films/1", number, attempt, "head", 1, 1, 0.5, state.hash, PLAN.hash, "inspect", 1, 60.0, 1)
    return worker.train(RoundPlan(*values), state)[1].hash


def steps_paid(made: Made) -> float:
    assert made[0].ledger is not None
    return made[0].ledger.spent()[0]


def test_data_are_read_anew_for_each_round_and_not_for_its_attempts(made: Made, histories: list[np.ndarray]) -> None:
    worker, _ = made
    reads: list[int] = []

    def renew(_: RoundPlan) -> PartnerData:
        reads.append(len(reads))
        return PartnerData.of(histories[len(reads) :])  # somebody is deleted each time

    worker.renew = renew
    first = answer(made, 1)
    paid = steps_paid(made)
    assert answer(made, 1, attempt=2) == first
    assert (len(reads), steps_paid(made)) == (1, paid)
    answer(made, 2)
    assert len(reads) == 2
    assert steps_paid(made) > paid


def test_a_round_after_a_renewal_is_what_a_fresh_worker_answers(made: Made, histories: list[np.ndarray]) -> None:
    """What was kept of the users before must not be taken for the ones of now."""
    worker, state = made
    answer(made, 1)
    fewer = PartnerData.of(histories[5:])
    worker.renew = lambda _: fewer
    warm = answer(made, 2)
    fresh = Worker("shop", worker.model, fewer, PLAN, worker.ledger, bytes(32), worker.plain)
    assert answer((fresh, state), 2) == warm


def test_a_renewal_that_refuses_costs_nothing(made: Made) -> None:
    def refuse(_: RoundPlan) -> PartnerData:
        raise PrivacyError("comes while this node is paused")

    made[0].renew = refuse
    before = steps_paid(made)
    with pytest.raises(PrivacyError, match="paused"):
        answer(made, 1)
    assert steps_paid(made) == before


def test_a_plan_that_is_refused_makes_nobody_read_a_row(made: Made) -> None:
    worker, state = made
    worker.renew = lambda _: pytest.fail("rows were read")
    values = ("films/1", 1, 1, "head", 1, 1, 0.5, state.hash, "another plan", "inspect", 1, 60.0, 1)
    with pytest.raises(PrivacyError, match="another privacy plan"):
        worker.train(RoundPlan(*values), state)
