"""Flower's fleet API as a SuperNode speaks it, without a thread or a process for each node; every byte is counted."""

import asyncio
import base64
import socket
import ssl
import struct
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common.constant import MAX_RETRY_DELAY, TIMESTAMP_HEADER
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.date import now
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.supercore.retry import exponential
from flwr.supercore.runtime_version_compatibility import RuntimeVersionMetadata
from google.protobuf.message import Message

Answered = TypeVar("Answered", bound=Message)

# Where Linux's struct tcp_info has the bytes that the other side has acknowledged, and those that came from it.
_TCP_BYTES = struct.Struct("=QQ")
_TCP_BYTES_AT = 120
# As Flower's node does: these are tried again, anything else ends the message.
_TRY_AGAIN = (502, 503, 504)
_TIMEOUT_S = 30.0


@dataclass
class Traffic:
    """What went over the wire, TLS and HTTP included, and which calls.

    Attributes:
        up, down: bytes that nodes sent, and got.
        calls: that were answered, by name.
        failures: calls that were not, by name and reason; those tried again are among them.
    """

    up: int = 0
    down: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)

    def copy(self) -> "Traffic":
        """As it stands now."""
        return Traffic(self.up, self.down, self.calls.copy(), self.failures.copy())

    def since(self, before: "Traffic") -> "Traffic":
        """What was added."""
        calls, failures = self.calls - before.calls, self.failures - before.failures
        return Traffic(self.up - before.up, self.down - before.down, calls, failures)


class FleetClient:
    """One node's calls, signed with its key.

    Args:
        address: of the gateway, HOST:PORT.
        context: trusts the coordinator's authority.
        traffic: counts; many clients may share one.
    """

    def __init__(
        self, address: str, context: ssl.SSLContext, key: ec.EllipticCurvePrivateKey, traffic: Traffic
    ) -> None:
        self._client = httpx.AsyncClient(base_url=f"https://{address}", verify=context, timeout=_TIMEOUT_S)
        self._key, self.public_key, self._traffic = key, public_key_to_bytes(key.public_key()), traffic
        self._named = base64.b64encode(self.public_key).decode()
        self._version = dict(RuntimeVersionMetadata.from_local_component("SuperNode").as_metadata())
        self._told: WeakKeyDictionary[Any, tuple[int, int]] = WeakKeyDictionary()  # connection -> bytes counted of it

    async def call(
        self, name: str, request: Message, answered: type[Answered], timeout_s: float = _TIMEOUT_S
    ) -> Answered:
        """One call; what Flower's node tries again is tried again, after as long.

        Raises: httpx.HTTPStatusError: refused.
        """
        for delay_s in exponential(max_delay=MAX_RETRY_DELAY):
            try:
                return await self.call_once(name, request, answered, timeout_s)
            except httpx.HTTPStatusError as error:
                if error.response.status_code not in _TRY_AGAIN:
                    raise
            except httpx.TransportError:
                pass
            await asyncio.sleep(delay_s)
        raise AssertionError("the delays have no end")

    async def call_once(
        self, name: str, request: Message, answered: type[Answered], timeout_s: float = _TIMEOUT_S
    ) -> Answered:
        """Raises: httpx.HTTPStatusError: refused. httpx.TransportError: not answered."""
        body = request.SerializeToString(deterministic=True)
        try:
            response = await self._client.post(
                f"/v1/fleet/{name}", content=body, headers=self._headers(), timeout=timeout_s
            )
            self._count(response)
            response.raise_for_status()
        except httpx.HTTPStatusError as error:
            self._traffic.failures[f"{name}: {error.response.status_code}"] += 1
            raise
        except httpx.TransportError as error:
            self._traffic.failures[f"{name}: {type(error).__name__}"] += 1
            raise
        self._traffic.calls[name] += 1
        found = answered()
        found.ParseFromString(response.content)
        return cast(Answered, found)

    async def close(self) -> None:
        """Let go of the connections."""
        await self._client.aclose()

    def _headers(self) -> dict[str, str]:
        at = now().isoformat()
        signature = base64.b64encode(sign_message(self._key, at.encode("ascii"))).decode()
        signed = {FLEET_HTTP_PUBLIC_KEY_HEADER: self._named, TIMESTAMP_HEADER: at}
        kind = {"content-type": PROTOBUF_MEDIA_TYPE, "accept": PROTOBUF_MEDIA_TYPE}
        return {**kind, **self._version, **signed, FLEET_HTTP_SIGNATURE_HEADER: signature}

    def _count(self, response: httpx.Response) -> None:
        """What the kernel has seen of the connection, less what was counted of it before."""
        stream = response.extensions["network_stream"]
        before = self._told.get(stream, (0, 0))
        try:
            info = stream.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
            told = _TCP_BYTES.unpack_from(info, _TCP_BYTES_AT)
        except OSError:  # the gateway has closed it: of this call the bodies alone are known
            told = (before[0] + len(response.request.content), before[1] + len(response.content))
        self._traffic.up += told[0] - before[0]
        self._traffic.down += told[1] - before[1]
        self._told[stream] = told


@asynccontextmanager
async def fleet_client(
    address: str, context: ssl.SSLContext, key: ec.EllipticCurvePrivateKey, traffic: Traffic
) -> AsyncIterator[FleetClient]:
    """A client that is closed at the end."""
    client = FleetClient(address, context, key, traffic)
    try:
        yield client
    finally:
        await client.close()
