"""Gorse's items."""

import asyncio
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Request
from fastapi import Query as InQuery
from fastapi.responses import JSONResponse

from fedrec_client.serving.api.gorse.asking import PageAsked, affected, page_of, tenant_of
from fedrec_client.serving.api.gorse.wire import ItemPatch, ItemSent, changes_of, item_of, tell_item
from fedrec_client.serving.errors import NotFoundError
from fedrec_client.serving.service import Service

_Asked = Annotated[PageAsked, InQuery()]


def item_routes(router: APIRouter, service: Service) -> None:
    """Adds them."""
    _adding(router, service)
    _reading(router, service)
    _changing(router, service)


def _adding(router: APIRouter, service: Service) -> None:
    async def put(request: Request, sent: Sequence[ItemSent]) -> JSONResponse:
        return affected(await tenant_of(service, request).intake.put_items([item_of(one) for one in sent]))

    @router.post("/api/item")
    async def add(request: Request, sent: ItemSent) -> JSONResponse:
        """Insert an item, or describe it anew."""
        return await put(request, [sent])

    @router.post("/api/items")
    async def add_all(request: Request, sent: list[ItemSent]) -> JSONResponse:
        """Insert items, or describe them anew."""
        return await put(request, sent)


def _reading(router: APIRouter, service: Service) -> None:
    @router.get("/api/items")
    async def page(request: Request, asked: _Asked) -> JSONResponse:
        """Some of all items, or of those with `q` in id, title or text."""
        items = tenant_of(service, request).tenant.store.items
        rows, cursor = await asyncio.to_thread(items.page, asked.size, asked.cursor, asked.q)
        return page_of("Items", [tell_item(item) for item in rows], cursor)

    @router.get("/api/item/{item_id}")
    async def get(request: Request, item_id: str) -> JSONResponse:
        """One."""
        found = await asyncio.to_thread(tenant_of(service, request).tenant.store.items.get, item_id)
        if found is None:
            raise NotFoundError("item")
        return JSONResponse(tell_item(found))


def _changing(router: APIRouter, service: Service) -> None:
    @router.patch("/api/item/{item_id}")
    async def modify(request: Request, item_id: str, patch: ItemPatch) -> JSONResponse:
        """Change what is not null; nothing of an item that is not there, as in Gorse."""
        one = tenant_of(service, request)
        before = await asyncio.to_thread(one.tenant.store.items.get, item_id)
        if before is None:
            return affected(0)
        if changes := changes_of(before, patch):
            await one.intake.change_item(item_id, changes)
        return affected(1)

    @router.delete("/api/item/{item_id}")
    async def remove(request: Request, item_id: str) -> JSONResponse:
        """Forget an item and its feedback."""
        return affected(int(await tenant_of(service, request).intake.remove_item(item_id, with_events=True)))

    @router.put("/api/item/{item_id}/category/{category}")
    async def add_category(request: Request, item_id: str, category: str) -> JSONResponse:
        """Put an item into a category."""
        return await set_category(request, item_id, category, is_in=True)

    @router.delete("/api/item/{item_id}/category/{category}")
    async def remove_category(request: Request, item_id: str, category: str) -> JSONResponse:
        """Take an item out of a category."""
        return await set_category(request, item_id, category, is_in=False)

    async def set_category(request: Request, item_id: str, category: str, *, is_in: bool) -> JSONResponse:
        one = tenant_of(service, request)
        before = await asyncio.to_thread(one.tenant.store.items.get, item_id)
        if before is None:
            raise NotFoundError("item")
        others = [other for other in before.categories if other != category]
        if (category in before.categories) != is_in:
            patch = ItemPatch.model_validate({"Categories": [*others, category] if is_in else others})
            await one.intake.change_item(item_id, changes_of(before, patch))
        return affected(1)
