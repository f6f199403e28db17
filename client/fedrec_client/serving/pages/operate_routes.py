"""Routes of the operator's page, `/operate`."""

import asyncio
import json
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse

from fedrec.errors import ConfigError
from fedrec_client.serving.http.access import who_asks
from fedrec_client.serving.pages.asked import Asked, Fields
from fedrec_client.serving.pages.figures import Figures
from fedrec_client.serving.pages.key_routes import add_keys
from fedrec_client.serving.pages.outside import Outside
from fedrec_client.serving.pages.rendering import Rendering
from fedrec_client.serving.pages.review_routes import add_review
from fedrec_client.serving.pages.rule_desk import BLANK, form_of, problems_of, read_form, try_rule
from fedrec_client.serving.pages.sentiment_routes import add_sentiment
from fedrec_client.serving.pages.support_routes import add_queue
from fedrec_client.serving.service import Service, TenantService

_ON_A_PAGE = 50


def add_operate(router: APIRouter, service: Service, figures: Figures, rendering: Rendering, outside: Outside) -> None:
    """Add all of them."""
    _add_figures(router, figures, rendering)
    _add_rules(router, service, rendering)
    _add_books(router, service, rendering)
    add_queue(router, service, rendering)
    add_sentiment(router, service, rendering)
    add_keys(router, service, rendering, outside)
    add_review(router, service, rendering)


def tenant_of(request: Request) -> str:
    """Whose the caller is, as the guard found."""
    return str(request.scope["state"]["tenant"])


def _add_figures(router: APIRouter, figures: Figures, rendering: Rendering) -> None:
    async def values(request: Request) -> dict[str, Any]:
        found = await figures.of(tenant_of(request))
        return {"tenant": tenant_of(request), "told": found, "as_json": json.dumps(found), "place": "overview"}

    @router.get("/operate")
    async def show_overview(request: Request) -> HTMLResponse:
        return rendering.page("operate", await values(request))

    @router.get("/operate/live")
    async def show_live(request: Request) -> HTMLResponse:
        return rendering.page("_live", await values(request))

    @router.get("/operate/figures")
    async def tell_figures(request: Request) -> JSONResponse:
        return JSONResponse(await figures.of(tenant_of(request)))


def _add_rules(router: APIRouter, service: Service, rendering: Rendering) -> None:
    def told(one: TenantService, form: Fields, **more: Any) -> HTMLResponse:
        values = {"rules": one.policy.every(), "form": BLANK | form, "said": "", "problems": [], "tried": None}
        return rendering.page("_rules", values | more)

    @router.get("/operate/rules")
    async def show_rules(request: Request, asked: Asked) -> HTMLResponse:
        one = service.of(tenant_of(request))
        form = form_of(one.policy.find(asked["edit"])) if asked.get("edit") else BLANK
        values = {"rules": one.policy.every(), "form": form, "said": "", "problems": [], "tried": None}
        return rendering.page("rules", values | {"tenant": tenant_of(request), "place": "rules"})

    @router.post("/operate/rules")
    async def save_rule(request: Request, asked: Asked) -> HTMLResponse:
        one = service.of(tenant_of(request))
        try:
            rule = read_form(asked)
            if one.reviewing.settings.rules:
                await one.reviewing.propose(rule, "", who_asks(request))
                return told(one, BLANK, said=f"{rule.name} waits for a person: see Review.")
            await one.policy.put(rule)
            before = asked.get("was", "")
            if before != rule.name and (before, False) in [(known.name, there) for known, there in one.policy.every()]:
                await one.policy.remove(before)  # it has another name now
        except ConfigError as error:
            return told(one, asked, problems=problems_of(error))
        return told(one, form_of(rule), said=f"{rule.name} is in force." if rule.enabled else f"{rule.name} is kept.")

    @router.post("/operate/rules/try")
    async def try_it(request: Request, asked: Asked) -> HTMLResponse:
        one = service.of(tenant_of(request))
        try:
            tried = await try_rule(one, read_form(asked))
        except ConfigError as error:
            return told(one, asked, problems=problems_of(error))
        return told(one, asked, tried=tried)

    @router.post("/operate/rules/remove")
    async def remove_rule(request: Request, asked: Asked) -> HTMLResponse:
        one, name = service.of(tenant_of(request)), asked.get("rule", "")
        if one.reviewing.settings.rules:
            one.policy.find(name)
            await one.reviewing.propose(None, name, who_asks(request))
            return told(one, BLANK, said=f"That {name} goes waits for a person: see Review.")
        await one.policy.remove(name)
        return told(one, BLANK, said=f"{name} is gone.")


def _add_books(router: APIRouter, service: Service, rendering: Rendering) -> None:
    @router.get("/operate/events")
    async def show_events(request: Request, asked: Asked) -> HTMLResponse:
        one = service.of(tenant_of(request))
        which = {name: asked.get(name, "").strip() for name in ("type", "user", "item")}
        given = {name: value or None for name, value in which.items()}
        rows, cursor = await asyncio.to_thread(
            lambda: one.tenant.store.events.find_raw(_ON_A_PAGE, asked.get("cursor", ""), **given)
        )
        titles = {row.item: _title(one, row.item) for row in rows}
        values = {"tenant": tenant_of(request), "place": "events", "which": which, "rows": rows, "titles": titles}
        return rendering.page("events", values | {"cursor": cursor})

    @router.get("/operate/opinions")
    async def show_opinions(request: Request) -> HTMLResponse:
        one = service.of(tenant_of(request))
        opinions = one.tenant.store.opinions
        rows, counts = await asyncio.to_thread(lambda: (opinions.latest(_ON_A_PAGE), opinions.counts()))
        values = {"tenant": tenant_of(request), "place": "opinions", "rows": rows, "counts": counts}
        return rendering.page("opinions", values | {"titles": {row.item: _title(one, row.item) for row in rows}})


def _title(one: TenantService, item: str) -> str:
    code = one.tenant.shelf.find(item)
    return item if code is None else one.tenant.shelf.item(code).title or item
