"""The service's app: routes behind the guard, inside the frame."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from fedrec_client.serving.http.frame import Frame
from fedrec_client.serving.http.guard import Guard
from fedrec_client.serving.http.keys import KeyRing
from fedrec_client.serving.http.metrics import ServingMetrics
from fedrec_client.serving.http.problems import handle_problems
from fedrec_client.serving.http.reference import reference_page
from fedrec_client.serving.settings import ServingSettings
from fedrec_client.serving.tracing import Tracing, make_tracing

_WORDS = "Recommendations of this partner. Every call needs an API key, as `X-API-Key` or `Authorization: Bearer`."
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_ASKED = ("authorization", "content-type", "x-api-key", "x-api-version", "x-request-id")
_SHOWN = ("x-request-id", "retry-after")


def make_app(
    settings: ServingSettings,
    routers: Sequence[APIRouter],
    *,
    ring: KeyRing,
    metrics: ServingMetrics,
    is_ready: Callable[[], bool],
    on_stop: Callable[[], None],
    on_start: Callable[[], Awaitable[None]] | None = None,
    tracing: Tracing | None = None,
    static: Path | None = None,
) -> ASGIApp:
    """Everything, from the outermost: frame, CORS, guard, routes.

    Args:
        settings: of the service.
        routers: the APIs and pages. Their paths need lines in `scopes.py`, or "admin".
        ring: the API keys; who makes or revokes one calls its `forget`.
        metrics: in which the routers count too.
        is_ready: whether the engine answers; must not block.
        on_start: opens them, in the event loop, while health is answered already.
        on_stop: closes engine and store, once all requests have ended; may block.
        tracing: in place of what the settings say.
        static: folder of what the pages load, under `/static`.
    Raises: ConfigError: as `make_tracing`.
    """
    tracing = tracing or make_tracing(settings.tracing)
    app = FastAPI(
        title="fedrec serving",
        version="1",
        description=_WORDS,
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        lifespan=_lifespan(on_start, on_stop, tracing),
    )
    # Routers are searched in this order: the busy ones come first.
    for router in (*routers, _watching(metrics, is_ready), _reference(app)):
        app.router.routes.extend(router.routes)  # flat, since a router within one costs with every request
    if static is not None:
        app.mount("/static", StaticFiles(directory=static), name="static")
    handle_problems(app)
    return Frame(_with_cors(Guard(app, settings, ring, metrics), settings.http.cors_origins), metrics, tracing)


def _lifespan(on_start: Callable[[], Awaitable[None]] | None, on_stop: Callable[[], None], tracing: Tracing) -> Any:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        starting = asyncio.ensure_future(on_start()) if on_start else None
        try:
            yield
        finally:
            if starting is not None:
                starting.cancel()
                await asyncio.wait([starting])
            await run_in_threadpool(on_stop)
            await run_in_threadpool(tracing.stop)

    return lifespan


def _with_cors(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """Before the guard, since a browser asks without a key whether it may ask with one."""
    if not origins:
        return app
    return CORSMiddleware(
        app, allow_origins=origins, allow_methods=_METHODS, allow_headers=_ASKED, expose_headers=_SHOWN, max_age=600
    )


def _watching(metrics: ServingMetrics, is_ready: Callable[[], bool]) -> APIRouter:
    """Whether it lives, whether it is ready, and its figures; ours and Gorse's."""
    router = APIRouter(include_in_schema=False)

    @router.get("/health")
    async def tell_health() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/ready")
    async def tell_readiness() -> JSONResponse:
        ready = is_ready()
        return JSONResponse({"is_ready": ready}, 200 if ready else 503)

    @router.get("/api/health/live")
    async def tell_gorse_health() -> JSONResponse:
        return JSONResponse(_gorse_health(is_ready=is_ready()))

    @router.get("/api/health/ready")
    async def tell_gorse_readiness() -> JSONResponse:
        ready = is_ready()
        return JSONResponse(_gorse_health(is_ready=ready), 200 if ready else 503)

    @router.get("/metrics")
    def tell_metrics() -> Response:
        content, kind = metrics.exposition()
        return Response(content, headers={"content-type": kind})

    return router


def _gorse_health(*, is_ready: bool) -> dict[str, bool | None]:
    """Both of Gorse's stores are our one."""
    told: dict[str, bool | None] = {"Ready": is_ready, "DataStoreError": None, "CacheStoreError": None}
    return told | {"DataStoreConnected": True, "CacheStoreConnected": True}


def _reference(app: FastAPI) -> APIRouter:
    """The API for people, and where Gorse's tools look for it."""
    router = APIRouter(include_in_schema=False)
    page = cache(lambda: reference_page(app.openapi()))

    @router.get("/v1/docs")
    @router.get("/apidocs")
    def tell_people() -> HTMLResponse:
        return HTMLResponse(page())

    @router.get("/apidocs.json")
    def tell_programs() -> JSONResponse:
        return JSONResponse(app.openapi())

    return router
