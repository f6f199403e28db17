"""All that partners can reach: Flower's fleet API for those who are approved, enrolment, terms and adapters. TLS.

Flower's SuperLink answers everything on one port and asks for no password where runs are started. So it listens on
the loopback, and what is not named here does not exist out there.
"""

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

import httpx
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fedrec.errors import FedrecError, ProtocolError, StorageError
from fedrec.signing import verify
from fedrec_server.gateway.bell import Bell
from fedrec_server.gateway.door import neighbourhood
from fedrec_server.gateway.lane import SuperLinkLane
from fedrec_server.gateway.limits import BodiesInHand, Buckets, CallError, GatewayLimits, claimed_bytes, read_body
from fedrec_server.gateway.partner_desk import PartnerDesk
from fedrec_server.gateway.proofs import UsedRequests, is_nodes_signature
from fedrec_server.gateway.rotations import CLOCKS_MAY_DIFFER_S
from fedrec_server.state.partner_book import Partner

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
_SMALL_BYTES = 1 << 20
# Of the largest size, of one partner: its connections could each bring one.
_BODIES_AT_ONCE = 2
_log = logging.getLogger(__name__)
Handler = Callable[[Request], Awaitable[Response]]


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
        self.lane = SuperLinkLane(self.upstream, self.limits, self.bell)

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
            ("POST", "/fedrec/v1/wish"): self._wish,
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
        self._is_stopping = self.lane.is_stopping = True
        self.bell.ring()
        self.answers.ring()

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        yield
        await self.lane.client.aclose()

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

    async def _wish(self, request: Request) -> Response:
        """Whatever body comes is not read: a wish says who and when, no more."""
        partner = await self._signed(request)
        return JSONResponse(await run_in_threadpool(self.desk.wish, partner))

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
        response = await self.lane.pass_on(name, request, body)
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
