"""The gate behind sums of which nobody sees the parts: a version that is worth much less is not served for long."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fedrec.aggregation.server_optimizer import ServerOptimizer
from fedrec.config import ModelConfig, ShapeConfig
from fedrec.errors import ConfigError
from fedrec.model.adapter import AdapterState
from fedrec.terms import FORMAT, FederationTerms, ModelTerms, WorkTerms
from fedrec_server.rounds.federation import Federation
from fedrec_server.rounds.schedule import RoundSpec
from fedrec_server.settings import Coordinator, make_coordinator
from fedrec_server.state.quality_book import Quality, QualityBook
from fedrec_server.state.store import PAUSED, Office
from fedrec_sim.version_quality import roll_back_below

NOTHING = "0" * 64


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Coordinator]:
    ports = {"GATEWAY_PORT": 9001, "SUPERLINK_PORT": 9002, "ADMIN_PORT": 9003}
    made = Coordinator(make_coordinator(tmp_path / "place", name="films", hosts=("localhost",), ports=ports).folder)
    initial = AdapterState({"w": np.zeros(3, np.float32)})
    hashes = {"backbone_hash": NOTHING, "catalog_hash": NOTHING, "feature_hash": NOTHING}
    terms = FederationTerms(
        format=FORMAT,
        name="films",
        mode="none",
        privacy_plan=None,
        model=ModelTerms(config=ModelConfig(), shape=ShapeConfig(), **hashes),
        work=WorkTerms(max_history=5, weight_decay=0.0, batch_users=8),
        parts={"head": {"w": (3,)}},
        initial_hash=initial.hash,
        seed=1,
    )
    schedule = (RoundSpec("head", 1, 1, 1.0, ServerOptimizer("sgd", 1.0)),) * 7
    made.use(Federation(terms, schedule, {}, initial, b"PAR1"))
    yield made
    made.database.close()


def commit(coordinator: Coordinator, *ndcg: float | None) -> None:
    """Versions from round 0 on, with what they were measured to be worth."""
    for number, value in enumerate(ndcg):
        head = coordinator.registry.head()
        version = coordinator.registry.commit(
            AdapterState({"w": np.full(3, number, np.float32)}),
            round=number,
            parent=head.adapter_hash if head else "",
            mode="none",
            statement={},
            server_state={},
        )
        if value is not None:
            book = QualityBook(coordinator.database)
            book.note(Quality(version.adapter_hash, "published", "B", 100, value, value), who="test")


def test_a_version_that_fell_below_the_gate_makes_room_for_the_best_one(coordinator: Coordinator) -> None:
    commit(coordinator, 0.02, 0.10, 0.09, 0.07)
    done = roll_back_below(coordinator, "published", 0.8)
    assert done == {"rolled_back_from": 3, "to": 1, "ndcg": 0.07, "best_ndcg": 0.10}
    assert coordinator.registry.head_round() == 1
    assert Office(coordinator.database).setting(PAUSED) == "yes"


@pytest.mark.parametrize("newest", [0.081, 0.1, 0.2])
def test_a_version_at_the_gate_or_above_stays(coordinator: Coordinator, newest: float) -> None:
    commit(coordinator, 0.02, 0.10, newest)
    assert roll_back_below(coordinator, "published", 0.8) is None
    assert (coordinator.registry.head_round(), Office(coordinator.database).setting(PAUSED)) == (2, "")


def test_what_was_not_measured_is_not_judged(coordinator: Coordinator) -> None:
    commit(coordinator, 0.02, 0.10, None)
    with pytest.raises(ConfigError, match="not measured"):
        roll_back_below(coordinator, "published", 0.8)
    assert coordinator.registry.head_round() == 2


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, float("nan")])
def test_no_share_is_refused(coordinator: Coordinator, share: float) -> None:
    commit(coordinator, 0.1)
    with pytest.raises(ConfigError, match="gate"):
        roll_back_below(coordinator, "published", share)
