"""A node's service and the rounds: wishes before there is any adapter, and a first adapter that needs no replay."""

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

import pytest

from fedrec.model.features import ItemFeatures
from fedrec.recommend.live_model import LiveModel
from fedrec_client.agreement import Agreement
from fedrec_client.serve_node import NodeModels
from fedrec_client.serving.http.metrics import ServingMetrics
from fedrec_client.serving.learning.learning import Learning
from fedrec_client.serving.learning.promotion_record import Candidate
from fedrec_client.serving.learning.scheduler import Budget
from fedrec_client.serving.service import Service
from fedrec_client.settings import Node
from tests.serving.conftest import Place, live_model

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
