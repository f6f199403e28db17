"""Routes of the storefront, `/shop`."""

import asyncio
import secrets
import time
from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from fedrec.data.catalog import item_text
from fedrec.errors import DataError
from fedrec_client.serving.errors import NotFoundError
from fedrec_client.serving.pages.asked import Asked, Fields, Visiting, Visitor, number
from fedrec_client.serving.pages.outside import Outside, Promise
from fedrec_client.serving.pages.rendering import Rendering
from fedrec_client.serving.pages.shop import DEEDS, MOST_AT_ONCE, ON_A_PAGE, Found, Shop
from fedrec_client.serving.pages.support_routes import add_asking

_MOST_WORDS = 200


def add_shop(router: APIRouter, shop: Shop, rendering: Rendering, outside: Outside) -> None:
    """Add all of them."""
    _add_pages(router, shop, rendering, outside)
    _add_parts(router, shop, rendering)
    _add_deeds(router, shop, rendering)
    add_asking(router, shop, rendering, lambda visitor: _around(shop, visitor, outside))


def _add_pages(router: APIRouter, shop: Shop, rendering: Rendering, outside: Outside) -> None:
    @router.get("/shop")
    async def show_shop(visitor: Visiting, asked: Asked) -> Response:
        if not (visitor.user or visitor.session):
            picked = [] if "new" in asked else await shop.picked(visitor)
            somebody = Visitor("", user=picked[0]) if picked else Visitor("", session=secrets.token_hex(8))
            return RedirectResponse(f"/shop?{somebody.address}", 303)
        values = await _around(shop, visitor, outside) | await _rows(shop, visitor)
        values |= {"listed": await shop.for_you(visitor), "questions": await shop.questions(visitor)}
        return rendering.page("shop", values | {"said": ""})

    @router.get("/shop/items/{item:path}")
    async def show_item(item: str, visitor: Visiting) -> Response:
        if not (visitor.user or visitor.session):
            visitor = Visitor(visitor.tenant, session=secrets.token_hex(8), sees_people=visitor.sees_people)
        found = shop.item(visitor, item)
        values = await _around(shop, visitor, outside)
        says_more = found.text != item_text(found.title, found.categories)
        values |= {"item": found, "text": found.text if says_more else "", "done": ""}
        return rendering.page("item", values | {"similar": await shop.similar(visitor, item)})


def _add_parts(router: APIRouter, shop: Shop, rendering: Rendering) -> None:
    @router.get("/shop/more")
    async def show_more(visitor: Visiting, asked: Asked) -> HTMLResponse:
        shown = number(asked, "shown", 0, 100_000, 0)
        listed = await shop.more(visitor, asked.get("cursor", ""), _best(asked), shown)
        return rendering.page("_more", {"visitor": visitor, "listed": listed})

    @router.get("/shop/search")
    async def show_found(visitor: Visiting, asked: Asked) -> HTMLResponse:
        words = " ".join(asked.get("q", "").split())[:_MOST_WORDS]
        found = await shop.found(visitor, words) if words else Found((), ())
        return rendering.page("_found", {"visitor": visitor, "words": words, "found": found})

    @router.get("/shop/why")
    async def show_why(visitor: Visiting, asked: Asked) -> HTMLResponse:
        item, ranking = asked.get("item", ""), asked.get("ranking", "")
        checked, gains = await shop.why(visitor, item, asked.get("source", ""))
        values = {"visitor": visitor, "item": shop.item(visitor, item), "ranking": ranking}
        return rendering.page("_why", values | {"checked": checked, "gains": gains})


def _add_deeds(router: APIRouter, shop: Shop, rendering: Rendering) -> None:
    @router.post("/shop/events")
    async def note_event(visitor: Visiting, asked: Asked) -> HTMLResponse:
        began = time.perf_counter()
        deed, item = asked.get("type", ""), asked.get("item", "")
        found = await shop.note(visitor, deed, item, asked.get("ranking", "")[:256])
        said = f"{DEEDS[deed]} {found.title or found.id}"
        values: dict[str, Any] = {"visitor": visitor, "said": said, "deed": deed, "noted": found}
        if asked.get("at") == "item":
            values |= {"item": found, "done": said, "similar": await shop.similar(visitor, item)}
            return rendering.page("_noted_item", values)
        n = number(asked, "n", ON_A_PAGE, MOST_AT_ONCE, ON_A_PAGE)
        values |= {"listed": await shop.for_you(visitor, n), "lately": await shop.lately(visitor)}
        values |= await _rows(shop, visitor) | {"questions": await shop.questions(visitor)}
        return rendering.page("_noted", values | {"took_ms": 1000 * (time.perf_counter() - began)})

    @router.post("/shop/opinions")
    async def note_opinion(visitor: Visiting, asked: Asked) -> HTMLResponse:
        if asked.get("helpful") not in ("yes", "no") or not asked.get("ranking"):
            raise DataError("this is no opinion on a reason", "load the page again")
        ranking, item = asked["ranking"][:256], asked.get("item", "")
        shop.item(visitor, item)
        opinions = shop.of(visitor).tenant.store.opinions
        await asyncio.to_thread(opinions.add, visitor.user, ranking, item, asked["helpful"] == "yes", "", time.time())
        return rendering.page("_thanks", {"is_helpful": asked["helpful"] == "yes"})


async def _around(shop: Shop, visitor: Visitor, outside: Outside) -> dict[str, Any]:
    """What every page of the shop has around its middle."""
    shop.of(visitor)
    return {
        "visitor": visitor,
        "picked": await shop.picked(visitor),
        "lately": await shop.lately(visitor),
        "promise": Promise.read(await asyncio.to_thread(outside.statement)),
    }


async def _rows(shop: Shop, visitor: Visitor) -> dict[str, Any]:
    return {"trending": await shop.row(visitor, "trending"), "latest": await shop.row(visitor, "latest")}


def _best(asked: Fields) -> float:
    try:
        return float(asked.get("best", ""))
    except ValueError as error:
        raise NotFoundError("page", "begin with the first one") from error
