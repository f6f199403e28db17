"""Before any route: nobody without credentials, nothing from another site, no large body, strict headers on all."""

import hmac
from collections.abc import MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from fedrec.errors import FedrecError
from fedrec_server.keys.credentials import Credentials, Session

COOKIE = "fedrec_session"
CSRF_HEADER = "x-csrf-token"
_MOST_BYTES = 64 << 10
_OPEN = ("/login", "/health")
_FOR_MONITORING = ("/metrics", "/ready")
_SAFE = ("GET", "HEAD")
# A page that another name leads to is another site's: DNS can be made to point here.
_HOSTS = ("127.0.0.1", "localhost", "::1")
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


class Guard:
    """See the module. What passes finds `state.session`, None for a token, in its scope.

    Args:
        app: the routes.
        credentials: what opens them.
    """

    def __init__(self, app: ASGIApp, credentials: Credentials) -> None:
        self._app, self._credentials = app, credentials

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One call."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers, path = Headers(scope=scope), str(scope["path"])
        outgoing = _Outgoing(send, is_kept=path.startswith("/static/"))
        scope.setdefault("state", {})["session"] = None
        try:
            refusal = _not_this_site(headers, str(scope["method"])) or await self._unknown(scope, headers, path)
        except FedrecError as error:  # a file of credentials is gone, or may be read by others: nobody gets in
            refusal = _refuse(500, error.problem)
        if refusal is None:
            body = await _read(receive)
            refusal = _refuse(413, f"the body is larger than {_MOST_BYTES} bytes") if body is None else None
        if refusal is not None:
            await refusal(scope, receive, outgoing)
        else:
            await self._app(scope, _once(body or b"", receive), outgoing)

    async def _unknown(self, scope: Scope, headers: Headers, path: str) -> Response | None:
        """Why somebody must stay out, or None."""
        session = await run_in_threadpool(self._credentials.session, _cookie(headers))
        scope["state"]["session"] = session
        if path in _OPEN or path.startswith("/static/"):
            return None
        if session is not None:
            return _forged(headers, str(scope["method"]), session)
        token = headers.get("authorization", "").removeprefix("Bearer ")
        if await run_in_threadpool(self._credentials.is_admin_token, token):
            return None
        if path in _FOR_MONITORING and await run_in_threadpool(self._credentials.is_metrics_token, token):
            return None
        if headers.get("hx-request"):
            return Response(status_code=401, headers={"hx-redirect": "/login"})
        if scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
            return RedirectResponse("/login", 303)
        return _refuse(401, "no valid token", {"www-authenticate": "Bearer"})


class _Outgoing:
    """Adds what every answer carries."""

    def __init__(self, send: Send, *, is_kept: bool) -> None:
        self._send = send
        # Files carry their version in the address; everything else is today's and somebody's own.
        cache = "max-age=86400, immutable" if is_kept else "no-store"
        self._extra = [(k.encode(), v.encode()) for k, v in {**HEADERS, "cache-control": cache}.items()]

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        """One message of an answer."""
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *self._extra]}
        await self._send(message)


def _not_this_site(headers: Headers, method: str) -> Response | None:
    """Only this machine's own names, and only changes that a page of ours, or no page, asks for."""
    if _name(f"//{headers.get('host', '')}") not in _HOSTS:
        return _refuse(421, "this address is not known here: use localhost or 127.0.0.1")
    if method in _SAFE:
        return None
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2] != headers.get("host"):
        return _refuse(403, "the request comes from another site")
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return _refuse(403, "the request comes from another site")
    return None


def _forged(headers: Headers, method: str, session: Session) -> Response | None:
    """A change must bring what only our own pages know."""
    if method in _SAFE or hmac.compare_digest(headers.get(CSRF_HEADER, "").encode(), session.csrf.encode()):
        return None
    return _refuse(403, "the page is out of date: load it again")


def _name(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _cookie(headers: Headers) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


def _refuse(status: int, words: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": words, "remedy": ""}, status, headers)


async def _read(receive: Receive) -> bytes | None:
    """The body; None if it is too large."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b"".join(parts)
        size += len(message.get("body", b""))
        if size > _MOST_BYTES:
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


def _once(body: bytes, receive: Receive) -> Receive:
    """Hands out a body that was read, then whatever comes after it."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def hand_out() -> MutableMapping[str, Any]:
        return messages.pop() if messages else await receive()

    return hand_out
