"""The way from the gateway to Flower's SuperLink: few calls at once, and none for nodes that have no work."""

import asyncio
import time
from dataclasses import dataclass, field

import httpx
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.proto.fleet_pb2 import PullMessagesRequest, PullMessagesResponse
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from google.protobuf.message import DecodeError
from starlette.requests import Request
from starlette.responses import Response

from fedrec_server.gateway.bell import Bell
from fedrec_server.gateway.limits import CallError, GatewayLimits
from fedrec_server.gateway.proofs import is_fresh

_PASSED_ON = (b"content-type", b"accept", b"user-agent")
_FLOWER_HEADER = "flwr-"


@dataclass
class SuperLinkLane:
    """Passes calls of nodes on whose signature was checked.

    Attributes:
        client: of the SuperLink on the loopback.
        bell: rung when something was handed to the SuperLink.
    """

    client: httpx.AsyncClient
    limits: GatewayLimits
    bell: Bell
    is_stopping: bool = False
    _beating: set[str] = field(default_factory=set, repr=False)  # keys of nodes whose heartbeat waits for its turn
    # Node's key -> rings, and when, as it was told there is no work.
    _idle: dict[str, tuple[int, float]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._calls, self._beats = asyncio.Semaphore(self.limits.at_once), asyncio.Semaphore(self.limits.beats_at_once)

    async def pass_on(self, name: str, request: Request, body: bytes) -> Response:
        """One call of Flower's fleet API. Raises CallError. httpx.TransportError: the SuperLink does not answer."""
        match name:
            case "pull-messages":
                return await self._held(request, body)
            case "send-node-heartbeat":
                return await self._beat(request, body)
            case _:
                return await self._forward(request, body, self._calls)

    async def _held(self, request: Request, body: bytes) -> Response:
        """Answer a node that asks for work when there is some, or after a while with nothing."""
        try:
            PullMessagesRequest.FromString(body)
        except DecodeError as error:
            raise CallError(400, "not protobuf") from error
        named, end = request.headers[FLEET_HTTP_PUBLIC_KEY_HEADER], time.monotonic() + self.limits.held_s
        # Nobody but this gateway looks at who asks then.
        if self._is_idle(named) and not is_fresh(request.headers[TIMESTAMP_HEADER]):
            raise CallError(401, "no partner's signature of now")
        while time.monotonic() < end and not self.is_stopping and not await request.is_disconnected():
            if not self._is_idle(named):
                rings = self.bell.count  # of a ring while the SuperLink answers nobody knows what it saw
                self._idle.pop(named, None)
                response = await self._forward(request, body, self._calls)
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
            return await self._forward(request, body, self._beats)
        finally:
            self._beating.discard(named)

    async def _forward(self, request: Request, body: bytes, turn: asyncio.Semaphore) -> Response:
        kept: dict[bytes, bytes] = {}
        for name, value in request.headers.raw:
            if name in _PASSED_ON or name.startswith(_FLOWER_HEADER.encode()):
                kept.setdefault(name, value)  # of two the first: it is the one that was checked
        async with turn:
            answer = await self.client.post(request.scope["path"], content=body, headers=kept)
        headers = {k: v for k, v in answer.headers.items() if k.startswith(_FLOWER_HEADER) or k == "content-type"}
        return Response(answer.content, answer.status_code, headers)


def _has_work(content: bytes) -> bool:
    try:
        return bool(PullMessagesResponse.FromString(content).messages_list)
    except DecodeError:
        return True
