"""Items: added, described anew, hidden, taken away, searched."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends
from fastapi import Query as InQuery
from pydantic import Field, JsonValue

from fedrec.recommend.shelf import Item
from fedrec_client.serving.api.native.forms import (
    MOST_AT_ONCE,
    PROBLEMS,
    Asked,
    Category,
    Desk,
    Fields,
    Paged,
    Stored,
    Text,
    Timestamp,
    Told,
    WasThere,
)
from fedrec_client.serving.errors import NotFoundError
from fedrec_client.serving.http.paths import Id, Segment
from fedrec_client.serving.service import TenantService

_EXAMPLE = {"title": "Heat", "categories": ["Crime", "Thriller"], "timestamp": 818899200, "fields": {"price": 4.5}}


class ItemForm(Asked):
    """An item without its id; what is left out is as written here."""

    title: Annotated[Text, Field(description="What a person reads.")] = ""
    text: Annotated[Text, Field(description="What the LLM reads; empty: made of title and categories.")] = ""
    categories: list[Category] = Field([], max_length=100)
    timestamp: Annotated[Timestamp, Field(description="Of its appearance, Unix seconds; 0: unknown.")] = 0.0
    is_hidden: Annotated[bool, Field(description="Kept, but on no list.")] = False
    fields: Fields = Field({}, description="All else; what rules and filters read as `item.price`.")

    def values(self) -> dict[str, Any]:
        """What was sent, by the names of `Item`."""
        sent = {name: getattr(self, name) for name in self.model_fields_set - {"id"}}
        return sent | ({"categories": tuple(self.categories)} if "categories" in sent else {})


class NamedItemForm(ItemForm):
    """An item."""

    id: Id


class ItemTold(Told):
    """An item as it is stored."""

    id: str
    title: str
    text: str
    categories: list[str]
    timestamp: float
    is_hidden: bool
    fields: dict[str, JsonValue]


class ItemPage(Told):
    """Items, by id."""

    items: list[ItemTold]
    cursor: str


class ItemsInQuery(Paged):
    """Which items."""

    text: Annotated[str, Field(max_length=1000, description="In id, title or text, in capital or small letters.")] = ""


def item_routes(desk: Desk) -> APIRouter:
    """See the module."""
    router = APIRouter(prefix="/v1", tags=["Items"], responses=PROBLEMS)
    tenant = Depends(desk)

    @router.get("/items", summary="Search items")
    async def find(asked: Annotated[ItemsInQuery, InQuery()], one: TenantService = tenant) -> ItemPage:
        """All, or those with a text, by id."""
        items, cursor = await asyncio.to_thread(one.tenant.store.items.page, asked.n, asked.cursor, asked.text)
        return ItemPage(items=[_told(item) for item in items], cursor=cursor)

    @router.post("/items", summary="Add many items")
    async def put_many(
        sent: Annotated[list[NamedItemForm], Field(min_length=1, max_length=MOST_AT_ONCE)],
        one: TenantService = tenant,
    ) -> Stored:
        """Or describe them anew. The first 64 new ones are on the lists at once, the others some moments later."""
        return Stored(stored=await one.intake.put_items([Item(form.id, **form.values()) for form in sent]))

    @router.get("/items/{item}", summary="Read an item")
    async def get(item: Segment, one: TenantService = tenant) -> ItemTold:
        """As it is stored."""
        found = await asyncio.to_thread(one.tenant.store.items.get, item)
        if found is None:
            raise NotFoundError("item")
        return _told(found)

    @router.put("/items/{item}", summary="Add an item")
    async def put(
        item: Segment, sent: Annotated[ItemForm, Body(examples=[_EXAMPLE])], one: TenantService = tenant
    ) -> ItemTold:
        """Or describe it anew; it is on the lists when this answers."""
        made = Item(item, **sent.values())
        await one.intake.put_items([made])
        return _told(made)

    @router.patch("/items/{item}", summary="Change an item")
    async def change(
        item: Segment, sent: Annotated[ItemForm, Body(examples=[{"is_hidden": True}])], one: TenantService = tenant
    ) -> ItemTold:
        """What is sent takes the place of what was; `fields` as a whole."""
        return _told(await one.intake.change_item(item, sent.values()))

    @router.delete("/items/{item}", summary="Take an item off")
    async def remove(item: Segment, one: TenantService = tenant) -> WasThere:
        """Off all lists; its events stay."""
        return WasThere(was_there=await one.intake.remove_item(item))

    return router


def _told(item: Item) -> ItemTold:
    values = {name: getattr(item, name) for name in ItemTold.model_fields}
    return ItemTold(**{**values, "categories": list(item.categories), "fields": dict(item.fields)})
