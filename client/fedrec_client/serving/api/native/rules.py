"""Business rules: read, made, changed, tried before they are kept, read again from their file."""

import asyncio
import time
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Body, Depends, Request
from numpy.typing import NDArray
from pydantic import Field

from fedrec.errors import DataError
from fedrec.recommend.compiled_rules import selected
from fedrec.recommend.rules import Rule
from fedrec_client.serving.api.native.forms import PROBLEMS, Desk, Told
from fedrec_client.serving.errors import ConflictError
from fedrec_client.serving.http.access import who_asks
from fedrec_client.serving.http.paths import Segment
from fedrec_client.serving.service import TenantService

_FIRST = 20
_EXAMPLE = {"name": "fewer dramas", "action": "quota", "category": "Drama", "limit": 3}


class RuleTold(Told):
    """A rule, and where it is kept."""

    rule: Rule
    is_in_file: bool = Field(description="Of the rules file; it is changed there alone.")
    is_due: bool = Field(description="Whether it is enabled and its schedule has begun and not ended.")
    case: int | None = Field(None, description="It is not in force: under /v1/review it waits for a person.")


class RulesTold(Told):
    """All rules, in their order."""

    rules: list[RuleTold]


class Trial(Told):
    """What a rule is about."""

    count: int = Field(description="Items that can be shown and that it is about.")
    ids: list[str] = Field(description="The first of them.")
    is_due: bool


class RuleGone(Told):
    """A rule that is no more, or is to go."""

    removed: str
    case: int | None = Field(None, description="It is still there: under /v1/review its removal waits for a person.")


Sent = Annotated[Rule, Body(examples=[_EXAMPLE])]


def rule_routes(desk: Desk) -> APIRouter:
    """See the module."""
    router = APIRouter(prefix="/v1", tags=["Rules"], responses=PROBLEMS)
    tenant = Depends(desk)

    @router.get("/rules", summary="List rules")
    async def every(one: TenantService = tenant) -> RulesTold:
        """Those of the file first."""
        return _every(one)

    @router.post("/rules", summary="Make a rule", status_code=201)
    async def make(sent: Sent, request: Request, one: TenantService = tenant) -> RuleTold:
        """Of a name that no rule has. It is in force when this answers, unless rules wait for a person."""
        if any(sent.name == rule.name for rule, _ in one.policy.every()):
            raise ConflictError("there is a rule of that name", "put it in its place, or take another name")
        return await _keep(one, sent, who_asks(request))

    @router.post("/rules/try", summary="Try a rule")
    async def try_out(sent: Sent, one: TenantService = tenant) -> Trial:
        """Which items it is about; it is not kept."""
        shelf = one.tenant.shelf
        codes = np.flatnonzero(await _about(one, sent) & shelf.recommendable())
        ids = [shelf.item(int(code)).id for code in codes[:_FIRST]]
        return Trial(count=len(codes), ids=ids, is_due=sent.is_due(time.time()))

    @router.post("/rules/reload", summary="Read the rules file again")
    async def reload(one: TenantService = tenant) -> RulesTold:
        """If it is faulty the rules before stay in force."""
        await asyncio.to_thread(one.policy.reload)
        return _every(one)

    @router.get("/rules/{name}", summary="Read a rule")
    async def get(name: Segment, one: TenantService = tenant) -> RuleTold:
        """As it is kept."""
        return _told(one, one.policy.find(name))

    @router.put("/rules/{name}", summary="Make or change a rule")
    async def put(name: Segment, sent: Sent, request: Request, one: TenantService = tenant) -> RuleTold:
        """The name stands in the body too."""
        if sent.name != name:
            raise DataError("the rule has another name than the path", "give both the same")
        return await _keep(one, sent, who_asks(request))

    @router.delete("/rules/{name}", summary="Remove a rule")
    async def remove(name: Segment, request: Request, one: TenantService = tenant) -> RuleGone:
        """One that was made by API."""
        if one.reviewing.settings.rules:
            one.policy.find(name)
            return RuleGone(removed=name, case=(await one.reviewing.propose(None, name, who_asks(request))).id)
        await one.policy.remove(name)
        return RuleGone(removed=name)

    return router


async def _keep(one: TenantService, rule: Rule, who: str) -> RuleTold:
    """One that cannot be worked out would fail every list from then on: it is tried first."""
    await _about(one, rule)
    if one.reviewing.settings.rules:
        case = await one.reviewing.propose(rule, "", who)
        return RuleTold(rule=rule, is_in_file=False, is_due=False, case=case.id)
    await one.policy.put(rule)
    return _told(one, rule)


async def _about(one: TenantService, rule: Rule) -> NDArray[np.bool_]:
    """Which items a rule is about. Raises ConfigError: its expression takes too long."""
    n = len(one.tenant.shelf)
    mask = await asyncio.to_thread(selected, rule, one.tenant.shelf, one.policy.filters, time.time())
    whole = np.zeros(len(one.tenant.shelf), bool)  # items may have joined meanwhile
    whole[:n] = mask[:n]
    return whole


def _every(one: TenantService) -> RulesTold:
    now = time.time()
    return RulesTold(
        rules=[
            RuleTold(rule=rule, is_in_file=is_in_file, is_due=rule.is_due(now))
            for rule, is_in_file in one.policy.every()
        ]
    )


def _told(one: TenantService, rule: Rule) -> RuleTold:
    is_in_file = any(rule is other and is_in_file for other, is_in_file in one.policy.every())
    return RuleTold(rule=rule, is_in_file=is_in_file, is_due=rule.is_due(time.time()))
