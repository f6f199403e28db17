"""Routes of the support: asking in the shop, and the queue of what a person must answer."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from fedrec.errors import FedrecError
from fedrec.support.answers import MOST_TEXT
from fedrec_client.serving.errors import NotFoundError
from fedrec_client.serving.pages.asked import Asked, Visiting
from fedrec_client.serving.pages.rendering import Rendering
from fedrec_client.serving.pages.shop import Shop
from fedrec_client.serving.service import Service, TenantService

_MOST_REQUEST, _SHOWN, _ON_A_PAGE = 2000, 3, 50


def add_asking(router: APIRouter, shop: Shop, rendering: Rendering, around: Any) -> None:
    """Add what visitors of the shop see.

    Args:
        around: what every page of the shop has around its middle, for a visitor.
    """

    @router.get("/shop/ask")
    async def show_form(visitor: Visiting, asked: Asked) -> Response:
        """With what a person answered, where the address names a hand-over."""
        values = await around(visitor) | {"reply": None, "looked": False}
        if name := asked.get("handover", "").strip():
            values["looked"] = True
            try:
                values["reply"] = await shop.of(visitor).support.handover(name)
            except NotFoundError:
                values["reply"] = None
        return rendering.page("ask", values)

    @router.post("/shop/ask")
    async def answer(visitor: Visiting, asked: Asked) -> HTMLResponse:
        words = " ".join(asked.get("request", "").split())[:_MOST_REQUEST]
        values: dict[str, Any] = {"visitor": visitor, "found": None, "problem": ""}
        if not words:
            return rendering.page("_answered", values | {"problem": "Write down what you want to know."})
        try:
            found = await shop.of(visitor).support.question(words, visitor.user, _SHOWN, hands_over=True)
        except FedrecError as error:
            return rendering.page("_answered", values | {"problem": error.problem})
        return rendering.page("_answered", values | {"found": found})


def add_queue(router: APIRouter, service: Service, rendering: Rendering) -> None:
    """Add what the partner's own people see."""

    @router.get("/operate/support")
    async def show_queue(request: Request) -> HTMLResponse:
        one = _of(service, request)
        values = await _queue(one) | {"said": "", "problem": ""}
        return rendering.page("support", values | {"tenant": one.tenant.name, "place": "support"})

    @router.post("/operate/support")
    async def reply(request: Request, asked: Asked) -> HTMLResponse:
        one, text = _of(service, request), asked.get("answer", "").strip()[:MOST_TEXT]
        if not text:
            return rendering.page("_support", await _queue(one) | {"said": "", "problem": "An answer needs words."})
        try:
            joined = await one.support.reply(asked.get("handover", ""), text, asked.get("wording", "").strip())
        except FedrecError as error:
            return rendering.page("_support", await _queue(one) | {"said": "", "problem": error.problem})
        said = "Answered, and others find it from now on." if joined else "Answered."
        return rendering.page("_support", await _queue(one) | {"said": said, "problem": ""})


def _of(service: Service, request: Request) -> TenantService:
    return service.of(str(request.scope["state"]["tenant"]))


async def _queue(one: TenantService) -> dict[str, Any]:
    waiting, (n_open, n_done) = await one.support.queue(_ON_A_PAGE, is_open=True)
    questions = {answer.id: answer.question for answer in await one.support.answers()}
    return {"waiting": waiting, "n_open": n_open, "n_done": n_done, "questions": questions}
