"""A node's service and the rounds: wishes before there is any adapter, and a first adapter that needs no replay."""

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fedrec.model.features import ItemFeatures
from fedrec.privacy.ledger import PrivacyLedger
from fedrec.privacy.plan import PartPlan, PrivacyPlan
from fedrec.recommend.live_model import LiveModel
from fedrec_client.agreement import Agreement
from fedrec_client.node import SERVING_PATIENCE_S
from fedrec_client.serve_node import NodeModels
from fedrec_client.serving.http.metrics import ServingMetrics
from fedrec_client.serving.http.server import GRACE_S
from fedrec_client.serving.learning.learning import Learning
from fedrec_client.serving.learning.promotion_record import Candidate
from fedrec_client.serving.learning.scheduler import Budget, Decision, decide
from fedrec_client.serving.learning.scheduler import Situation as Seen
from fedrec_client.serving.service import Service
from fedrec_client.serving.settings import LearningSettings
from fedrec_client.settings import Node
from tests.serving.conftest import Place, live_model

PARTS = (PartPlan("prior", 1.0, 1.0, 1.5, 1), PartPlan("head", 1.0, 1.0, 1.3, 3))
PLAN = PrivacyPlan("user", "inspect", 1e-5, PARTS, quorum=1)


class Models(NodeModels):
    """A node that wishes into a list, and holds what the test says."""

    held: Candidate | None = None
    other: LiveModel
    wishes: int = 0

    def newest(self) -> Candidate | None:
        return self.held

    def make(self, candidate: Candidate | None) -> LiveModel:
        return self.other.branch()

    def _cost(self) -> Budget | None:
        return Budget(8.0, 1.0)

    def _wish(self) -> None:
        self.wishes += 1


def test_the_first_round_is_wished_for_before_there_is_an_adapter(
    make_place: Callable[..., Place],
    tiny_llama: Path,
    features: ItemFeatures,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where rounds wait for a wish, nothing else could bring the first adapter."""
    monkeypatch.setattr("fedrec_client.serve_node.Learning", partial(Learning, every_s=0.02))
    place = make_place(learning={"rounds": True, "every_hours": 1e-6})
    models = Models(Node(tmp_path), cast(Agreement, None), place.settings)
    models.other = live_model(tiny_llama, features, "round-0001", seed=2)

    async def work(service: Service) -> None:
        live = asyncio.create_task(models.live(service, ServingMetrics(lambda: None)))
        async with asyncio.timeout(20):
            while not models.wishes:
                await asyncio.sleep(0.01)
            models.held = Candidate("round-0001", "1" * 64, lambda: b"1")
            while service.version != "round-0001" or not (tmp_path / "promotion.json").exists():
                await asyncio.sleep(0.01)
        live.cancel()
        await asyncio.wait([live])

    place.run(work)


def node_of(ledger: Path) -> NodeModels:
    agreement = cast(Agreement, SimpleNamespace(terms=SimpleNamespace(plan=PLAN, name="films")))
    return NodeModels(cast(Node, SimpleNamespace(ledger=ledger)), agreement, cast(Any, None))


def test_a_round_that_the_ledger_would_pay_is_wished_for(tmp_path: Path, make_ledger: Any) -> None:
    """Epsilons do not add up: the last round of a plan costs much less than it would alone."""
    ledger: PrivacyLedger = make_ledger(tmp_path / "ledger.sqlite", epsilon=8.0)
    models = node_of(ledger.path)
    settings = LearningSettings(rounds=True, every_hours=1.0)
    for number, part in enumerate((PARTS[0], PARTS[1], PARTS[1], PARTS[1])):
        assert decide(settings, Seen(7200.0, 0.0, 0, False, models._cost(), 0.0)) == Decision(True, "time"), number
        charge = {"sampling_prob": 1.0, "noise_multiplier": part.noise_multiplier, "steps": 1}
        ledger.reserve(
            f"e{number}", plan_hash=PLAN.hash, run="films/1", part=part.part, most_steps=part.total_steps, **charge
        )  # type: ignore[arg-type]
    assert decide(settings, Seen(7200.0, 0.0, 0, False, models._cost(), 0.0)).reason == "budget spent"


def test_the_service_is_given_longer_to_end_than_it_gives_its_callers() -> None:
    assert SERVING_PATIENCE_S >= GRACE_S + 10


def test_nothing_is_wished_for_where_the_ledger_cannot_be_read(tmp_path: Path) -> None:
    models = node_of(tmp_path / "none.sqlite")
    assert models._cost() is None
    assert models.budget() is None
