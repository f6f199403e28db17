"""The review queue on the operator's page: what waits, decided by one click, one key or one form; and the log."""

import asyncio
import json
from collections.abc import Awaitable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from fedrec.errors import ConfigError, DataError
from fedrec_client.serving.errors import ConflictError, NotFoundError
from fedrec_client.serving.http.access import who_asks
from fedrec_client.serving.pages.asked import Asked, Fields
from fedrec_client.serving.pages.rendering import Rendering
from fedrec_client.serving.policy import rule_of
from fedrec_client.serving.service import Service, TenantService
from fedrec_client.serving.store.audit_book import flaw_in
from fedrec_client.serving.store.review_book import Case

_ON_A_PAGE, _LATEST = 25, 50
_DONE = {"approved": "may be shown", "edited": "may be shown with these words", "rejected": "stays off all lists"}


def add_review(router: APIRouter, service: Service, rendering: Rendering) -> None:
    """Add all of them."""
    _add_queue(router, service, rendering)
    _add_log(router, service, rendering)


def _one(request: Request, service: Service) -> TenantService:
    return service.of(str(request.scope["state"]["tenant"]))


def _add_queue(router: APIRouter, service: Service, rendering: Rendering) -> None:
    async def values(request: Request, **more: Any) -> dict[str, Any]:
        one = _one(request, service)
        book = one.tenant.store.reviews
        cases, cursor = await asyncio.to_thread(book.page, _ON_A_PAGE, more.pop("cursor", ""))
        waiting, _ = await asyncio.to_thread(book.waiting)
        shared = {"tenant": one.tenant.name, "place": "review", "cases": cases, "cursor": cursor, "waiting": waiting}
        return shared | {"said": "", "wrong": ""} | more

    async def decided(request: Request, work: Awaitable[Case], more: str = "") -> HTMLResponse:
        """The queue without the case; or, where somebody was quicker, as it is now, and who that was."""
        try:
            case = await work
        except (ConflictError, ConfigError) as error:
            return rendering.page("_review", await values(request, wrong=f"{error.problem}: {error.remedy}"))
        done = _DONE[case.state] if case.kind == "item" else f"is {case.state}"
        return rendering.page("_review", await values(request, said=f"{case.subject} {done}.{more}"))

    @router.get("/operate/review")
    async def show_review(request: Request, asked: Asked) -> HTMLResponse:
        return rendering.page("review", await values(request, cursor=asked.get("cursor", "")))

    @router.post("/operate/review/flag")
    async def flag(request: Request, asked: Asked) -> HTMLResponse:
        item, note = asked.get("item", "").strip(), asked.get("note", "")
        try:
            await _one(request, service).reviewing.flag(item, note, who_asks(request))
        except NotFoundError:
            return rendering.page("_review", await values(request, wrong="There is no such item: give its id."))
        return rendering.page("_review", await values(request, said=f"{item} is off all lists until it is decided."))

    @router.post("/operate/review/approve")
    async def approve(request: Request, asked: Asked) -> HTMLResponse:
        reviewing = _one(request, service).reviewing
        return await decided(request, reviewing.approve(_number(asked), who_asks(request), asked.get("note", "")))

    @router.post("/operate/review/reject")
    async def reject(request: Request, asked: Asked) -> HTMLResponse:
        reviewing = _one(request, service).reviewing
        return await decided(request, reviewing.reject(_number(asked), who_asks(request), asked.get("note", "")))

    @router.post("/operate/review/edit")
    async def edit(request: Request, asked: Asked) -> HTMLResponse:
        one = _one(request, service)
        return await decided(request, _edited(one, asked, who_asks(request)))


async def _edited(one: TenantService, asked: Fields, who: str) -> Case:
    """Raises ConfigError: the form describes no rule."""
    number, note = _number(asked), asked.get("note", "")
    if "rule" in asked:
        return await one.reviewing.edit_rule(number, rule_of(_json(asked["rule"])), who, note)
    kinds = [kind.strip() for kind in asked.get("categories", "").split(",") if kind.strip()]
    changes = {"title": asked.get("title", ""), "text": asked.get("text", ""), "categories": tuple(kinds)}
    done, _ = await one.reviewing.edit_item(number, changes, one.intake.put_items, who, note)
    return done


def _add_log(router: APIRouter, service: Service, rendering: Rendering) -> None:
    @router.get("/operate/review/log")
    async def show_log(request: Request, asked: Asked) -> HTMLResponse:
        one = _one(request, service)
        audit = one.tenant.store.audit
        lines, cursor = await asyncio.to_thread(audit.page, _LATEST, asked.get("cursor", ""))
        flaw = await asyncio.to_thread(lambda: flaw_in(audit.every()))
        told = {"tenant": one.tenant.name, "place": "review", "lines": lines, "cursor": cursor, "flaw": flaw}
        return rendering.page("review_log", told)


def _number(asked: Fields) -> int:
    text = asked.get("case", "")
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise DataError("no case is named", "load the page again")
    return int(text)


def _json(text: str) -> Any:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError("the rule is no JSON", "mend it; nothing was decided") from error
    if not isinstance(found, dict):
        raise ConfigError("the rule is no JSON object", "as {…}; nothing was decided")
    return found
