"""Around everything: each request's id, what every answer carries, and what is counted, logged and traced of it."""

import itertools
import re
import secrets
import time
from collections.abc import MutableMapping
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from fedrec_client.serving.http.access import log_access, log_failure
from fedrec_client.serving.http.metrics import ServingMetrics
from fedrec_client.serving.http.problems import broken, family_of, respond
from fedrec_client.serving.tracing import Tracing

_PROCESS, _NUMBERS = secrets.token_hex(4), itertools.count()  # of requests; a random id each would cost more
_SANE = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_ALWAYS = [(b"x-content-type-options", b"nosniff")]
_FRESH = (b"cache-control", b"no-store")  # somebody's own, of now
_KEPT = (b"cache-control", b"max-age=86400, immutable")  # these carry their version in the address
_OF_PAGES = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
_PAGE_HEADERS = [(name.encode(), value.encode()) for name, value in _OF_PAGES.items()]


class Frame:
    """See the module. `state.request` holds the id.

    Args:
        app: all that can fail.
        metrics: where requests are counted.
        tracing: spans, or none.
    """

    def __init__(self, app: ASGIApp, metrics: ServingMetrics, tracing: Tracing) -> None:
        self._app, self._metrics, self._tracing = app, metrics, tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One call; no error leaves it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        path = str(scope["path"])
        outgoing = _Outgoing(send, _request_id(scope), is_kept=path.startswith("/static/"))
        scope.setdefault("state", {})["request"] = outgoing.request
        method = scope["method"] if scope["method"] in _METHODS else "other"
        api, began = family_of(path), time.perf_counter()
        with self._tracing.request(method, scope["headers"]) as tell:
            try:
                await self._app(scope, receive, outgoing)
            except Exception as error:  # noqa: BLE001  # its words may quote anything: they go nowhere
                await self._failed(error, scope, receive, outgoing)
            finally:
                seconds, route = time.perf_counter() - began, route_template(scope)
                tell(api, route, outgoing.status)
                self._metrics.observe(api, route, method, outgoing.status, seconds)
                log_access(method, route, outgoing.status, seconds, outgoing.request)

    async def _failed(self, error: Exception, scope: Scope, receive: Receive, outgoing: "_Outgoing") -> None:
        """Tell it, unless an answer has begun, which then ends in the middle."""
        log_failure(error, route_template(scope), outgoing.request)
        if not outgoing.status:
            await respond(broken(error), scope["path"], outgoing.request)(scope, receive, outgoing)


class _Outgoing:
    """Adds what every answer carries, and keeps its status; 0 before it."""

    def __init__(self, send: Send, request: str, *, is_kept: bool) -> None:
        self._send, self.request, self.status = send, request, 0
        self._extra = [*_ALWAYS, _KEPT if is_kept else _FRESH, (b"x-request-id", request.encode())]

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        """One message of an answer."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", []), *self._extra]
            if any(name == b"content-type" and value.startswith(b"text/html") for name, value in headers):
                headers += _PAGE_HEADERS
            message = {**message, "headers": headers}
        await self._send(message)


def route_template(scope: Scope) -> str:
    """Such as "/api/recommend/{user_id}"; "none" where no route was reached. Never the path, which holds ids."""
    # Of a router in a router FastAPI keeps the whole path here, and only its end in the route.
    context = scope.get("fastapi", {}).get("effective_route_context") or scope.get("route")
    found = getattr(context, "path_format", None) or getattr(context, "path", None)
    return found if isinstance(found, str) else "none"


def _request_id(scope: Scope) -> str:
    """The caller's, if it looks like one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _SANE.fullmatch(value):
            return str(value.decode())
    return f"{_PROCESS}-{next(_NUMBERS):x}"
