"""Routes of the page about what people write: windows, topics and alarms. Counts alone; no text was kept."""

import json
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from fedrec_client.serving.api.native.sentiment import told_of
from fedrec_client.serving.pages.rendering import Rendering
from fedrec_client.serving.service import Service

_CHARTED = 24


def add_sentiment(router: APIRouter, service: Service, rendering: Rendering) -> None:
    """Add them."""

    def values(request: Request) -> dict[str, Any]:
        tenant = str(request.scope["state"]["tenant"])
        one = service.of(tenant).sentiment
        told = told_of(one.told(_CHARTED), is_on=one.is_on).model_dump()
        last = told["texts"]
        for window in reversed(told["windows"]):
            first = last - window["texts"] + 1
            window["has_alarm"] = any(first <= rise["text"] <= last for rise in told["rises"])
            last = first - 1
        plotted = {name: told[name] for name in ("windows", "base", "raised")}
        return {"tenant": tenant, "place": "sentiment", "told": told, "as_json": json.dumps(plotted)}

    @router.get("/operate/sentiment")
    async def show_sentiment(request: Request) -> HTMLResponse:
        return rendering.page("sentiment", values(request))

    @router.get("/operate/sentiment/live")
    async def show_live(request: Request) -> HTMLResponse:
        return rendering.page("_sentiment", values(request))
