"""A node's `/metrics`, `/health` and `/ready`, on the loopback, while the node runs."""

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fedrec.errors import ConfigError
from fedrec_client.figures import NodeWatch
from fedrec_client.metrics import exposition, readiness

_log = logging.getLogger(__name__)
_HOST = "127.0.0.1"
_MOST_CONNECTIONS = 20


@contextmanager
def serve_metrics(watch: NodeWatch, port: int) -> Iterator[None]:
    """Answer on a port of the loopback until left. Raises ConfigError: the port is taken."""
    try:
        listener = socket.create_server((_HOST, port))
    except OSError as error:
        problem = f"local.metrics_port {port}: {error.strerror}"
        raise ConfigError(problem, "choose another in client.toml, or 0 for no metrics") from error
    config = uvicorn.Config(
        metrics_app(watch),
        limit_concurrency=_MOST_CONNECTIONS,
        lifespan="off",
        ws="none",
        access_log=False,
        log_config=None,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), name="metrics", daemon=True)
    watch.start()
    thread.start()
    _log.info("metrics on %s:%d", _HOST, port, extra={"event": "metrics_up"})
    try:
        yield
    finally:
        watch.stop()
        server.should_exit = True
        thread.join(timeout=5.0)
        listener.close()


def metrics_app(watch: NodeWatch) -> Starlette:
    """The three pages. They hold nothing private, so that they ask for no password.

    A page in somebody's browser on this machine must not read them under a name of its own: other hosts are refused.
    """

    def metrics(_: Request) -> Response:
        content, kind = exposition(watch.figures())
        return Response(content, media_type=None, headers={"content-type": kind})

    def ready(_: Request) -> Response:
        found = readiness(watch.figures())
        return JSONResponse(found, 200 if found["is_ready"] else 503)

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=["localhost", _HOST])
    routes = [Route("/metrics", metrics), Route("/ready", ready), Route("/health", health)]
    return Starlette(routes=routes, middleware=[hosts])
