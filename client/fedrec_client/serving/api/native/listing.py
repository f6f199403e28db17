"""Lists as this API is asked for them and tells them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field, JsonValue

from fedrec.query.understood import Understood
from fedrec_client.serving.api.native.forms import (
    MOST_AT_ONCE,
    MOST_ROWS,
    Asked,
    AskedInQuery,
    Category,
    Cursor,
    N,
    OptionalId,
    Timestamp,
    Told,
)
from fedrec_client.serving.http.paths import Id
from fedrec_client.serving.records import Answer, Event, Query, Ranked, Source
from fedrec_client.serving.tenant import Tenant

Words = Annotated[
    str,
    Field(
        max_length=500,
        description="What is wanted, in words: `a quiet 90s thriller, no horror`, `like Alien`.",
    ),
]
Offset = Annotated[int, Field(ge=0, le=10_000, description="From which place of the ranking on.")]
Filter = Annotated[
    str, Field(max_length=1000, description='CEL over the item, such as `item.year > 1990 && "War" in categories`.')
]
WantedFields = Annotated[
    list[Annotated[str, Field(max_length=256)]],
    Field(max_length=100, description="Which of the item's own fields to tell; `*` for all."),
]
Categories = Annotated[list[Category], Field(max_length=20, description="An item must be of each.")]
Excluded = Annotated[list[Id], Field(max_length=MOST_AT_ONCE, description="Items that must not be in it.")]
Arm = Annotated[str, Field(max_length=64, description="Of the A/B, by name; empty leaves it to the user's hash.")]
Explain = Annotated[bool, Field(description="Say why.")]


class _ListInQuery(AskedInQuery):
    n: N = 10
    offset: Offset = 0
    category: Categories = Field([])
    exclude: Excluded = Field([])
    filter: Filter = ""
    cursor: Cursor = ""
    fields: WantedFields = Field([])


class ListInQuery(_ListInQuery):
    """Of the person whom the path names."""

    query: Words = ""
    explain: Explain = False
    arm: Arm = ""


class SourceInQuery(_ListInQuery):
    """Of a list that is nobody's own; a user's leaves out what they had."""

    user: OptionalId = ""


class SessionEvent(Asked):
    """What somebody does now; it is stored nowhere."""

    item: Id
    type: Id = "view"
    value: float = 1.0
    timestamp: Timestamp = 0.0


class _SessionForm(Asked):
    events: list[SessionEvent] = Field([], max_length=1000, description="Of now, oldest first.")
    session: Annotated[OptionalId, Field(description="Under which events were stored.")] = ""
    explain: Explain = False
    arm: Arm = ""
    ranking: Annotated[OptionalId, Field(description="An id for the answer; empty has one made.")] = ""
    is_recorded: Annotated[bool, Field(description="Whether it counts as shown to somebody.")] = True
    fields: WantedFields = Field([])


class ListForm(_SessionForm):
    """Of a session, by its events or by the id under which they were stored."""

    query: Words = ""
    n: N = 10
    offset: Offset = 0
    categories: Categories = Field([])
    exclude: Excluded = Field([])
    filter: Filter = ""
    cursor: Cursor = ""


class RecommendForm(ListForm):
    """Of a user, a session, both, or nobody."""

    user: OptionalId = ""


class RankForm(_SessionForm):
    """Candidates to be put into the order of a user or session."""

    candidates: Annotated[list[Id], Field(min_length=1, max_length=MOST_ROWS)]
    user: OptionalId = ""


class Reason(Told):
    """An item of the history, and by how many nats it raises the score."""

    item: str
    title: str
    gain: float


class WhyForm(Told):
    """Why an item stands there."""

    because: list[Reason]
    words: list[str]
    rules: list[str]
    sentence: str


class PlaceForm(Told):
    """A place of a list."""

    id: str
    score: float
    source: Source
    rules: list[str]
    title: str
    categories: list[str]
    fields: dict[str, JsonValue] | None = None
    why: WhyForm | None = None


class UnderstoodForm(Told):
    """What a request in words was taken to ask for; `like` and `named` are ids."""

    wanted: list[str]
    unwanted: list[str]
    first_year: int | None
    last_year: int | None
    like: list[str]
    named: list[str]


class AnswerForm(Told):
    """A list, best first. Events that answer it name `ranking`; `cursor` asks for the next page, "" at the end."""

    ranking: str
    arm: str
    adapter: str
    cursor: str
    took_ms: float
    items: list[PlaceForm]
    understood: UnderstoodForm | None = None


def query_in_path(user: str, asked: ListInQuery | SourceInQuery) -> Query:
    """Of parameters. A list that is nobody's own is not recorded: it says nothing about the arms of an A/B."""
    return Query(
        user,
        n=asked.n,
        offset=asked.offset,
        words=asked.query if isinstance(asked, ListInQuery) else "",
        categories=tuple(asked.category),
        exclude=tuple(asked.exclude),
        filter=asked.filter,
        cursor=asked.cursor,
        explain=isinstance(asked, ListInQuery) and asked.explain,
        arm=asked.arm if isinstance(asked, ListInQuery) else "",
        is_recorded=isinstance(asked, ListInQuery),
    )


def query_in_body(user: str, form: ListForm | RankForm) -> Query:
    """Of a body."""
    query = Query(
        user,
        tuple(Event(e.type, e.item, session="now", value=e.value, timestamp=e.timestamp) for e in form.events),
        form.session,
        explain=form.explain,
        arm=form.arm,
        ranking=form.ranking,
        is_recorded=form.is_recorded,
    )
    if isinstance(form, RankForm):
        return replace(query, candidates=tuple(form.candidates))
    query = replace(query, categories=tuple(form.categories), exclude=tuple(form.exclude), filter=form.filter)
    return replace(query, n=form.n, offset=form.offset, cursor=form.cursor, words=form.query)


def told(tenant: Tenant, answer: Answer, fields: list[str]) -> AnswerForm:
    """The answer for JSON."""
    wanted = _reader(fields)
    places = [_place(tenant, one, wanted) for one in answer.items]
    more: dict[str, Any] = {}
    if answer.understood is not None:
        more["understood"] = _understood(tenant, answer.understood)
    return AnswerForm(
        ranking=answer.id,
        arm=answer.arm,
        adapter=answer.adapter,
        cursor=answer.cursor,
        took_ms=round(answer.took_ms, 3),
        items=places,
        **more,
    )


def _understood(tenant: Tenant, found: Understood) -> UnderstoodForm:
    like, named = ([tenant.shelf.item(code).id for code in codes] for codes in (found.like, found.named))
    return UnderstoodForm(
        wanted=list(found.wanted),
        unwanted=list(found.unwanted),
        first_year=found.first_year,
        last_year=found.last_year,
        like=like,
        named=named,
    )


def reasons_told(tenant: Tenant, because: tuple[tuple[str, float], ...]) -> list[Reason]:
    """Reasons with their titles."""
    return [Reason(item=item, title=_title(tenant, item), gain=gain) for item, gain in because]


def _reader(fields: list[str]) -> Callable[[Ranked], dict[str, JsonValue]] | None:
    if not fields:
        return None
    if "*" in fields:
        return lambda one: dict(one.item.fields)
    return lambda one: {name: one.item.fields[name] for name in fields if name in one.item.fields}


def _place(tenant: Tenant, one: Ranked, wanted: Callable[[Ranked], dict[str, JsonValue]] | None) -> PlaceForm:
    """What nobody asked for is unset, and not told."""
    more: dict[str, Any] = {} if wanted is None else {"fields": wanted(one)}
    if one.why is not None:
        why = one.why
        reasons = reasons_told(tenant, why.because)
        more["why"] = WhyForm(because=reasons, words=list(why.words), rules=list(why.rules), sentence=why.sentence)
    return PlaceForm(
        id=one.item.id,
        score=one.score,
        source=one.source,
        rules=list(one.rules),
        title=one.item.title,
        categories=list(one.item.categories),
        **more,
    )


def _title(tenant: Tenant, item: str) -> str:
    code = tenant.shelf.find(item)
    return tenant.shelf.item(code).title if code is not None else ""
