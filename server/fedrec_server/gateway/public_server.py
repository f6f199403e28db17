"""The listener that anybody can reach: TLS 1.2 or newer, with bounds on connections before a request is read."""

import asyncio
import logging
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from fedrec_server.gateway.connection import Connection, ConnectionLimits
from fedrec_server.gateway.door import Guests, open_doors, room_for

_log = logging.getLogger(__name__)


class PublicServer(uvicorn.Server):
    """uvicorn behind a door of its own.

    Args:
        app: the gateway's.
        certificate, key: files, PEM.
        host, port: what to listen on.
        limits: of connections.
    """

    def __init__(
        self, app: Starlette, certificate: Path, key: Path, host: str, port: int, limits: ConnectionLimits
    ) -> None:
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            ws="none",
            # Believed by default of whoever calls from this machine, whose address then is what it says.
            proxy_headers=False,
            timeout_graceful_shutdown=3,
            server_header=False,
            date_header=False,
            access_log=False,
            log_config=None,
        )
        super().__init__(config)
        self.guests = Guests(room_for(limits.most), limits.most_of_one)
        self.listening: list[int] = []
        self._limits = limits
        self._tls = tls_context(certificate, key)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002  # uvicorn's
        """Listen. Raises RunError: somebody else does there."""
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            self.should_exit = True
            return
        loop, times = asyncio.get_running_loop(), self._limits
        doors = open_doors(self.config.host, self.config.port, self.guests)
        self.listening = [int(door.getsockname()[1]) for door in doors]
        self.servers = [
            await loop.create_server(
                self._connection,
                sock=door,
                ssl=self._tls,
                ssl_handshake_timeout=times.handshake_s,
                ssl_shutdown_timeout=times.flush_s,
            )
            for door in doors
        ]
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """In order, as far as others take part in it within some seconds; then whatever is left is cut off."""
        await super().shutdown(sockets)
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=self._limits.goodbye_s)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        for _ in range(100):
            if self.server_state.connections:
                await asyncio.sleep(0.01)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Another server shares the process: signals are the process's."""
        yield

    def _connection(self) -> Connection:
        return Connection(self.config, self.server_state, self.lifespan.state, self._limits)


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """What a server shows; nothing older than TLS 1.2, and no renegotiation, which costs a server more than a caller.

    Raises: ssl.SSLError, OSError: certificate and key do not fit, or are missing.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.load_cert_chain(certificate, key)
    return context
