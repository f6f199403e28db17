"""Bounds on what a caller may take: calls a second, bytes of a body, seconds until it is there."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request

from fedrec.errors import FedrecError

_BODY_S = 60.0
_LONGEST_NUMBER = 18
# Of callers that are remembered; beyond it the ones that have their full allowance back are forgotten.
_MOST_CALLERS = 10_000


@dataclass(frozen=True)
class GatewayLimits:
    """What one partner, or a stranger, may take.

    Attributes:
        object_bytes: of one tensor on its way.
        calls_per_s, burst: of one partner.
        strangers_per_s: calls of one address, or IPv6 network of 64 bits, without a partner's key.
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
    at_once: int = 3
    beats_at_once: int = 2


class CallError(FedrecError):
    """A call that is not answered; `status` is HTTP's. The caller reads the words."""

    def __init__(self, status: int, problem: str) -> None:
        super().__init__(problem)
        self.status = status


class Buckets:
    """A token bucket for each caller.

    Args:
        per_s: tokens that come back a second.
        burst: that a caller has at most.
    """

    def __init__(self, per_s: float, burst: int) -> None:
        self._per_s, self._burst = per_s, burst
        self._left: dict[str, tuple[float, float]] = {}  # caller -> tokens, when

    def take(self, caller: str) -> bool:
        """Whether the caller has one left; it is spent then."""
        moment = time.monotonic()
        left = self._now(caller, moment)
        if len(self._left) >= _MOST_CALLERS:
            self._left = {c: v for c, v in self._left.items() if self._now(c, moment) < self._burst}
        if left < 1 or (caller not in self._left and len(self._left) >= _MOST_CALLERS):
            return False
        self._left[caller] = (left - 1, moment)
        return True

    def _now(self, caller: str, moment: float) -> float:
        left, since = self._left.get(caller, (float(self._burst), moment))
        return min(self._burst, left + (moment - since) * self._per_s)


class BodiesInHand:
    """Bytes of bodies that are being read or passed on, by caller.

    Args:
        most_bytes: of one caller at a time.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._held: dict[str, int] = {}

    @contextmanager
    def hold(self, caller: str, n_bytes: int) -> Iterator[None]:
        """Make room for a body. Raises CallError: the caller has too much under way."""
        if self._held.get(caller, 0) + n_bytes > self._most_bytes:
            raise CallError(429, "too many bytes at a time; wait for earlier answers")
        self._held[caller] = self._held.get(caller, 0) + n_bytes
        try:
            yield
        finally:
            self._held[caller] -= n_bytes
            if not self._held[caller]:
                del self._held[caller]


def claimed_bytes(request: Request) -> int | None:
    """The length of the body that the head names; None without one that can be read."""
    claimed = request.headers.get("content-length", "")
    is_number = claimed.isascii() and claimed.isdigit() and len(claimed) <= _LONGEST_NUMBER
    return int(claimed) if is_number else None


async def read_body(request: Request, limit: int) -> bytes:
    """A body of at most `limit` bytes that comes within a minute. Raises CallError."""
    if (claimed_bytes(request) or 0) > limit:
        raise CallError(413, f"the body is larger than {limit} bytes")
    parts, size = [], 0
    try:
        async with asyncio.timeout(_BODY_S):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise CallError(413, f"the body is larger than {limit} bytes")
                parts.append(chunk)
    except (TimeoutError, ClientDisconnect) as error:
        raise CallError(408, "the body did not come in time") from error
    return b"".join(parts)
