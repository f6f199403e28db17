"""The process that partners and administrators talk to: the gateway on TLS, the admin API on the loopback."""

import asyncio
import hmac
import logging
import signal
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fedrec.signing import read_secret
from fedrec_server.gateway import Bell, Gateway, GatewayLimits
from fedrec_server.partner_book import PartnerBook
from fedrec_server.partner_desk import PartnerDesk
from fedrec_server.settings import Coordinator

_log = logging.getLogger(__name__)
# Open connections; more wait at the door.
_MOST_CONNECTIONS = 4000
_HELD_S = 1.0
# Longer than a node is silent between two heartbeats, each of which would cost a handshake otherwise; and one that
# calls just as its connection is closed has to call again, a second later.
_IDLE_CONNECTION_S = 40


def run_front(coordinator: Coordinator) -> None:
    """Serve until terminated. Raises as `Coordinator`."""
    asyncio.run(_serve(coordinator))


async def _serve(coordinator: Coordinator) -> None:
    gateway = make_gateway(coordinator)
    settings, local = coordinator.settings.gateway, coordinator.settings.local
    public = uvicorn.Config(
        gateway.app(),
        host=settings.host,
        port=settings.port,
        ssl_certfile=coordinator.keys / "server.pem",
        ssl_keyfile=coordinator.keys / "server.key",
        ssl_version=ssl.PROTOCOL_TLS_SERVER,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_keep_alive=_IDLE_CONNECTION_S,
        timeout_graceful_shutdown=3,
        server_header=False,
        date_header=False,
        access_log=False,
        log_config=None,
    )
    token = read_secret(coordinator.keys / "admin.token").decode()
    admin = uvicorn.Config(
        admin_app(gateway.bell, gateway.answers, token),
        host="127.0.0.1",
        port=local.admin_port,
        access_log=False,
        log_config=None,
    )
    servers = [_Server(public), _Server(admin)]
    _log.info("gateway on %s:%d", settings.host, settings.port, extra={"event": "gateway_up"})

    def end() -> None:
        for server in servers:
            server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end)
    await asyncio.gather(*(server.serve() for server in servers))


class _Server(uvicorn.Server):
    """Two of them share a process, so that signals are the process's, not each server's."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them alone."""
        yield


def make_gateway(coordinator: Coordinator) -> Gateway:
    """The gateway of a coordinator's folder. It never reads the signing key."""
    settings, place = coordinator.settings.gateway, coordinator.superlink
    context = ssl.create_default_context(cafile=coordinator.keys / "ca.pem")
    upstream = httpx.AsyncClient(base_url=f"https://{place.address}", verify=context, timeout=60.0)
    book = PartnerBook(coordinator.database)
    desk = PartnerDesk(book, coordinator.federation(), coordinator.terms_signature(), coordinator.heads)
    bounds = GatewayLimits(object_bytes=settings.object_megabytes << 20, calls_per_s=settings.calls_per_s)
    return Gateway(upstream, desk, (coordinator.keys / "ca.pem").read_bytes(), bounds)


def admin_app(bell: Bell, answers: Bell, token: str) -> Starlette:
    """For this machine: who asks must hold the token of the coordinator's folder."""

    def guarded(do: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def checked(request: Request) -> Response:
            given = request.headers.get("authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(given.encode(), token.encode()):
                return JSONResponse({"error": "no valid token"}, 401)
            return await do(request)

        return checked

    async def ring(_: Request) -> Response:
        bell.ring()
        return JSONResponse({"rung": True})

    async def heard(request: Request) -> Response:
        since = request.query_params.get("since", "")
        known = int(since) if since.isascii() and since.isdigit() else -1
        return JSONResponse({"count": await answers.settle(known, _HELD_S)})

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    return Starlette(
        routes=[
            Route("/health", health),
            Route("/internal/ring", guarded(ring), methods=["POST"]),
            Route("/internal/answers", guarded(heard)),
        ],
    )


class BellRope:
    """Rings the gateway's bell from another process; if nobody hears it, nodes find their work some seconds later."""

    def __init__(self, coordinator: Coordinator) -> None:
        token = read_secret(coordinator.keys / "admin.token").decode()
        address = f"http://127.0.0.1:{coordinator.settings.local.admin_port}/internal/"
        self._client = httpx.Client(base_url=address, headers={"authorization": f"Bearer {token}"}, timeout=5.0)
        self._heard = 0

    def pull(self) -> None:
        """Ring."""
        try:
            self._client.post("ring")
        except httpx.HTTPError as error:
            _log.warning("nobody hears the bell: %s", type(error).__name__, extra={"event": "no_gateway"})

    def listen(self, at_least_s: float) -> None:
        """Until some node has handed over something of an answer, or about a second; without a gateway `at_least_s`.

        To look for answers all the time would keep the SuperLink from taking them.
        """
        try:
            self._heard = int(self._client.get("answers", params={"since": self._heard}).json()["count"])
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            time.sleep(at_least_s)
