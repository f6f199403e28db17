"""The process that partners talk to: the gateway on TLS, and on a socket the rope with which the driver rings."""

import asyncio
import logging
import os
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from fedrec.errors import ConfigError
from fedrec_server.gateway.app import Gateway
from fedrec_server.gateway.bell import Bell
from fedrec_server.gateway.connection import ConnectionLimits
from fedrec_server.gateway.limits import GatewayLimits
from fedrec_server.gateway.partner_desk import PartnerDesk
from fedrec_server.gateway.public_server import PublicServer
from fedrec_server.keys.key_rotation import key_papers
from fedrec_server.settings import Coordinator
from fedrec_server.state.partner_book import PartnerBook

_log = logging.getLogger(__name__)
_HELD_S = 1.0
_LONGEST_SOCKET = 107


def run_front(coordinator: Coordinator) -> None:
    """Serve until terminated. Raises as `Coordinator`."""
    asyncio.run(_serve(coordinator))


async def _serve(coordinator: Coordinator) -> None:
    gateway = make_gateway(coordinator)
    settings = coordinator.settings.gateway
    limits = ConnectionLimits(most_of_one=settings.connections_per_address)
    certificate, key = coordinator.keys / "server.pem", coordinator.keys / "server.key"
    public = PublicServer(gateway.app(), certificate, key, settings.host, settings.port, limits)
    inner = _Server(uvicorn.Config(bell_app(gateway.bell, gateway.answers), access_log=False, log_config=None))
    rope = _own_socket(bell_socket(coordinator))
    _log.info("gateway on %s:%d", settings.host, settings.port, extra={"event": "gateway_up"})

    def end() -> None:
        gateway.stop()
        public.should_exit = inner.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end)
    await asyncio.gather(public.serve(), inner.serve(sockets=[rope]))


def bell_socket(coordinator: Coordinator) -> Path:
    """Where the driver pulls. Raises ConfigError: the folder's name is too long for a socket."""
    path = (coordinator.folder / "state" / "bell.sock").resolve()
    if len(os.fsencode(path)) > _LONGEST_SOCKET:
        raise ConfigError(f"{path}: is too long for a socket", f"a folder of at most {_LONGEST_SOCKET - 16} bytes")
    return path


def _own_socket(path: Path) -> socket.socket:
    """For this user from the first moment."""
    path.unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.bind(str(path))
    finally:
        os.umask(before)
    return made


class _Server(uvicorn.Server):
    """Two of them share a process, so that signals are the process's, not each server's."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them alone."""
        yield


def make_gateway(coordinator: Coordinator) -> Gateway:
    """The gateway of a coordinator's folder. It never reads the signing key."""
    settings, place = coordinator.settings.gateway, coordinator.superlink
    context = ssl.create_default_context(cafile=place.certificates / "ca.pem")
    upstream = httpx.AsyncClient(base_url=f"https://{place.address}", verify=context, timeout=60.0)
    book = PartnerBook(coordinator.database)
    federation, papers = coordinator.federation(), partial(key_papers, coordinator)
    desk = PartnerDesk(book, federation, coordinator.terms_signature(), coordinator.heads, papers)
    bounds = GatewayLimits(object_bytes=settings.object_megabytes << 20, calls_per_s=settings.calls_per_s)
    return Gateway(upstream, desk, (coordinator.keys / "ca.pem").read_bytes(), bounds)


def bell_app(bell: Bell, answers: Bell) -> Starlette:
    """For the driver alone: the socket's permissions say who may."""

    async def ring(_: Request) -> JSONResponse:
        bell.ring()
        return JSONResponse({"rung": True})

    async def heard(request: Request) -> JSONResponse:
        since = request.query_params.get("since", "")
        known = int(since) if since.isascii() and since.isdigit() else -1
        return JSONResponse({"count": await answers.settle(known, _HELD_S)})

    return Starlette(routes=[Route("/ring", ring, methods=["POST"]), Route("/answers", heard)])


class BellRope:
    """Rings the gateway's bell from another process; if nobody hears it, nodes find their work some seconds later."""

    def __init__(self, coordinator: Coordinator) -> None:
        way = httpx.HTTPTransport(uds=str(bell_socket(coordinator)))
        self._client = httpx.Client(base_url="http://gateway", transport=way, timeout=5.0)
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
