"""API keys on the operator's page: made, shown once, revoked."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from fedrec.errors import ConfigError
from fedrec_client.serving.errors import NotFoundError
from fedrec_client.serving.pages.asked import Asked
from fedrec_client.serving.pages.outside import Outside
from fedrec_client.serving.pages.rendering import Rendering
from fedrec_client.serving.service import Service
from fedrec_client.serving.store.key_book import Scope

_SCOPES: tuple[Scope, ...] = ("read", "write", "admin")


def add_keys(router: APIRouter, service: Service, rendering: Rendering, outside: Outside) -> None:
    """Add all of them. A caller sees and changes keys of its own tenant alone."""
    book = service.store.keys

    def values(request: Request, **more: Any) -> dict[str, Any]:
        tenant = str(request.scope["state"]["tenant"])
        keys = [key for key in book.every() if key.tenant == tenant]
        shared = {"tenant": tenant, "keys": keys, "own": request.scope["state"]["key"], "scopes": _SCOPES}
        return shared | {"place": "keys", "said": "", "wrong": "", "secret": "", "name": ""} | more

    @router.get("/operate/keys")
    def show_keys(request: Request) -> HTMLResponse:
        return rendering.page("keys", values(request))

    @router.post("/operate/keys")
    async def make_key(request: Request, asked: Asked) -> HTMLResponse:
        name = asked.get("name", "").strip()
        scopes = {scope for scope in _SCOPES if asked.get(scope) == "yes"}
        try:
            secret = await asyncio.to_thread(_make, service, request, name, scopes)
        except ConfigError as error:
            told = await asyncio.to_thread(values, request, wrong=f"{error.problem}: {error.remedy}", name=name)
            return rendering.page("_keys", told)
        outside.on_keys_changed()
        said = f"{name} is made: copy its secret now."
        return rendering.page("_keys", await asyncio.to_thread(values, request, said=said, secret=secret))

    @router.post("/operate/keys/revoke")
    async def revoke_key(request: Request, asked: Asked) -> HTMLResponse:
        name = asked.get("key", "")
        await asyncio.to_thread(_revoke, service, request, name)
        outside.on_keys_changed()
        return rendering.page("_keys", await asyncio.to_thread(values, request, said=f"{name} opens nothing more."))


def _make(service: Service, request: Request, name: str, scopes: set[Scope]) -> str:
    """Raises ConfigError, also where this key would lock its maker out."""
    tenant = str(request.scope["state"]["tenant"])
    if "admin" not in scopes and not _admins(service, tenant):
        raise ConfigError("the first key needs the scope admin", "without one nobody could come back here")
    return service.store.keys.create(tenant, name, scopes)


def _revoke(service: Service, request: Request, name: str) -> None:
    """Raises NotFoundError; ConfigError: it is the last with which anybody can come here."""
    tenant = str(request.scope["state"]["tenant"])
    if not any(key.name == name and key.tenant == tenant for key in service.store.keys.every()):
        raise NotFoundError("key")
    if _admins(service, tenant) == [name]:
        raise ConfigError("this is the last key with the scope admin", "make another one first")
    service.store.keys.revoke(name)


def _admins(service: Service, tenant: str) -> list[str]:
    return [key.name for key in service.store.keys.every() if key.tenant == tenant and "admin" in key.scopes]
