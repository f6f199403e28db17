"""A small service behind the real guard, with keys of every scope, and a clock that tests turn."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import httpx
from fastapi import APIRouter, Request
from starlette.types import ASGIApp

from fedrec_client.serving.http.app import make_app
from fedrec_client.serving.http.keys import KeyRing
from fedrec_client.serving.http.metrics import EngineFigures, ServingMetrics
from fedrec_client.serving.settings import HttpSettings, ServingSettings

PLACE = "http://localhost:8088"


@dataclass(frozen=True)
class Key:
    name: str
    tenant: str
    scopes: tuple[str, ...]


KEYS = {
    "r": Key("reader", "shop-de", ("read",)),
    "w": Key("writer", "shop-de", ("write",)),
    "a": Key("owner", "shop-fr", ("admin",)),
}


@dataclass
class Book:
    """Keys as the store has them, and how often it was asked."""

    keys: dict[str, Key] = field(default_factory=lambda: dict(KEYS))
    asked: list[str] = field(default_factory=list)

    def find(self, secret: str) -> Key | None:
        self.asked.append(secret)
        return self.keys.get(secret)

    def has_keys(self) -> bool:
        return bool(self.keys)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def routes() -> APIRouter:
    router = APIRouter()

    @router.get("/v1/recommend/{user}")
    @router.post("/v1/recommend/{user}")
    async def recommend(user: str, request: Request) -> dict[str, Any]:
        state = request.state
        return {"tenant": state.tenant, "key": state.key, "scopes": sorted(state.scopes)}

    @router.post("/v1/events")
    @router.post("/feedback")
    async def take(request: Request) -> int:
        return len(await request.body())

    @router.post("/v1/rank/{seconds}")
    async def rank(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "ranked"

    @router.delete("/v1/users/{user}")
    async def forget(user: str) -> str:
        return "forgotten"

    return router


@dataclass
class Service:
    app: ASGIApp
    book: Book
    clock: Clock
    metrics: ServingMetrics
    ring: KeyRing

    def ask(self, *calls: dict[str, Any]) -> list[httpx.Response]:
        """All at once."""

        async def all_of_them() -> list[httpx.Response]:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url=PLACE) as client:
                return await asyncio.gather(*(client.request(**{"method": "GET", **call}) for call in calls))

        return asyncio.run(all_of_them())

    def get(self, url: str = "/v1/recommend/u", **call: Any) -> httpx.Response:
        (answer,) = self.ask({"url": url, **call})
        return answer


def service(book: Book | None = None, more: dict[str, Any] | None = None, **http: Any) -> Service:
    book, clock = book or Book(), Clock()
    metrics = ServingMetrics(EngineFigures)
    ring = KeyRing(book.find, book.has_keys, 5.0, clock)
    settings = ServingSettings.model_validate({"format": 1, "http": HttpSettings(**http), **(more or {})})
    app = make_app(settings, [routes()], ring=ring, metrics=metrics, is_ready=lambda: False, on_stop=lambda: None)
    return Service(app, book, clock, metrics, ring)


def key(secret: str, **more: str) -> dict[str, str]:
    return {"x-api-key": secret, **more}


def without_keys(**http: Any) -> Service:
    return service(Book({}), **http)
