"""`POST /feedback`: items, people, lists that were shown, and what was done with them."""

import asyncio
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from fedrec.data.catalog import item_text
from fedrec.recommend.shelf import Item, Json
from fedrec_client.serving.api.metarank.wire import (
    AnyEvent,
    InteractionEvent,
    ItemEvent,
    RankingEvent,
    UserEvent,
    read_events,
)
from fedrec_client.serving.http.metrics import ServingMetrics
from fedrec_client.serving.records import Event, Shown, User
from fedrec_client.serving.service import Service, TenantService
from fedrec_client.serving.store.shown_book import confirm_shown

# Fields that make an item's own attributes; those of the first line stay fields as well.
_DESCRIPTIONS = ("description", "text")
_TITLES, _CATEGORIES = ("title", "name"), ("categories", "category", "genres", "genre")
_VALUES = ("value", "rating")
# Of a list that was ranked elsewhere.
_ELSEWHERE = "given"
_LARGE_BYTES = 64 << 10


def feedback_routes(router: APIRouter, service: Service, metrics: ServingMetrics) -> None:
    """Puts it in."""

    @router.post("/feedback")
    async def take_feedback(request: Request) -> JSONResponse:
        """One event, an array, or a stream of them: `item`, `user`, `ranking` and `interaction`.

        All are read before any is stored. What was sent may be sent again.
        """
        began, one = time.perf_counter(), service.of(request.state.tenant)
        body = await request.body()
        events = await asyncio.to_thread(read_events, body) if len(body) > _LARGE_BYTES else read_events(body)
        updated = await _take(one, events)
        metrics.count_events("metarank", len(events))
        took_ms = round(1000 * (time.perf_counter() - began))
        return JSONResponse({"accepted": len(events), "status": "ok", "tookMillis": took_ms, "updated": updated})


async def _take(one: TenantService, events: Sequence[AnyEvent]) -> int:
    """Descriptions first, so that what is done with new items counts; how many changed something."""
    updated = 0
    if items := [event for event in events if isinstance(event, ItemEvent)]:
        updated += await _take_items(one, items)
    if users := [event for event in events if isinstance(event, UserEvent)]:
        updated += await _take_users(one, users)
    if lists := [_shown(event) for event in events if isinstance(event, RankingEvent)]:
        name = one.tenant.name
        one.tenant.write_shown()
        await asyncio.wrap_future(one.tenant.writer.submit(lambda connection: confirm_shown(connection, name, lists)))
    if done := [_event(event) for event in events if isinstance(event, InteractionEvent)]:
        updated += (await one.intake.add_events(done)).accepted
    return updated


async def _take_items(one: TenantService, events: Sequence[ItemEvent]) -> int:
    """Fields that are not named stay as they were."""
    ids = {event.item for event in events}
    items = await asyncio.to_thread(one.tenant.store.items.several, ids)
    for event in events:
        known = items.get(event.item) or Item(event.item, timestamp=event.timestamp or time.time())
        items[event.item] = described(known, event.named())
    return await one.intake.put_items([items[item] for item in sorted(ids)])


async def _take_users(one: TenantService, events: Sequence[UserEvent]) -> int:
    ids = sorted({event.user for event in events})
    users = await asyncio.to_thread(lambda: {user: one.tenant.store.users.get(user) or User(user) for user in ids})
    for event in events:
        known = users[event.user]
        before = known.labels if isinstance(known.labels, dict) else {}
        users[event.user] = replace(known, labels={**before, **event.named()})
    return await one.intake.put_users(list(users.values()))


def described(item: Item, fields: Mapping[str, Json]) -> Item:
    """An item with some fields anew.

    >>> described(Item("a"), {"title": "Jeans", "genres": ["Blue"], "description": "Warm.", "price": 5}).text
    'Jeans. Blue. Warm.'
    """
    own, rest = _own(fields)
    after = replace(item, **own, fields={**item.fields, **rest})
    words = next((told for name in _DESCRIPTIONS if isinstance(told := after.fields.get(name), str) and told), "")
    if words and (own or set(rest) & set(_DESCRIPTIONS)):
        return replace(after, text=f"{_head(after)} {words}".strip())
    # A text that somebody wrote stays; one that was made of title and categories is made anew when it is read.
    return replace(after, text="") if after.text == _head(item) else after


def _own(fields: Mapping[str, Json]) -> tuple[dict[str, Any], dict[str, Json]]:
    """Attributes of the item by their names, and the fields that are left."""
    rest = dict(fields)
    own: dict[str, Any] = {}
    title = next((name for name in _TITLES if isinstance(rest.get(name), str)), None)
    if title is not None:
        own["title"] = rest.pop(title)
    for name in _CATEGORIES:
        values = [rest[name]] if isinstance(rest.get(name), str) else rest.get(name)
        if isinstance(values, list) and all(isinstance(one, str) for one in values):
            own["categories"] = tuple(filter(None, values))
            del rest[name]
            break
    return own, rest


def _head(item: Item) -> str:
    return item_text(item.title or item.id, item.categories) if item.title or item.categories else ""


def _shown(event: RankingEvent) -> Shown:
    ids = event.ids()
    return Shown(
        id=event.id or uuid.uuid4().hex,
        user=event.user,
        session=event.session,
        at=event.timestamp or time.time(),
        arm=_ELSEWHERE,
        adapter="none",
        items=ids,
        sources=("given",) * len(ids),
    )


def _event(event: InteractionEvent) -> Event:
    """Somebody without a name is a session: that of the list they saw, or of this one event."""
    fields = event.named()
    value = next((fields.pop(name) for name in _VALUES if _is_number(fields.get(name))), 1.0)
    nameless = "" if event.user or event.session else event.ranking or event.id or uuid.uuid4().hex
    return Event(
        type=event.type,
        item=event.item,
        user=event.user,
        session=event.session or nameless,
        value=float(value),
        timestamp=event.timestamp,
        id=event.id,
        ranking=event.ranking,
        labels=fields or None,
    )


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
