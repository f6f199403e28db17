"""Where connections come in: so many of one address, so many at all, counted before a byte of TLS is spent on them."""

import ipaddress
import resource
import socket
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from fedrec.errors import RunError

_BACKLOG = 512
# Files that the process needs besides connections: database, registry, the SuperLink's connections.
_OTHER_FILES = 512
# Whoever has one IPv6 address has as many as this prefix has.
_IPV6_PREFIX = 64


def neighbourhood(address: str) -> str:
    """What counts as one caller: an IPv4 address, or an IPv6 network of 64 bits.

    >>> neighbourhood("192.0.2.7"), neighbourhood("::ffff:192.0.2.7"), neighbourhood("2001:db8::1:2:3:4")
    ('192.0.2.7', '192.0.2.7', '2001:db8::/64')
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((found, _IPV6_PREFIX), strict=False))


@dataclass
class Guests:
    """Who is inside.

    Attributes:
        most: connections at all.
        most_of_one: of one address.
        inside: connections by address; nobody stands in it with none.
    """

    most: int
    most_of_one: int
    inside: Counter[str] = field(default_factory=Counter)

    def enter(self, address: str) -> bool:
        """Whether there is room for one more; it is inside then."""
        if self.inside.total() >= self.most or self.inside[address] >= self.most_of_one:
            self._forget(address)
            return False
        self.inside[address] += 1
        return True

    def leave(self, address: str) -> None:
        """One fewer."""
        self.inside[address] -= 1
        self._forget(address)

    def _forget(self, address: str) -> None:
        if self.inside[address] <= 0:
            del self.inside[address]


class _Guest(socket.socket):
    """A connection that says when it is closed, whatever closed it."""

    at_close: Callable[[], None] | None = None

    def close(self) -> None:
        """Close, and make room for another."""
        super().close()
        at_close, self.at_close = self.at_close, None
        if at_close is not None:
            at_close()


class Door(socket.socket):
    """A listening socket that closes what is too much. For asyncio's own event loop, which calls `accept`."""

    guests: Guests

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection. Raises ConnectionAbortedError: one too many; asyncio then looks at others first."""
        connection, peer = super().accept()
        address = neighbourhood(str(peer[0]))
        if not self.guests.enter(address):
            connection.close()
            raise ConnectionAbortedError
        guest = _Guest(self.family, self.type, self.proto, fileno=connection.detach())
        guest.at_close = lambda: self.guests.leave(address)
        return guest, peer


def open_doors(host: str, port: int, guests: Guests) -> list[Door]:
    """Listen on every address of a host. Raises RunError: it cannot be listened on."""
    doors: list[Door] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, number, _, place in dict.fromkeys(found):
            door = Door(family, kind, number)
            door.guests = guests
            doors.append(door)
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                door.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            door.bind(place)
            door.listen(_BACKLOG)
            door.setblocking(False)
    except OSError as error:
        for door in doors:
            door.close()
        raise RunError(f"{host}:{port}: cannot be listened on: {error.strerror}", "end what listens there") from error
    return doors


def room_for(most: int) -> int:
    """How many connections this process may have open, at most `most`; its limit of files is raised if it may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        raised = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            soft = raised
    return most if soft == resource.RLIM_INFINITY else max(1, min(most, soft - _OTHER_FILES))
