"""A worker's integers for a sum under masks: paid for first, and with noise that no two sums share."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fedrec.errors import PrivacyError
from fedrec.model.adapter import AdapterState
from fedrec.model.backbone import load_backbone
from fedrec.model.features import ItemFeatures
from fedrec.model.recommender import AdapterShape, build_model, read_state
from fedrec.privacy.integer_code import IntegerCode
from fedrec.privacy.plan import PartPlan, PrivacyPlan
from fedrec.training.local import PlainSettings
from fedrec.wire import RoundPlan
from fedrec_client.worker import PartnerData, Worker

PLAN = PrivacyPlan("user", "secagg", 1e-5, (PartPlan("head", 1.0, 1.0, 20.0, 3),), quorum=2, dishonest=1)
# A head of 1,008 numbers, so that the spread of one draw says within a few percent how much noise there is.
SHAPE = AdapterShape(rank=2, item_dim=0, summary_dim=8, context_dim=102, score_dim=8)
CODE = IntegerCode.of(PLAN, "head", 4, range_users=20)


@pytest.fixture
def made(
    tiny_llama: Path, features: ItemFeatures, histories: list[np.ndarray], make_ledger: Any, tmp_path: Path
) -> tuple[Worker, AdapterState]:
    model = build_model(load_backbone(tiny_llama, 2, torch.device("cpu"), torch.float32), features, SHAPE, seed=1)
    ledger = make_ledger(tmp_path / "ledger.json", epsilon=50.0)
    settings = PlainSettings(1e-3, 0.0, 8, 50)
    return Worker("shop", model, PartnerData.of(histories), PLAN, ledger, bytes(32), settings), read_state(model)


def vector_of(made: tuple[Worker, AdapterState], session: bytes, attempt: int = 1) -> NDArray[np.int64]:
    worker, state = made
    values = ("films/1", 1, attempt, "head", 1, 1, 0.5, state.hash, PLAN.hash, "secagg", 3, 60.0, 1)
    return worker.integers(RoundPlan(*values), state, CODE, session)


def test_two_sums_of_one_attempt_share_no_noise_and_are_both_paid_for(made: tuple[Worker, AdapterState]) -> None:
    """Noise that two sums share would cancel in their difference; a session says which sum it is."""
    one, same, other = (vector_of(made, bytes([number]) * 32) for number in (1, 1, 2))
    assert np.array_equal(one, same)  # the same question has the same answer, and costs nothing more
    apart = (one - other) * CODE.grain
    assert apart.std() == pytest.approx(np.sqrt(2) * PLAN.noise_std("head"), rel=0.15)
    third = vector_of(made, bytes([3]) * 32)
    assert len({vector.tobytes() for vector in (one, other, third)}) == 3
    with pytest.raises(PrivacyError, match="the plan has 3 steps, 3 are paid for"):
        vector_of(made, bytes([4]) * 32)
