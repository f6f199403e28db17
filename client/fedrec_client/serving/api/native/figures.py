"""How the service does: its figures of now, and which arm of an A/B did better. For the partner's own people."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi import Query as InQuery
from pydantic import Field

from fedrec.recommend.arms import DEFAULT, compare_arms
from fedrec_client.serving.api.native.forms import PROBLEMS, AskedInQuery, Desk, Timestamp, Told
from fedrec_client.serving.http.paths import Id
from fedrec_client.serving.service import TenantService
from fedrec_client.serving.store.click_book import ArmClicks

Epsilon = Callable[[], float | None]


class StatusTold(Told):
    """Figures of one tenant."""

    tenant: str
    adapter: str = Field(description="Version that is served from.", examples=["round-0031"])
    items: int = Field(description="That are there, hidden ones too.")
    users_in_memory: int
    events: int
    readings_kept: int = Field(description="Users whose keys and values the LLM keeps.")
    waiting: int = Field(description="Questions that wait for the LLM.")
    epsilon_remaining: float | None = Field(description="Of the privacy budget; null where there is no ledger.")


class ArmTold(Told):
    """How an arm did, against the first."""

    arm: str
    shown: int = Field(description="Lists.")
    clicked: int = Field(description="Of these, with a click at least.")
    rate: float
    low: float = Field(description="Wilson's 95% interval of the rate.")
    high: float
    difference: float = Field(description="Of the rate from the first arm's.")
    p_value: float = Field(description="That both are the same; nothing corrects for many arms.")


class ClicksTold(Told):
    """An arm's lists by the adapter that made them."""

    arm: str
    adapter: str
    lists: int
    items: int
    clicked_lists: int
    clicked_items: int


class ArmsTold(Told):
    """Results of the A/B."""

    arms: list[ArmTold]
    by_adapter: list[ClicksTold]


class GroupTold(Told):
    """A group of items that has a floor of exposure."""

    group: str
    share: float = Field(description="Of the exposure, that it is to have at least.")
    given: float = Field(description="That it had in the lists since the start.")
    price: float = Field(description="Nats that its items are lifted by now, where floors are amortised.")


class ExposureTold(Told):
    """How the floors of exposure are kept. Exact: for the partner's own people."""

    by: str
    way: str
    groups: list[GroupTold]


class ArmsInQuery(AskedInQuery):
    """Of which lists, and what counts as a click."""

    since: Timestamp = 0.0
    type: list[Id] = Field([], max_length=100, description="Of events that count; all if empty.")


def figure_routes(desk: Desk, epsilon_remaining: Epsilon) -> APIRouter:
    """See the module."""
    router = APIRouter(prefix="/v1", tags=["Figures"], responses=PROBLEMS)
    tenant = Depends(desk)

    @router.get("/status", summary="Figures of now")
    async def status(one: TenantService = tenant) -> StatusTold:
        """Counts alone."""
        engine = one.tenant.engine
        return StatusTold(
            tenant=one.tenant.name,
            adapter=engine.model.version,
            items=one.tenant.shelf.n_open,
            users_in_memory=len(one.tenant.people),
            events=await asyncio.to_thread(one.tenant.store.events.count),
            readings_kept=engine.desk.reader.n_kept,
            waiting=engine.desk.waiting,
            epsilon_remaining=await asyncio.to_thread(epsilon_remaining),
        )

    @router.get("/exposure", summary="Floors of exposure")
    async def exposure(one: TenantService = tenant) -> ExposureTold:
        """What groups of items were to have, and had."""
        told = one.tenant.settings.fairness
        groups = [GroupTold.model_validate(group) for group in one.lists.exposure.told()]
        return ExposureTold(by=told.by, way=told.way, groups=groups)

    @router.get("/arms", summary="Results of the A/B")
    async def arms(asked: Annotated[ArmsInQuery, InQuery()], one: TenantService = tenant) -> ArmsTold:
        """Lists since a moment, with those that were clicked; the first arm is what the others are compared with."""
        await one.tenant.written()
        clicks = await asyncio.to_thread(one.tenant.store.clicks.by_arm, asked.since, asked.type or None)
        return _compared(clicks, [arm.name for arm in one.tenant.settings.arms] or [DEFAULT])

    return router


def _compared(clicks: Sequence[ArmClicks], named: Sequence[str]) -> ArmsTold:
    """In the order of `[[arms]]`; arms that are there no more follow."""
    counts = dict.fromkeys(named, (0, 0))
    for one in clicks:
        lists, clicked = counts.get(one.arm, (0, 0))
        counts[one.arm] = (lists + one.lists, clicked + one.clicked_lists)
    results = [ArmTold(**vars(arm)) for arm in compare_arms(counts).arms]
    return ArmsTold(arms=results, by_adapter=[ClicksTold(**vars(one)) for one in clicks])
