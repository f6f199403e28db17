"""Before any route: who calls and what for, from which site, how often, how much at once, how large and how long.

Where no API key was ever made and the service listens on the loopback, it is open to this machine: to programs on it,
under the machine's own names, not to pages of other sites and not to what a proxy forwards.
"""

import asyncio
import ipaddress
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from fedrec.errors import FedrecError
from fedrec_client.serving.http.keys import KeyRing, secret_in, too_often
from fedrec_client.serving.http.metrics import ServingMetrics
from fedrec_client.serving.http.paths import routed_path
from fedrec_client.serving.http.problems import Problem, RefusalError, problem_of, respond
from fedrec_client.serving.http.rates import Buckets
from fedrec_client.serving.http.scopes import EVERY_SCOPE, granted, scope_needed
from fedrec_client.serving.settings import ServingSettings

# What watches the service must see it when it is full.
_WATCHED = ("/health", "/ready", "/metrics", "/api/health/live", "/api/health/ready")
_FORWARDED = (b"x-forwarded-for", b"x-forwarded-host", b"forwarded", b"x-real-ip")
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
_BURST_S = 2.0
_DRAIN = {"connection": "close"}  # no more of a body that is not read


@dataclass(frozen=True)
class Caller:
    """Who calls: whose items and users, by which key ("" for none), and what they may do."""

    tenant: str
    key: str
    scopes: frozenset[str]


class Guard:
    """See the module. What passes finds `state.tenant`, `state.key` (its name) and `state.scopes` in its scope.

    Args:
        app: the routes.
        settings: of the service.
        ring: the keys.
        metrics: where refusals are counted.
    """

    def __init__(self, app: ASGIApp, settings: ServingSettings, ring: KeyRing, metrics: ServingMetrics) -> None:
        http = settings.http
        self._app, self._ring, self._metrics = app, ring, metrics
        self._most_bytes, self._timeout_s, self._waiting = http.body_mb << 20, http.timeout_s, http.waiting
        self._origins = frozenset(http.cors_origins)
        self._may_be_open = is_open_without_keys(settings)
        self._anybody = Caller(settings.tenant_names[0], "", EVERY_SCOPE)
        rate = http.requests_per_s
        self._buckets = Buckets(rate, rate * _BURST_S) if rate else None
        self._under_way = 0
        metrics.watch_under_way(lambda: self._under_way)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One call."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"] = routed_path(scope)  # the same for the table of scopes as for the routes
        try:
            if path in _WATCHED:
                await self._admitted(scope, path)
                await self._pass_on(scope, receive, send)
            else:
                await self._in_turn(scope, path, receive, send)
        except RefusalError as error:
            self._metrics.refuse(error.problem.name)
            await respond(error.problem, path, scope["state"].get("request", ""))(scope, receive, send)

    async def _in_turn(self, scope: Scope, path: str, receive: Receive, send: Send) -> None:
        """Where there is room."""
        if self._under_way >= self._waiting:
            words = "too many requests are under way"
            headers = {"retry-after": "1"}
            raise RefusalError(Problem("busy", 503, "The service is full", words, "try again", headers=headers))
        self._under_way += 1
        try:
            await self._admitted(scope, path)
            await self._pass_on(scope, receive, send)
        finally:
            self._under_way -= 1

    async def _admitted(self, scope: Scope, path: str) -> None:
        """Who calls, into the scope's state. Raises RefusalError."""
        state = scope.setdefault("state", {})
        need = scope_needed(scope["method"], path)
        if need == "open":
            state["tenant"], state["key"], state["scopes"] = self._anybody.tenant, "", frozenset()
            return
        try:
            caller = await self._caller(scope, dict(scope["headers"]), path)
        except FedrecError as error:  # the store cannot be read: nobody gets in
            raise RefusalError(problem_of(error)) from error
        if need not in caller.scopes:
            raise RefusalError(_forbidden(f'this API key lacks the scope "{need}"'))
        if self._buckets and path not in _WATCHED and (wait_s := self._buckets.take(f"{caller.tenant}/{caller.key}")):
            raise RefusalError(too_often("more than this API key may send", wait_s))
        state["tenant"], state["key"], state["scopes"] = caller.tenant, caller.key, caller.scopes

    async def _caller(self, scope: Scope, heads: Mapping[bytes, bytes], path: str) -> Caller:
        if self._may_be_open and await self._ring.is_empty():
            self._stay_here(heads)
            self._stay_on_site(heads, scope["method"], path)
            return self._anybody
        secret, is_ambient = secret_in(heads)
        if is_ambient:
            self._stay_on_site(heads, scope["method"], path)
        client = scope.get("client")
        key = await self._ring.find(secret, client[0] if client else "")
        if key is None:
            raise RefusalError(_unauthorized(is_browser=b"text/html" in heads.get(b"accept", b"")))
        return Caller(key.tenant, key.name, granted(frozenset(key.scopes)))

    def _stay_here(self, heads: Mapping[bytes, bytes]) -> None:
        """Without keys only this machine's own programs: DNS can be made to point here, and a proxy to pass all on."""
        if _name(heads.get(b"host", b"")) not in _LOOPBACK_NAMES:
            words = "this address is not known here"
            raise RefusalError(Problem("misdirected", 421, "Another address", words, "use localhost or 127.0.0.1"))
        if any(name in heads for name in _FORWARDED):
            raise RefusalError(_unauthorized(is_browser=False))

    def _stay_on_site(self, heads: Mapping[bytes, bytes], method: str, path: str) -> None:
        """Where a browser may call without its person's wish: pages of other sites must not make it."""
        origin = heads.get(b"origin")
        if origin is not None:
            is_own = origin.partition(b"://")[2] == heads.get(b"host")
            if not is_own and origin.decode("latin-1") not in self._origins:
                raise RefusalError(_forbidden("the request comes from another site"))
            return
        if heads.get(b"sec-fetch-site", b"none") in (b"none", b"same-origin"):
            return
        is_link = method == "GET" and heads.get(b"sec-fetch-mode") == b"navigate"
        if not (is_link and not path.startswith(("/v1/", "/api/"))):
            raise RefusalError(_forbidden("the request comes from another site"))

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """To the routes, within bounds of bytes and time."""
        body, has_begun = _Body(receive, self._most_bytes), False
        if _claimed(scope["headers"]) > self._most_bytes:
            raise RefusalError(_too_large(self._most_bytes))

        async def sent(message: MutableMapping[str, Any]) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            async with asyncio.timeout(self._timeout_s) as limit:
                await self._app(scope, body, sent)
        except TimeoutError as error:
            if has_begun or not limit.expired():
                raise
            raise RefusalError(_too_late(is_sender=body.is_waiting)) from error
        if body.is_too_large:
            self._metrics.refuse("too-large")


class _Body:
    """Counts what comes, whatever length was claimed."""

    def __init__(self, receive: Receive, most_bytes: int) -> None:
        self._receive, self._most_bytes = receive, most_bytes
        self._size, self._is_whole = 0, False
        self.is_waiting, self.is_too_large = False, False

    async def __call__(self) -> MutableMapping[str, Any]:
        """The next message. Raises HTTPException: too many bytes; routes let it through."""
        self.is_waiting = not self._is_whole
        message = await self._receive()
        self.is_waiting = False
        if message["type"] == "http.request":
            self._size += len(message.get("body", b""))
            self._is_whole = not message.get("more_body", False)
        if self._size > self._most_bytes:
            self.is_too_large = True
            raise HTTPException(413, _too_large(self._most_bytes).detail, _DRAIN)
        return message


def is_open_without_keys(settings: ServingSettings) -> bool:
    """Whether this machine's programs may call where no key is.

    With several tenants nobody could say whose data a call without a key means; through a proxy anybody may call.
    """
    http = settings.http
    return is_loopback(http.host) and not http.behind_proxy and len(settings.tenant_names) == 1


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("::1"), is_loopback("0.0.0.0"), is_loopback("")
    (True, True, True, False, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _claimed(headers: list[tuple[bytes, bytes]]) -> int:
    """The length that the head names; 0 without one that can be read."""
    for name, value in headers:
        if name == b"content-length":
            return int(value) if value.isdigit() and len(value) < 19 else 0
    return 0


def _name(host: bytes) -> str | None:
    try:
        return urlsplit(f"//{host.decode('latin-1')}").hostname
    except ValueError:
        return None


def _unauthorized(*, is_browser: bool) -> Problem:
    kind = 'Basic realm="fedrec: an API key as password"' if is_browser else "Bearer"
    remedy = "send an API key as X-API-Key or Authorization: Bearer; `flower-client api-keys` makes one"
    return Problem("unauthorized", 401, "unauthorized", remedy=remedy, headers={"www-authenticate": kind})


def _forbidden(words: str) -> Problem:
    return Problem("forbidden", 403, "This caller may not", words)


def _too_large(most_bytes: int) -> Problem:
    words = f"the body is larger than {most_bytes} bytes"
    return Problem("too-large", 413, "The body is too large", words, "send less at a time", headers=_DRAIN)


def _too_late(*, is_sender: bool) -> Problem:
    if is_sender:
        return Problem("slow-body", 408, "The body did not come in time", headers=_DRAIN)
    return Problem("timeout", 503, "This took too long", remedy="try again", headers={"retry-after": "1"})
