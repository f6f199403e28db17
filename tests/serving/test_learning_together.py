"""Watch, promotion and scheduler beside a service that answers."""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fedrec.model.features import ItemFeatures
from fedrec_client.serving.learning.learning import Coordination, Learning
from fedrec_client.serving.learning.periodic import periodically
from fedrec_client.serving.learning.promotion import Sources
from fedrec_client.serving.learning.promotion_record import Candidate
from fedrec_client.serving.learning.scheduler import Budget
from fedrec_client.serving.records import Event, Query
from fedrec_client.serving.service import Served, Service
from tests.serving.conftest import Place, live_model


def test_a_newer_adapter_takes_over_while_lists_are_asked_for(
    make_place: Callable[..., Place], served: Served, tiny_llama: Path, features: ItemFeatures
) -> None:
    first = Candidate("round-0001", "1" * 64, lambda: b"1")
    held = [first]
    asked: list[float] = []
    other = live_model(tiny_llama, features, "round-0002", seed=2)
    sources = Sources(lambda: held[0], lambda _: other.branch())

    async def work(service: Service) -> None:
        one = service.of("default")
        await one.intake.add_events(
            [Event("like", item, user="anna", timestamp=1.0 + k) for k, item in enumerate(served.catalog.ids[:4])]
        )
        coordination = Coordination(lambda: Budget(8, 1), lambda: asked.append(time.time()))
        learning = Learning(service, first, sources, coordination, every_s=0.02)
        await learning.start()
        held[0] = Candidate("round-0002", "2" * 64, lambda: b"2")
        async with asyncio.timeout(20):
            while (await one.lists.recommend(Query("anna"))).adapter != "round-0002":
                await asyncio.sleep(0.01)
        while learning.watches["default"].n_events < 4:
            await asyncio.sleep(0.01)
        while learning.promotion.record.before is None:  # written down a moment after it serves
            await asyncio.sleep(0.01)
        learning.forget("default", "anna")
        await learning.close()
        assert learning.promotion.record.serving is not None
        assert learning.promotion.record.serving.version == "round-0002"
        assert asked == []

    make_place(learning={"rounds": True}).run(work)


def test_what_fails_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    tried: list[int] = []

    async def work() -> None:
        tried.append(1)
        raise ValueError("no")

    async def main() -> None:
        task = asyncio.create_task(periodically("work", work, 0.0))
        while len(tried) < 3:
            await asyncio.sleep(0)
        task.cancel()

    with caplog.at_level(logging.ERROR):
        asyncio.run(main())
    assert "work failed" in caplog.text
