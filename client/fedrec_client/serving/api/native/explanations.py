"""Why an item is for somebody, held against the model; and whether that helped them."""

import asyncio
import time
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import Field

from fedrec_client.serving.api.native.forms import PROBLEMS, Asked, Comment, Desk, OptionalId, Told
from fedrec_client.serving.api.native.listing import Reason, reasons_told
from fedrec_client.serving.errors import NotFoundError
from fedrec_client.serving.explaining import Checked
from fedrec_client.serving.http.paths import Id, Segment
from fedrec_client.serving.people import Person
from fedrec_client.serving.records import Ranked, Source
from fedrec_client.serving.service import TenantService


class Explanation(Told):
    """Reasons, and what the model says without them."""

    because: list[Reason]
    words: list[str] = Field(description="Of the item's text, that the history has too.")
    rules: list[str] = Field(description="That acted on it.")
    sentence: str
    score: float = Field(description="In nats above the mean of all items; 0 where no history speaks.")
    score_without: float = Field(description="The same if the items in `because` had never been.")
    holds: bool = Field(description="Whether it is lower then.")


class OpinionForm(Asked):
    """Whether the reason for an item in a list was helpful."""

    ranking: Annotated[Id, Field(description="The answer that gave the reason.")]
    item: Id
    is_helpful: bool
    user: OptionalId = ""
    comment: Comment = ""


class Noted(Told):
    """An opinion that was written down."""

    is_noted: bool


def explanation_routes(desk: Desk) -> APIRouter:
    """See the module."""
    router = APIRouter(prefix="/v1", tags=["Explanations"], responses=PROBLEMS)
    tenant = Depends(desk)

    @router.get("/explain/{user}/{item}", summary="Why this item")
    async def explain(user: Segment, item: Segment, one: TenantService = tenant) -> Explanation:
        """Which items of the history raise its score, checked by scoring it anew without them."""
        if item not in one.tenant.shelf:
            raise NotFoundError("item")
        person = await one.tenant.person(user)
        model, _ = await one.tenant.engine.user_vector(person)
        checked = await one.lists.explaining.checked(person, model, _ranked(one, person, item))
        return _told(one, checked)

    @router.post("/explain/feedback", summary="Whether a reason helped")
    async def note(sent: OpinionForm, one: TenantService = tenant) -> Noted:
        """One opinion of a user on an item in a ranking; a later one takes its place."""
        add = one.tenant.store.opinions.add
        await asyncio.to_thread(add, sent.user, sent.ranking, sent.item, sent.is_helpful, sent.comment, time.time())
        return Noted(is_noted=True)

    return router


def _ranked(one: TenantService, person: Person, item: str) -> Ranked:
    """The item as if it stood in a list of the person's."""
    code = one.tenant.shelf.code(item)
    rules = one.policy.table.in_force(time.time(), person.labels).names_of(code)
    source: Source = "model" if person.codes else "popular"
    return Ranked(one.tenant.shelf.item(code), 0.0, source, rules)


def _told(one: TenantService, checked: Checked) -> Explanation:
    why = checked.why
    return Explanation(
        because=reasons_told(one.tenant, why.because),
        words=list(why.words),
        rules=list(why.rules),
        sentence=why.sentence,
        score=checked.score,
        score_without=checked.without,
        holds=checked.holds,
    )
