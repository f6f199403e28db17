"""The admin app and the process that serves it, apart from the gateway that partners reach."""

import asyncio
import logging
import signal
from importlib.resources import files

import uvicorn
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from fedrec.errors import FedrecError, StorageError
from fedrec_server.admin.api import api_routes
from fedrec_server.admin.guard import Guard
from fedrec_server.admin.metrics import exposition
from fedrec_server.admin.pages import page_routes
from fedrec_server.admin.progress import EpsilonByRound
from fedrec_server.admin.readiness import readiness
from fedrec_server.keys.credentials import Credentials, make_tokens
from fedrec_server.settings import Coordinator

_log = logging.getLogger(__name__)
_PLACE = files("fedrec_server.admin")


def run_admin(coordinator: Coordinator) -> None:
    """Serve on the loopback until terminated. Raises as `Coordinator`."""
    make_tokens(coordinator.keys)
    port = coordinator.settings.local.admin_port
    config = uvicorn.Config(
        admin_app(coordinator),
        host="127.0.0.1",
        port=port,
        ws="none",
        limit_concurrency=200,
        timeout_graceful_shutdown=3,
        server_header=False,
        access_log=False,
        log_config=None,
    )
    _log.info("admin pages on http://localhost:%d", port, extra={"event": "admin_up"})
    server = uvicorn.Server(config)
    signal.signal(signal.SIGTERM, server.handle_exit)
    asyncio.run(server.serve())


def admin_app(coordinator: Coordinator) -> ASGIApp:
    """Everything behind the guard. Raises as `Coordinator.federation`."""
    federation = coordinator.federation()
    epsilon = EpsilonByRound(federation.terms.plan, federation.schedule)
    credentials = Credentials(coordinator.keys)
    app = FastAPI(
        title="fedrec coordinator",
        version="1",
        description="Administration of a coordinator. Every call needs `Authorization: Bearer` with the admin token.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
    )
    app.include_router(monitoring_routes(coordinator))
    app.include_router(api_routes(coordinator, epsilon))
    app.include_router(page_routes(coordinator, credentials, epsilon))
    static = StaticFiles(directory=str(_PLACE / "static"), packages=[("fedrec.web", "static")])
    app.mount("/static", static, name="static")
    app.add_exception_handler(FedrecError, _refused)
    app.add_exception_handler(RequestValidationError, _misformed)
    app.add_exception_handler(HTTPException, _no_such)
    app.add_exception_handler(Exception, _broken)
    return Guard(app, credentials)


def monitoring_routes(coordinator: Coordinator) -> APIRouter:
    """What machines look at: with `keys/metrics.token`, but for `/health`, which says no more than that it answers."""
    router = APIRouter(include_in_schema=False)

    @router.get("/health")
    def tell_health() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/ready")
    def tell_readiness() -> JSONResponse:
        found = readiness(coordinator)
        return JSONResponse(found.to_dict(), 200 if found.is_ready else 503)

    @router.get("/metrics")
    def tell_metrics() -> Response:
        content, kind = exposition(coordinator)
        return Response(content, headers={"content-type": kind})

    return router


async def _refused(_: Request, error: Exception) -> JSONResponse:
    """Words of ours; they name no secret."""
    assert isinstance(error, FedrecError)
    status = 503 if isinstance(error, StorageError) else 409
    return JSONResponse({"error": error.problem, "remedy": error.remedy}, status)


async def _misformed(_: Request, error: Exception) -> JSONResponse:
    """Every problem at once, without what was sent."""
    assert isinstance(error, RequestValidationError)
    problems = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
    return JSONResponse({"error": "; ".join(problems), "remedy": "see /api/v1/openapi.json"}, 422)


async def _broken(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": f"this failed here: {type(error).__name__}", "remedy": "read admin.log"}, 500)


async def _no_such(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers) if error.headers else None
    return JSONResponse({"error": str(error.detail), "remedy": ""}, error.status_code, headers)
