"""What waits for a person: flagged items and proposed rules, decided one by one; and who decided what."""

import asyncio
import json
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, Request
from fastapi import Path as InPath
from fastapi import Query as InQuery
from fastapi.responses import Response
from pydantic import Field, JsonValue

from fedrec.errors import DataError
from fedrec.recommend.rules import Rule
from fedrec_client.serving.api.native.forms import PROBLEMS, Asked, Category, Comment, Desk, Paged, Text, Told
from fedrec_client.serving.http.access import who_asks
from fedrec_client.serving.http.paths import Id
from fedrec_client.serving.service import TenantService
from fedrec_client.serving.store.audit_book import AuditLine, flaw_in
from fedrec_client.serving.store.review_book import Case, Kind, State

_LINES = "application/jsonl"
Number = Annotated[int, InPath(ge=1, le=2**63 - 1, description="Of the case.")]


class FlagTold(Told):
    """Why an item waits."""

    kind: str = Field(description="block, word, theme, person, again (held before), unscreened.")
    name: str = Field(description="Of the list or theme; of the key, where a person said so.")
    evidence: str = Field(description="The pattern found, the description it is like, or what the person said.")
    likeness: float | None = None


class CaseTold(Told):
    """A question to a person, and how it was decided."""

    id: int
    kind: Kind
    subject: str = Field(description="The item's id, or the rule's name.")
    state: State
    flags: list[FlagTold]
    content: dict[str, JsonValue] = Field(description="The item's words; or what is to be done with the rule.")
    asked_by: str
    at: float
    decided_by: str
    decided_at: float = Field(description="Unix seconds; 0: not decided yet.")
    note: str


class CasePage(Told):
    """Cases, oldest first."""

    cases: list[CaseTold]
    cursor: str
    waiting: int = Field(description="How many wait now, whatever was asked for.")


class CasesInQuery(Paged):
    """Which cases."""

    state: Literal["waiting", "approved", "edited", "rejected", "superseded", "all"] = "waiting"
    kind: Literal["item", "rule", "all"] = "all"


class FlagForm(Asked):
    """An item that a person should look at."""

    item: Id
    note: Comment = ""


class NoteForm(Asked):
    """What the log should say of a decision."""

    note: Comment = ""


_NO_NOTE = NoteForm()


class EditForm(NoteForm):
    """Other words for an item, what is left out stays; or, of a case on a rule, the rule in place of the proposed."""

    title: Text | None = None
    text: Text | None = None
    categories: list[Category] | None = Field(None, max_length=100)
    rule: Rule | None = None


class LineTold(Told):
    """A line of the audit log."""

    seq: int
    at: float
    who: str
    what: str
    kind: str
    subject: str
    before: JsonValue
    after: JsonValue
    note: str
    hash: str = Field(description="SHA-256 over the hash of the line before and everything else here.")


class LogPage(Told):
    """Lines, newest first."""

    lines: list[LineTold]
    cursor: str


class LogChecked(Told):
    """Whether the log is whole."""

    is_whole: bool
    flaw: str
    lines: int
    head: str = Field(description="Hash of the newest line; keep it elsewhere, so that a shortened log shows.")


def review_routes(desk: Desk) -> APIRouter:
    """See the module."""
    router = APIRouter(prefix="/v1/review", tags=["Review"], responses=PROBLEMS)
    _add_log(router, desk)
    _add_cases(router, desk)
    return router


def _add_cases(router: APIRouter, desk: Desk) -> None:
    tenant = Depends(desk)

    @router.get("", summary="What waits for a person")
    async def every(asked: Annotated[CasesInQuery, InQuery()], one: TenantService = tenant) -> CasePage:
        """Oldest first; or what was decided."""
        state, kind = (None if word == "all" else word for word in (asked.state, asked.kind))
        book = one.tenant.store.reviews
        cases, cursor = await asyncio.to_thread(book.page, asked.n, asked.cursor, state, kind)  # type: ignore[arg-type]
        waiting, _ = await asyncio.to_thread(book.waiting)
        return CasePage(cases=[_told(case) for case in cases], cursor=cursor, waiting=waiting)

    @router.post("", summary="Have an item looked at", status_code=201)
    async def flag(sent: FlagForm, request: Request, one: TenantService = tenant) -> CaseTold:
        """It is off all lists when this answers, until somebody decides."""
        return _told(await one.reviewing.flag(sent.item, sent.note, who_asks(request)))

    @router.get("/{number}", summary="Read a case")
    async def get(number: Number, one: TenantService = tenant) -> CaseTold:
        """As it is stored."""
        return _told(await asyncio.to_thread(one.tenant.store.reviews.get, number))

    @router.post("/{number}/approve", summary="Approve")
    async def approve(
        number: Number, request: Request, sent: Annotated[NoteForm, Body()] = _NO_NOTE, one: TenantService = tenant
    ) -> CaseTold:
        """The item may be shown, the rule is in force. Of two who decide at once the second is told 409."""
        return _told(await one.reviewing.approve(number, who_asks(request), sent.note))

    @router.post("/{number}/reject", summary="Reject")
    async def reject(
        number: Number, request: Request, sent: Annotated[NoteForm, Body()] = _NO_NOTE, one: TenantService = tenant
    ) -> CaseTold:
        """The item stays off all lists, with these words or others; the rule is not made."""
        return _told(await one.reviewing.reject(number, who_asks(request), sent.note))

    @router.post("/{number}/edit", summary="Edit and approve")
    async def edit(number: Number, sent: EditForm, request: Request, one: TenantService = tenant) -> CaseTold:
        """With other words the item may be shown; another rule is in force in place of the proposed one."""
        who, changes = who_asks(request), _changes(sent)
        if sent.rule is not None and changes:
            raise DataError("the edit is of an item and of a rule at once", "send one of them")
        if sent.rule is not None:
            return _told(await one.reviewing.edit_rule(number, sent.rule, who, sent.note))
        if not changes:
            raise DataError("the edit changes nothing", "send title, text or categories; or a rule")
        done, _ = await one.reviewing.edit_item(number, changes, one.intake.put_items, who, sent.note)
        return _told(done)


def _add_log(router: APIRouter, desk: Desk) -> None:
    tenant = Depends(desk)

    @router.get("/log", summary="Who decided what")
    async def log(asked: Annotated[Paged, InQuery()], one: TenantService = tenant) -> LogPage:
        """Newest first."""
        lines, cursor = await asyncio.to_thread(one.tenant.store.audit.page, asked.n, asked.cursor)
        return LogPage(lines=[LineTold(**line.to_dict()) for line in lines], cursor=cursor)

    @router.get("/log/check", summary="Whether the log is whole")
    async def check(one: TenantService = tenant) -> LogChecked:
        """Every line's hash is worked out anew."""
        return await asyncio.to_thread(_checked, one)

    @router.get("/log/export", summary="The whole log", response_class=Response)
    async def export(one: TenantService = tenant) -> Response:
        """JSON lines, oldest first."""
        # Whole, and not as a stream: there are as many lines as a person has decided.
        return Response(await asyncio.to_thread(_lines, one.tenant.store.audit.every()), media_type=_LINES)


def _checked(one: TenantService) -> LogChecked:
    lines = list(one.tenant.store.audit.every())
    flaw = flaw_in(lines)
    return LogChecked(is_whole=not flaw, flaw=flaw, lines=len(lines), head=lines[-1].hash if lines else "")


def _lines(lines: Iterable[AuditLine]) -> str:
    return "".join(json.dumps(line.to_dict(), ensure_ascii=False) + "\n" for line in lines)


def _changes(sent: EditForm) -> dict[str, Any]:
    given = {name: getattr(sent, name) for name in ("title", "text", "categories")}
    changes = {name: value for name, value in given.items() if value is not None}
    return changes | ({"categories": tuple(changes["categories"])} if "categories" in changes else {})


def _told(case: Case) -> CaseTold:
    values = {name: getattr(case, name) for name in CaseTold.model_fields if name not in ("flags", "content")}
    return CaseTold(**values, flags=[FlagTold(**flag) for flag in case.flags], content=case.content)
