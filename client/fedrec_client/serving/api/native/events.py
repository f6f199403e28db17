"""Events: told, one or many, as often as a caller likes; and read by the partner's own people."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends
from fastapi import Query as InQuery
from pydantic import Discriminator, Field, JsonValue, Tag

from fedrec_client.serving.api.native.forms import (
    MOST_AT_ONCE,
    PROBLEMS,
    Asked,
    Comment,
    Desk,
    OptionalId,
    Paged,
    Timestamp,
    Told,
)
from fedrec_client.serving.http.metrics import ServingMetrics
from fedrec_client.serving.http.paths import Id
from fedrec_client.serving.records import Event
from fedrec_client.serving.service import TenantService

_EXAMPLE = {"id": "a1b2", "type": "like", "user": "anna", "item": "181", "ranking": "5f0c"}


class EventForm(Asked):
    """Something that a person, or a session without a name, did with an item: one of `user` and `session` at least."""

    type: Annotated[Id, Field(description="What it means, `[feedback]` of serving.toml says.")]
    item: Id
    user: OptionalId = ""
    session: OptionalId = ""
    value: Annotated[float, Field(ge=-1e15, le=1e15, description="Of a rating, a count, seconds.")] = 1.0
    timestamp: Annotated[Timestamp, Field(description="Unix seconds; 0 for now.")] = 0.0
    id: Annotated[OptionalId, Field(description="By which it is known again: sent twice, it counts once.")] = ""
    ranking: Annotated[OptionalId, Field(description="The answer that it responds to.")] = ""
    labels: JsonValue = None
    comment: Comment = ""

    def event(self) -> Event:
        """For the service. Raises DataError: neither user nor session."""
        return Event(**{name: getattr(self, name) for name in type(self).model_fields})


class EventTold(Told):
    """An event as it is stored."""

    type: str
    item: str
    user: str
    session: str
    value: float
    timestamp: float
    id: str
    ranking: str
    labels: JsonValue
    comment: str
    updated: float = Field(description="When it came.")


class EventPage(Told):
    """Events, newest first."""

    events: list[EventTold]
    cursor: str


class Taken(Told):
    """What came of events.

    `ignored` are those with users or items that are not known, where `http.auto_insert` is off.
    """

    accepted: int
    duplicates: int
    ignored: int


class EventsInQuery(Paged):
    """Which events."""

    type: OptionalId = ""
    user: OptionalId = ""
    item: OptionalId = ""


_Many = Annotated[list[EventForm], Field(min_length=1, max_length=MOST_AT_ONCE)]
Events = Annotated[
    Annotated[EventForm, Tag("one")] | Annotated[_Many, Tag("many")],
    Discriminator(lambda sent: "many" if isinstance(sent, list) else "one"),
    Body(examples=[_EXAMPLE, [_EXAMPLE]]),
]


def event_routes(desk: Desk, metrics: ServingMetrics) -> APIRouter:
    """See the module."""
    router = APIRouter(prefix="/v1", tags=["Events"], responses=PROBLEMS)
    tenant = Depends(desk)

    @router.post("/events", summary="Tell events")
    async def add(sent: Events, one: TenantService = tenant) -> Taken:
        """One, or an array of up to 10,000. When this answers they are on the disk and count in the next list.

        Give each an `id` of your own, and you may send it again whenever you are in doubt.
        """
        told = sent if isinstance(sent, list) else [sent]
        taken = await one.intake.add_events([form.event() for form in told])
        metrics.count_events("own", taken.accepted)
        return Taken(accepted=taken.accepted, duplicates=taken.duplicates, ignored=taken.ignored)

    @router.get("/events", summary="Read events")
    async def find(asked: Annotated[EventsInQuery, InQuery()], one: TenantService = tenant) -> EventPage:
        """As they came, newest first."""
        only: dict[str, Any] = {name: getattr(asked, name) or None for name in ("type", "user", "item")}
        events, cursor = await asyncio.to_thread(one.tenant.store.events.find_raw, asked.n, asked.cursor, **only)
        return EventPage(events=[_told(event) for event in events], cursor=cursor)

    return router


def _told(event: Event) -> EventTold:
    return EventTold(**{name: getattr(event, name) for name in EventTold.model_fields})
