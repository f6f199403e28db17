"""All that partners can reach: Flower's fleet API for those who are approved, enrolment, terms and adapters. TLS.

Flower's SuperLink answers everything on one port and asks for no password where runs are started. So it listens on
the loopback, and what is not named here does not exist out there.
"""

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

import httpx
from flwr.proto.fleet_pb2 import PullMessagesRequest, PullMessagesResponse
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from google.protobuf.message import DecodeError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fedrec.errors import FedrecError, ProtocolError, StorageError
from fedrec.signing import verify
from fedrec_server.limits import Buckets, CallError, read_body
from fedrec_server.node_signature import check_node
from fedrec_server.partner_book import Partner
from fedrec_server.partner_desk import PartnerDesk

# Of Flower's fleet API; that nodes register themselves is not among them.
FLEET_CALLS = (
    "activate-node",
    "deactivate-node",
    "send-node-heartbeat",
    "pull-messages",
    "push-messages",
    "get-run",
    "get-fab",
    "push-object",
    "pull-object",
    "confirm-message-received",
)
_PASSED_ON = ("content-type", "accept", "user-agent")
_FLOWER_HEADER = "flwr-"
_BEAT = "send-node-heartbeat"
_SMALL_BYTES = 1 << 20
_CLOCKS_MAY_DIFFER_S = 60.0
_log = logging.getLogger(__name__)
Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class GatewayLimits:
    """What one partner, or a stranger, may take.

    Attributes:
        object_bytes: of one tensor on its way.
        calls_per_s, burst: of one partner.
        strangers_per_s: calls of one address without a partner's key.
        held_s: how long a question for work is held open before it is answered with nothing. Flower's node waits 3 s
            after each such answer, and gives up a call after 30 s.
        look_s: how long the SuperLink's word that a node has no work is believed while nobody says that there is some:
            a thousand nodes that ask anew every 23 s would keep it busy with that alone.
        at_once: calls of the SuperLink that are under way; it takes one after the other anyhow, and more of them only
            wait for its database's lock, which it gives up after 5 s. Others wait here, in their order.
        beats_at_once: of heartbeats, which are not to wait behind the others: a node that is not heard is not asked.
    """

    object_bytes: int = 256 << 20
    calls_per_s: float = 200.0
    burst: int = 4000
    strangers_per_s: float = 20.0
    held_s: float = 20.0
    look_s: float = 60.0
    at_once: int = 8
    beats_at_once: int = 2


class Bell:
    """Rung when something was handed to the SuperLink, so that whoever waits for it looks at once.

    Attributes:
        count: how often it rang.
    """

    def __init__(self) -> None:
        self.count = 0
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Wake everybody who waits."""
        self.count += 1
        self._rung.set()
        self._rung = asyncio.Event()

    async def wait(self, timeout_s: float) -> None:
        """Until it rings, or for so long."""
        rung = self._rung
        with suppress(TimeoutError):
            await asyncio.wait_for(rung.wait(), timeout_s)

    async def settle(self, since: int, timeout_s: float, quiet_s: float = 0.06) -> int:
        """Until it has rung after the count `since` and is quiet again, or for so long. Returns the count."""
        end = time.monotonic() + timeout_s
        if self.count == since:
            await self.wait(timeout_s)
        while self.count != since and time.monotonic() < end:
            before = self.count
            await self.wait(quiet_s)
            if self.count == before:
                break
        return self.count


@dataclass
class Gateway:
    """What the routes share.

    Attributes:
        upstream: a client of the SuperLink on the loopback.
        desk: answers what is ours.
        authority: `ca.pem`, public.
        bell: rung for nodes that wait for work.
        answers: rings when a node has handed over something of an answer.
    """

    upstream: httpx.AsyncClient
    desk: PartnerDesk
    authority: bytes
    limits: GatewayLimits = field(default_factory=GatewayLimits)
    bell: Bell = field(default_factory=Bell)
    answers: Bell = field(default_factory=Bell)

    def __post_init__(self) -> None:
        self._numbers = itertools.count(1)
        self._partners = Buckets(self.limits.calls_per_s, self.limits.burst)
        self._strangers = Buckets(self.limits.strangers_per_s, int(10 * self.limits.strangers_per_s))
        self._lane, self._beats = asyncio.Semaphore(self.limits.at_once), asyncio.Semaphore(self.limits.beats_at_once)
        self._beating: set[str] = set()  # keys of nodes whose heartbeat waits for its turn
        self._idle: dict[str, tuple[int, float]] = {}  # node's key -> rings, and when, as it was told there is no work

    def app(self) -> Starlette:
        """The ASGI application."""
        ours: dict[tuple[str, str], Handler] = {
            ("GET", "/health"): self._health,
            ("GET", "/fedrec/v1/authority"): self._authority,
            ("POST", "/fedrec/v1/enrol"): self._enrol,
            ("GET", "/fedrec/v1/me"): self._me,
            ("POST", "/fedrec/v1/leave"): self._leave,
            ("GET", "/fedrec/v1/terms"): self._terms,
            ("GET", "/fedrec/v1/catalog"): self._catalog,
            ("GET", "/fedrec/v1/adapter"): self._adapter,
            ("GET", "/fedrec/v1/adapter/tensors"): self._tensors,
        }
        routes = [Route(path, self._guarded(path, do), methods=[method]) for (method, path), do in ours.items()]
        for name in FLEET_CALLS:
            path = f"/v1/fleet/{name}"
            routes.append(Route(path, self._guarded(path, partial(self._fleet, name)), methods=["POST"]))
        return Starlette(routes=routes, lifespan=self._lifespan)

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        yield
        await self.upstream.aclose()

    def _guarded(self, path: str, do: Handler) -> Handler:
        """Errors become short JSON without inner words, and every call is a line of the debug log."""

        async def guarded(request: Request) -> Response:
            started = time.monotonic()
            response = await self._answered(request, do)
            took = {"seconds": round(time.monotonic() - started, 3), "bytes": len(response.body)}
            told = {"request": next(self._numbers), "path": path, "status": response.status_code, **took}
            _log.debug("%s", path, extra={"event": "call", **told})
            return response

        return guarded

    async def _answered(self, request: Request, do: Handler) -> Response:
        try:
            return await do(request)
        except CallError as error:
            return JSONResponse({"error": error.problem}, error.status)
        except StorageError:
            return JSONResponse({"error": "the coordinator cannot write now; try again later"}, 503)
        except FedrecError as error:
            return JSONResponse({"error": error.problem}, 403)
        except httpx.TransportError:
            return JSONResponse({"error": "the coordinator is starting; try again"}, 503)

    # For anybody

    async def _health(self, _: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _authority(self, request: Request) -> Response:
        self._spare_strangers(request)
        return Response(self.authority, media_type="application/x-pem-file")

    async def _enrol(self, request: Request) -> Response:
        self._spare_strangers(request)
        body = await read_body(request, _SMALL_BYTES)
        return JSONResponse(await run_in_threadpool(self.desk.enrol, body))

    # For partners, by their signature

    async def _me(self, request: Request) -> Response:
        partner = await self._signed(request, also_pending=True)
        return JSONResponse(await run_in_threadpool(self.desk.tell, partner))

    async def _leave(self, request: Request) -> Response:
        partner = await self._signed(request, also_pending=True)
        return JSONResponse(await run_in_threadpool(self.desk.leave, partner))

    async def _terms(self, request: Request) -> Response:
        await self._signed(request)
        return JSONResponse(self.desk.terms())

    async def _catalog(self, request: Request) -> Response:
        await self._signed(request)
        return Response(self.desk.federation.catalog, media_type="application/octet-stream")

    async def _adapter(self, request: Request) -> Response:
        await self._signed(request)
        return JSONResponse(await run_in_threadpool(self.desk.adapter))

    async def _tensors(self, request: Request) -> Response:
        await self._signed(request)
        content = await run_in_threadpool(self.desk.tensors, request.query_params.get("hash", ""))
        return Response(content, media_type="application/octet-stream")

    async def _signed(self, request: Request, *, also_pending: bool = False) -> Partner:
        """The partner that signed the request. Strangers and signatures that fail get one and the same answer."""
        self._spare_strangers(request)
        name, at = request.headers.get("fedrec-partner", ""), request.headers.get("fedrec-time", "")
        partner = await run_in_threadpool(self.desk.known, name)
        try:
            if partner is None or abs((datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds()) > (
                _CLOCKS_MAY_DIFFER_S
            ):
                raise ProtocolError("stale, or from a stranger")
            values = {"method": request.method, "path": request.url.path, "query": request.url.query, "time": at}
            signature = request.headers.get("fedrec-signature", "")
            verify(bytes.fromhex(partner.signing_key), "request", values, signature)
        except (ProtocolError, ValueError, TypeError) as error:
            raise CallError(401, "no partner's signature, or clocks differ by over a minute") from error
        if partner.status != "approved" and not (also_pending and partner.status in ("pending", "suspended")):
            raise CallError(403, f"this partner is {partner.status}")
        self._spend(partner.name)
        return partner

    # Flower's fleet API

    async def _fleet(self, name: str, request: Request) -> Response:
        partner = await self._holder(request)
        self._spend(partner.name)
        limit = self.limits.object_bytes if name == "push-object" else _SMALL_BYTES
        body = await read_body(request, limit)
        await run_in_threadpool(self.desk.see, partner.name)
        if name == "pull-messages":
            return await self._held(request, body)
        response = await (self._beat if name == _BEAT else self._forward)(request, body)
        if name in ("push-messages", "push-object"):
            self.answers.ring()
        return response

    async def _holder(self, request: Request) -> Partner:
        """Whose key the call names; that its owner made the call, the SuperLink finds out from the signature."""
        named = request.headers.get(FLEET_HTTP_PUBLIC_KEY_HEADER, "")
        partner = await run_in_threadpool(self.desk.holder, named)
        if partner is None:
            self._spare_strangers(request)
            raise CallError(401, "no partner's key")
        if partner.status != "approved":
            raise CallError(403, f"this partner is {partner.status}")
        return partner

    async def _held(self, request: Request, body: bytes) -> Response:
        """Answer a node that asks for work when there is some, or after a while with nothing."""
        try:
            PullMessagesRequest.FromString(body)
        except DecodeError as error:
            raise CallError(400, "not protobuf") from error
        named, end = request.headers[FLEET_HTTP_PUBLIC_KEY_HEADER], time.monotonic() + self.limits.held_s
        if self._is_idle(named):  # then nobody but this gateway will look at who asks
            await run_in_threadpool(check_node, request.headers)
        while time.monotonic() < end and not await request.is_disconnected():
            if not self._is_idle(named):
                rings = self.bell.count  # of a ring while the SuperLink answers nobody knows what it saw
                self._idle.pop(named, None)
                response = await self._forward(request, body)
                if response.status_code != 200 or _has_work(bytes(response.body)):
                    return response
                self._idle[named] = (rings, time.monotonic())
            if self._is_idle(named):
                await self.bell.wait(min(end - time.monotonic(), self.limits.look_s))
        return Response(PullMessagesResponse().SerializeToString(), media_type=PROTOBUF_MEDIA_TYPE)

    def _is_idle(self, named: str) -> bool:
        """Whether the SuperLink had no work for a node, and nothing was handed to it since."""
        rings, at = self._idle.get(named, (-1, 0.0))
        return rings == self.bell.count and time.monotonic() - at < self.limits.look_s

    async def _beat(self, request: Request, body: bytes) -> Response:
        """One of a node at once. It gives up after 5 s and beats again, and under load the old ones would pile up."""
        named = request.headers[FLEET_HTTP_PUBLIC_KEY_HEADER]
        if named in self._beating:
            raise CallError(503, "the last heartbeat is under way")
        self._beating.add(named)
        try:
            return await self._forward(request, body)
        finally:
            self._beating.discard(named)

    async def _forward(self, request: Request, body: bytes) -> Response:
        kept = {k: v for k, v in request.headers.items() if k in _PASSED_ON or k.startswith(_FLOWER_HEADER)}
        async with self._beats if request.url.path.endswith(_BEAT) else self._lane:
            answer = await self.upstream.post(request.url.path, content=body, headers=kept)
        headers = {k: v for k, v in answer.headers.items() if k.startswith(_FLOWER_HEADER) or k == "content-type"}
        return Response(answer.content, answer.status_code, headers)

    def _spend(self, partner: str) -> None:
        if not self._partners.take(partner):
            raise CallError(429, "too many calls; slow down")

    def _spare_strangers(self, request: Request) -> None:
        if not self._strangers.take(request.client.host if request.client else "?"):
            raise CallError(429, "too many calls; slow down")


def _has_work(content: bytes) -> bool:
    try:
        return bool(PullMessagesResponse.FromString(content).messages_list)
    except DecodeError:
        return True
