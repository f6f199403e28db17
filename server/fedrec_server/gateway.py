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
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.proto.fleet_pb2 import PullMessagesRequest, PullMessagesResponse
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from google.protobuf.message import DecodeError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fedrec.errors import FedrecError, ProtocolError, StorageError
from fedrec.signing import verify
from fedrec_server.door import neighbourhood
from fedrec_server.limits import BodiesInHand, Buckets, CallError, claimed_bytes, read_body
from fedrec_server.partner_book import Partner
from fedrec_server.partner_desk import PartnerDesk
from fedrec_server.proofs import UsedRequests, is_nodes_signature
from fedrec_server.rotations import CLOCKS_MAY_DIFFER_S

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
_PROOF = (FLEET_HTTP_PUBLIC_KEY_HEADER, TIMESTAMP_HEADER, FLEET_HTTP_SIGNATURE_HEADER)
_PASSED_ON = (b"content-type", b"accept", b"user-agent")
_FLOWER_HEADER = "flwr-"
_SMALL_BYTES = 1 << 20
# Of the largest size, of one partner: its connections could each bring one.
_BODIES_AT_ONCE = 2
_log = logging.getLogger(__name__)
Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class GatewayLimits:
    """What one partner, or a stranger, may take.

    Attributes:
        object_bytes: of one tensor on its way.
        calls_per_s, burst: of one partner.
        strangers_per_s: calls of one address, or IPv6 network of 64 bits, without a partner's key.
        held_s: how long a question for work is held open before it is answered with nothing. Flower's node waits 3 s
            after each such answer, and gives up a call after 30 s.
        look_s: how often the SuperLink is asked while one is held, if nobody says that there is work.
    """

    object_bytes: int = 256 << 20
    calls_per_s: float = 200.0
    burst: int = 4000
    strangers_per_s: float = 20.0
    held_s: float = 20.0
    look_s: float = 10.0


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
        self._is_stopping = False
        self._bodies = BodiesInHand(_BODIES_AT_ONCE * self.limits.object_bytes)
        self._used = UsedRequests(CLOCKS_MAY_DIFFER_S)
        self._partners = Buckets(self.limits.calls_per_s, self.limits.burst)
        self._strangers = Buckets(self.limits.strangers_per_s, int(10 * self.limits.strangers_per_s))

    def app(self) -> Starlette:
        """The ASGI application."""
        ours: dict[tuple[str, str], Handler] = {
            ("GET", "/health"): self._health,
            ("GET", "/fedrec/v1/authority"): self._authority,
            ("POST", "/fedrec/v1/enrol"): self._enrol,
            ("POST", "/fedrec/v1/rotate"): self._rotate,
            ("GET", "/fedrec/v1/me"): self._me,
            ("GET", "/fedrec/v1/keys"): self._keys,
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
        app = Starlette(routes=routes, lifespan=self._lifespan, exception_handlers={HTTPException: _not_here})
        app.router.redirect_slashes = False
        return app

    def stop(self) -> None:
        """Answer with nothing whoever waits for work; further questions, too."""
        self._is_stopping = True
        self.bell.ring()
        self.answers.ring()

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
        except asyncio.CancelledError:
            if not self._is_stopping:
                raise
            return JSONResponse({"error": "the coordinator is stopping; try again later"}, 503)
        except CallError as error:
            return JSONResponse({"error": error.problem}, error.status)
        except StorageError:
            return JSONResponse({"error": "the coordinator cannot write now; try again later"}, 503)
        except FedrecError as error:
            return JSONResponse({"error": error.problem}, 403)
        except httpx.RequestError:
            return JSONResponse({"error": "the coordinator is starting; try again"}, 503)
        except Exception:  # noqa: BLE001  # whatever it is, its words are for the log alone
            _log.exception("a call failed", extra={"event": "call_failed"})
            return JSONResponse({"error": "the coordinator failed; its log says how"}, 500)

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

    async def _rotate(self, request: Request) -> Response:
        """The signatures stand in the message: the old key's, which counts until then, and the new one's."""
        self._spare_strangers(request)
        body = await read_body(request, _SMALL_BYTES)
        return JSONResponse(await run_in_threadpool(self.desk.rotate, body))

    async def _keys(self, request: Request) -> Response:
        await self._signed(request, also_pending=True)
        return JSONResponse(await run_in_threadpool(self.desk.papers))

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
            query = request.scope["query_string"].decode()
            values = {"method": request.method, "path": request.scope["path"], "query": query, "time": at}
            time_of = datetime.fromisoformat(at)
            if partner is None or abs((datetime.now(UTC) - time_of).total_seconds()) > CLOCKS_MAY_DIFFER_S:
                raise ProtocolError("stale, or from a stranger")
            signature = request.headers.get("fedrec-signature", "")
            verify(bytes.fromhex(partner.signing_key), "request", values, signature)
        except (ProtocolError, ValueError, TypeError) as error:
            raise CallError(401, "no partner's signature, or clocks differ by over a minute") from error
        if partner.status != "approved" and not (also_pending and partner.status in ("pending", "suspended")):
            raise CallError(403, f"this partner is {partner.status}")
        self._spend(partner.name)
        if request.method not in ("GET", "HEAD"):
            self._use(partner.name, "\n".join(values.values()), time_of)
        return partner

    def _use(self, partner: str, request: str, at: datetime) -> None:
        match self._used.take(partner, request, at):
            case "again":
                raise CallError(409, "this very request came before")
            case "too many":
                raise CallError(429, "too many calls; slow down")

    # Flower's fleet API

    async def _fleet(self, name: str, request: Request) -> Response:
        partner = await self._holder(request)
        self._spend(partner.name)
        if name == "push-object":
            most = self.limits.object_bytes
            claimed = claimed_bytes(request)
            with self._bodies.hold(partner.name, most if claimed is None else min(claimed, most)):
                return await self._passed_on(name, partner, request, most)
        return await self._passed_on(name, partner, request, _SMALL_BYTES)

    async def _passed_on(self, name: str, partner: Partner, request: Request, limit: int) -> Response:
        body = await read_body(request, limit)
        await run_in_threadpool(self.desk.see, partner.name)
        if name == "pull-messages":
            return await self._held(request, body)
        response = await self._forward(request, body)
        if name in ("push-messages", "push-object"):
            self.answers.ring()
        return response

    async def _holder(self, request: Request) -> Partner:
        """Whose node makes the call.

        The SuperLink checks the signature again, and how old it is. It is checked here so that nobody uses up another's
        allowance, or is noted as another.
        """
        named, at, signature = (request.headers.get(name, "") for name in _PROOF)
        partner = await run_in_threadpool(self.desk.holder, named)
        if partner is None or not await run_in_threadpool(is_nodes_signature, named, at, signature):
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
        end = time.monotonic() + self.limits.held_s
        while True:
            response = await self._forward(request, body)
            left = end - time.monotonic()
            if response.status_code != 200 or left <= 0 or self._is_stopping or _has_work(bytes(response.body)):
                return response
            await self.bell.wait(min(left, self.limits.look_s))
            if await request.is_disconnected():
                return response

    async def _forward(self, request: Request, body: bytes) -> Response:
        kept: dict[bytes, bytes] = {}
        for name, value in request.headers.raw:
            if name in _PASSED_ON or name.startswith(_FLOWER_HEADER.encode()):
                kept.setdefault(name, value)  # of two the first: it is the one that was checked
        answer = await self.upstream.post(request.scope["path"], content=body, headers=kept)
        headers = {k: v for k, v in answer.headers.items() if k.startswith(_FLOWER_HEADER) or k == "content-type"}
        return Response(answer.content, answer.status_code, headers)

    def _spend(self, partner: str) -> None:
        if not self._partners.take(partner):
            raise CallError(429, "too many calls; slow down")

    def _spare_strangers(self, request: Request) -> None:
        if not self._strangers.take(neighbourhood(request.client.host if request.client else "?")):
            raise CallError(429, "too many calls; slow down")


async def _not_here(_: Request, error: Exception) -> Response:
    """No such path, or another method."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail.lower()}, error.status_code, headers=error.headers)


def _has_work(content: bytes) -> bool:
    try:
        return bool(PullMessagesResponse.FromString(content).messages_list)
    except DecodeError:
        return True
