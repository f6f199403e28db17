"""Gorse's feedback: one row for a type, a user and an item."""

import asyncio
import time
from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Request
from fastapi import Query as InQuery
from fastapi.responses import JSONResponse

from fedrec_client.serving.api.gorse.asking import PageAsked, affected, page_of, tenant_of
from fedrec_client.serving.api.gorse.wire import FeedbackSent, event_of, tell_feedback
from fedrec_client.serving.http.metrics import ServingMetrics
from fedrec_client.serving.people import CLOCK_ERROR_S, FeedbackType
from fedrec_client.serving.records import Event
from fedrec_client.serving.service import Service, TenantService

_Asked = Annotated[PageAsked, InQuery()]
_STEP = 1000


def feedback_routes(router: APIRouter, service: Service, metrics: ServingMetrics) -> None:
    """Adds them."""
    _writing(router, service, metrics)
    _paging(router, service)
    _of_one(router, service)
    _of_pair(router, service)


def _writing(router: APIRouter, service: Service, metrics: ServingMetrics) -> None:
    async def take(request: Request, sent: Sequence[FeedbackSent], mode: Literal["add", "set"]) -> JSONResponse:
        """Of several for one key in a request the first counts, as in Gorse."""
        events: dict[tuple[str, str, str], Event] = {}
        for event in map(event_of, sent):
            events.setdefault((event.type, event.user, event.item), event)
        told = await tenant_of(service, request).intake.add_events(list(events.values()), mode)
        metrics.count_events("gorse", told.accepted)
        return affected(len(sent))

    @router.post("/api/feedback")
    async def add(request: Request, sent: list[FeedbackSent]) -> JSONResponse:
        """Insert feedback; where it is there already, values add up."""
        return await take(request, sent, "add")

    @router.put("/api/feedback")
    async def overwrite(request: Request, sent: list[FeedbackSent]) -> JSONResponse:
        """Insert feedback in place of what is there."""
        return await take(request, sent, "set")


def _paging(router: APIRouter, service: Service) -> None:
    async def page(request: Request, asked: PageAsked, kind: str | None) -> JSONResponse:
        events = tenant_of(service, request).tenant.store.events
        rows, cursor = await asyncio.to_thread(events.find, asked.size, asked.cursor, type=kind, until=_now())
        return page_of("Feedback", [tell_feedback(event) for event in rows], cursor)

    @router.get("/api/feedback")
    async def every(request: Request, asked: _Asked) -> JSONResponse:
        """Some of all feedback."""
        return await page(request, asked, None)

    @router.get("/api/feedback/{feedback_type}")
    async def of_type(request: Request, feedback_type: str, asked: _Asked) -> JSONResponse:
        """Some of a type."""
        return await page(request, asked, feedback_type)


def _of_one(router: APIRouter, service: Service) -> None:
    @router.get("/api/user/{user_id}/feedback")
    async def of_user(request: Request, user_id: str) -> JSONResponse:
        """All of a user."""
        return _told(await asyncio.to_thread(_all, tenant_of(service, request), user=user_id))

    @router.get("/api/user/{user_id}/feedback/{feedback_type}")
    async def of_user_and_type(request: Request, user_id: str, feedback_type: str) -> JSONResponse:
        """All of a user of a type, which may be held against a value: `read>=3`."""
        meant = FeedbackType.parse(feedback_type)
        rows = await asyncio.to_thread(_all, tenant_of(service, request), user=user_id)
        return _told([event for event in rows if meant.matches(event.type, event.value)])

    @router.get("/api/item/{item_id}/feedback")
    async def of_item(request: Request, item_id: str) -> JSONResponse:
        """All of an item."""
        return _told(await asyncio.to_thread(_all, tenant_of(service, request), item=item_id))

    @router.get("/api/item/{item_id}/feedback/{feedback_type}")
    async def of_item_and_type(request: Request, item_id: str, feedback_type: str) -> JSONResponse:
        """All of an item of a type."""
        return _told(await asyncio.to_thread(_all, tenant_of(service, request), item=item_id, kind=feedback_type))


def _of_pair(router: APIRouter, service: Service) -> None:
    @router.get("/api/feedback/{user_id}/{item_id}")
    async def of_pair(request: Request, user_id: str, item_id: str) -> JSONResponse:
        """What a user did with an item."""
        events = tenant_of(service, request).tenant.store.events
        rows, _ = await asyncio.to_thread(events.find, _STEP, user=user_id, item=item_id)
        return _told(rows)

    @router.get("/api/feedback/{feedback_type}/{user_id}/{item_id}")
    async def only(request: Request, feedback_type: str, user_id: str, item_id: str) -> JSONResponse:
        """One; an empty object where there is none, as in Gorse."""
        events = tenant_of(service, request).tenant.store.events
        rows, _ = await asyncio.to_thread(events.find, 1, type=feedback_type, user=user_id, item=item_id)
        return JSONResponse(tell_feedback(rows[0]) if rows else {})

    @router.delete("/api/feedback/{user_id}/{item_id}")
    async def remove_pair(request: Request, user_id: str, item_id: str) -> JSONResponse:
        """Forget what a user did with an item."""
        return affected(await _remove(tenant_of(service, request), user_id, item_id, None))

    @router.delete("/api/feedback/{feedback_type}/{user_id}/{item_id}")
    async def remove_one(request: Request, feedback_type: str, user_id: str, item_id: str) -> JSONResponse:
        """Forget one."""
        return affected(await _remove(tenant_of(service, request), user_id, item_id, feedback_type))


async def _remove(one: TenantService, user: str, item: str, kind: str | None) -> int:
    """How many rows of Gorse's went; each may be several events of ours."""
    rows, _ = await asyncio.to_thread(one.tenant.store.events.find, _STEP, type=kind, user=user, item=item)
    await one.intake.remove_events(user, item, kind)
    return len(rows)


def _all(
    one: TenantService, *, user: str | None = None, item: str | None = None, kind: str | None = None
) -> list[Event]:
    """In a thread."""
    found: list[Event] = []
    cursor, until = "", _now()
    while True:
        rows, cursor = one.tenant.store.events.find(_STEP, cursor, type=kind, user=user, item=item, until=until)
        found += rows
        if not cursor:
            return found


def _told(events: Sequence[Event]) -> JSONResponse:
    return JSONResponse([tell_feedback(event) for event in events])


def _now() -> float:
    """What is dated later has not happened yet: so Gorse writes back what shall be read in some minutes."""
    return time.time() + CLOCK_ERROR_S
