"""One connection of a partner, or of somebody hostile: HTTP/1.1 with times and sizes that uvicorn alone has not.

uvicorn waits for ever for a first request and for the rest of its head, keeps heads of any size, queues pipelined
requests without end, and writes a line of the log for whatever a stranger sends.
"""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState


@dataclass(frozen=True)
class ConnectionLimits:
    """What one connection may take, and how many there may be.

    Attributes:
        most: connections at all.
        most_of_one: of one address.
        handshake_s: for TLS.
        head_s: from a request's first byte, or from the connection's begin, until its head is there.
        idle_s: between an answer and the next request; longer than a node is silent between two heartbeats, each of
            which would cost a handshake otherwise.
        linger_s: that a refused caller may go on sending before it is cut off.
        goodbye_s: for the last answer when the gateway stops; idle clients do not hear that a connection is closed.
        flush_s: that an answer may take to be fetched after `idle_s`.
        head_bytes: of a request line and its headers.
    """

    most: int = 4000
    most_of_one: int = 256
    handshake_s: float = 10.0
    head_s: float = 10.0
    idle_s: float = 40.0
    linger_s: float = 5.0
    goodbye_s: float = 1.0
    flush_s: float = 60.0
    head_bytes: int = 16 << 10


class _RefusalError(Exception):
    """Raised inside the parser's callbacks; ends the connection with a status."""

    def __init__(self, status: int, problem: str) -> None:
        super().__init__(problem)
        self.status = status


class Connection(HttpToolsProtocol):
    """uvicorn's protocol with one timer, which always runs unless a request is being answered."""

    def __init__(
        self, config: uvicorn.Config, state: ServerState, app_state: dict[str, Any], limits: ConnectionLimits
    ) -> None:
        super().__init__(config, state, app_state)
        self.access_log = False  # the gateway writes its own
        self._limits = limits
        self._timer: asyncio.TimerHandle | None = None
        self._in_head, self._is_whole, self._is_last = False, True, False
        self._fed_bytes, self._parsed_bytes = 0, 0  # of this head: before a line is whole, and once it is

    # asyncio's side

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a first request, not for ever."""
        super().connection_made(transport)
        self._arm(self._limits.head_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave no timer behind."""
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, unless the connection is being closed."""
        if self.transport.is_closing():
            return
        try:
            self.parser.feed_data(data)
            if self._in_head:
                self._fed_bytes += len(data)
                self._bound(self._fed_bytes)
        except _RefusalError as refusal:
            self._refuse(refusal)
        except httptools.HttpParserError as error:
            told = error.__context__
            self._refuse(told if isinstance(told, _RefusalError) else _RefusalError(400, "not HTTP/1.1"))
        except httptools.HttpParserUpgrade:
            self._refuse(_RefusalError(400, "only HTTP/1.1 is spoken here"))

    def shutdown(self) -> None:
        """The gateway stops: what is being answered is answered, and then it is over."""
        super().shutdown()
        self._is_last = True
        if self.transport.is_closing():
            self._abort_in(self._limits.goodbye_s)

    # The parser's side

    def on_message_begin(self) -> None:
        """A request's head begins. Nobody who means well begins one before the last one was answered."""
        if self.cycle is not None and not self.cycle.response_complete:
            raise _RefusalError(400, "one request at a time")
        super().on_message_begin()
        self._in_head, self._is_whole = True, False
        self._fed_bytes, self._parsed_bytes = 0, 0
        self._arm(self._limits.head_s)

    def on_url(self, url: bytes) -> None:
        """A part of the request line."""
        self._parsed_bytes += len(url)
        self._bound(self._parsed_bytes)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; a body's length has to be told in advance, so that there are no chunks and no trailers."""
        self._parsed_bytes += len(name) + len(value)
        self._bound(self._parsed_bytes)
        if name.lower() == b"transfer-encoding":
            raise _RefusalError(411, "tell the body's length")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is there; what follows has its own times."""
        if self.parser.should_upgrade() or self.parser.get_http_version() not in ("1.0", "1.1"):
            raise _RefusalError(400, "only HTTP/1.1 is spoken here")
        super().on_headers_complete()
        self._in_head = False
        self._disarm()

    def on_message_complete(self) -> None:
        """The whole body is there."""
        self._is_whole = True
        super().on_message_complete()
        if self.cycle.response_complete:
            self._arm(self._limits.idle_s)

    def on_response_complete(self) -> None:
        """Wait for the next request; who still sends the body of one that was answered is cut off soon."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            if self._is_last:
                self._abort_in(self._limits.goodbye_s)
            return
        self.flow.resume_reading()
        self._arm(self._limits.idle_s if self._is_whole else self._limits.linger_s)

    # Ours

    def _bound(self, n_bytes: int) -> None:
        if n_bytes > self._limits.head_bytes:
            raise _RefusalError(431, f"request line and headers take more than {self._limits.head_bytes} bytes")

    def _refuse(self, refusal: _RefusalError) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.abort()  # words would stand in the midst of another answer
            return
        content = json.dumps({"error": str(refusal)}, separators=(",", ":")).encode()
        headers = f"content-type: application/json\r\ncontent-length: {len(content)}\r\nconnection: close\r\n\r\n"
        self.transport.write(STATUS_LINE[refusal.status] + headers.encode() + content)
        self._close()

    def _close(self) -> None:
        """In order, as far as the other side takes part in it."""
        self.transport.close()
        self._abort_in(self._limits.linger_s)

    def _cut(self) -> None:
        """Time is up. A caller that has been answered may still fetch it, for `flush_s`."""
        if self._is_whole and self.cycle is not None:
            self.transport.close()
        else:
            self._close()

    def _abort_in(self, seconds: float) -> None:
        self._disarm()
        self._timer = self.loop.call_later(seconds, self.transport.abort)

    def _arm(self, seconds: float) -> None:
        self._disarm()
        self._timer = self.loop.call_later(seconds, self._cut)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
