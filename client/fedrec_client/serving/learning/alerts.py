"""Alerts: a line of the log, and a POST to the partner's own webhook. No ids, and no counts of single people.

The body is `{"kind", "tenant", "what", "at", ...}` with figures over everybody; whoever gets it is chosen by the
partner, in `learning.webhook`.
"""

import asyncio
import ipaddress
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx

from fedrec.errors import ConfigError

_log = logging.getLogger(__name__)
# Of one kind and tenant there is one alert in so long.
_QUIET_S = 3600.0
_TIMEOUT_S = 10.0
# Pauses between tries; after the last the alert stands in the log alone.
_PAUSES_S = (1.0, 10.0, 60.0)
_MOST_WAITING = 100


@dataclass(frozen=True)
class Alert:
    """What somebody should hear of.

    Attributes:
        kind: "drift", "adapter kept", "adapter served", "adapter rolled back", "round wished", "budget"...
        what: a sentence for a person.
        tenant: whose; "" for all.
        figures: sums over everybody.
    """

    kind: str
    what: str
    tenant: str = ""
    figures: Mapping[str, float | int | str] = field(default_factory=dict)


def checked_address(address: str, place: str = "learning.webhook") -> str:
    """An address that alerts may go to: https, or plain http on this machine's loopback; "" for none.

    Args:
        place: where somebody wrote it down, for the error.
    Raises: ConfigError: another one. Its words do not repeat it, since webhooks carry secrets.

    >>> checked_address("http://127.0.0.1:9000/hook")
    'http://127.0.0.1:9000/hook'
    """
    if not address:
        return ""
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise _no_address(place) from error
    if host and (parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))):
        return address
    raise _no_address(place)


def _no_address(place: str) -> ConfigError:
    return ConfigError(f"{place}: no https address", "give one of https://, or http:// on 127.0.0.1")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Alerts:
    """Sends alerts from a background task of the event loop; nobody waits for it.

    Args:
        webhook: see `checked_address`, whose ConfigError it raises.
        transport: of httpx, for tests.
        pauses_s: between tries.
        clock: Unix seconds.
    """

    def __init__(
        self,
        webhook: str,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        pauses_s: tuple[float, ...] = _PAUSES_S,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._webhook, self._transport, self._pauses_s = checked_address(webhook), transport, pauses_s
        self._clock, self._sleep = clock, sleep
        self._said: dict[tuple[str, str], float] = {}
        self._sending: set[asyncio.Task[None]] = set()

    def raise_alert(self, alert: Alert) -> bool:
        """Log it, and have it sent, unless one of its kind was within the hour; whether it was new.

        On the event loop.
        """
        now, key = self._clock(), (alert.kind, alert.tenant)
        if now - self._said.get(key, float("-inf")) < _QUIET_S:
            return False
        self._said[key] = now
        named = {"tenant": alert.tenant, "figures": dict(alert.figures)}
        _log.warning("%s: %s", alert.kind, alert.what, extra={"event": "alert", "kind": alert.kind, **named})
        if self._webhook and len(self._sending) < _MOST_WAITING:
            task = asyncio.create_task(self._send({**asdict(alert), "at": now}))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
        return True

    async def settle(self) -> None:
        """Wait for all that is being sent."""
        while self._sending:
            await asyncio.gather(*self._sending)

    async def close(self) -> None:
        """Give up what is being sent."""
        for task in list(self._sending):
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)

    async def _send(self, body: dict[str, Any]) -> None:
        reason = ""
        for pause_s in (*self._pauses_s, None):
            reason = await self._try(body)
            if not reason:
                return
            if pause_s is not None:
                await self._sleep(pause_s)
        _log.warning("an alert was not delivered: %s", reason, extra={"event": "alert_lost", "kind": body["kind"]})

    async def _try(self, body: dict[str, Any]) -> str:
        """Why it did not arrive; "" if it did. Redirects are not followed: they could lead inside, or off TLS."""
        try:
            options = {"timeout": _TIMEOUT_S, "follow_redirects": False, "trust_env": False}
            client = httpx.AsyncClient(transport=self._transport, **options)  # type: ignore[arg-type]
            async with client, client.stream("POST", self._webhook, json=body) as answer:  # its body is not read
                return "" if answer.is_success else f"it answers {answer.status_code}"
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return type(error).__name__
