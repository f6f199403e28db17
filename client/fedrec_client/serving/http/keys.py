"""API keys as the guard knows them: looked up in the store, remembered for some seconds, guessed only slowly."""

import asyncio
import math
import time
from base64 import b64decode
from collections.abc import Callable, Collection, Mapping
from hashlib import sha256
from typing import Protocol

from starlette.concurrency import run_in_threadpool

from fedrec_client.serving.http.problems import Problem, RefusalError
from fedrec_client.serving.http.rates import Buckets

_LONGEST = 256
_MOST_KEPT = 1000
_GUESSES_PER_S, _GUESSES_AT_ONCE = 1.0, 20


class ApiKey(Protocol):
    """What the guard reads of a key."""

    @property
    def name(self) -> str:
        """Public."""

    @property
    def tenant(self) -> str:
        """Whose users and items it opens."""

    @property
    def scopes(self) -> Collection[str]:
        """Of "read", "write" and "admin"."""


FindKey = Callable[[str], ApiKey | None]


class KeyRing:
    """Keys by their secrets.

    A key that is revoked opens for `kept_s` more, unless `forget` is called.

    Args:
        find: looks a secret up; may block.
        has_keys: whether there are keys at all, revoked ones among them; may block.
        kept_s: how long an answer of these is believed.
        clock: seconds that only rise.
    """

    def __init__(
        self,
        find: FindKey,
        has_keys: Callable[[], bool],
        kept_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._find, self._has_keys, self._kept_s, self._clock = find, has_keys, kept_s, clock
        self._kept: dict[bytes, tuple[ApiKey, float]] = {}
        self._looking: dict[bytes, asyncio.Task[ApiKey | None]] = {}
        self._empty: tuple[bool, float] = (False, -math.inf)
        self._forgotten = 0  # how often; what was asked before is not remembered after
        self._guesses = Buckets(_GUESSES_PER_S, _GUESSES_AT_ONCE, clock)

    async def is_empty(self) -> bool:
        """Whether no key was ever made."""
        is_empty, since = self._empty
        now = self._clock()
        if now - since >= self._kept_s:
            forgotten = self._forgotten
            is_empty = not await run_in_threadpool(self._has_keys)
            if forgotten == self._forgotten:
                self._empty = (is_empty, now)
        return is_empty

    async def find(self, secret: str, address: str) -> ApiKey | None:
        """The key of a secret, None if there is none.

        Args:
            secret: private; its hash is remembered for some seconds.
            address: who asks; wrong secrets of one address are looked up only so often.
        Raises: RefusalError: too many wrong ones.
        """
        if not secret or len(secret) > _LONGEST:
            return None
        digest = sha256(secret.encode()).digest()
        kept = self._kept.get(digest)
        if kept is not None and self._clock() - kept[1] < self._kept_s:
            return kept[0]
        if wait_s := self._guesses.wait_s(address):
            raise RefusalError(too_often("too many wrong API keys from this address", wait_s))
        found = await self._look_up(secret, digest)
        if found is None:
            self._guesses.take(address)
        return found

    def forget(self) -> None:
        """Ask the store anew: a key was made or revoked."""
        self._forgotten += 1
        self._kept.clear()
        self._looking.clear()
        self._empty = (False, -math.inf)

    async def _look_up(self, secret: str, digest: bytes) -> ApiKey | None:
        """Once for all who wait for the same one; who goes away stops nobody else's."""
        task, forgotten = self._looking.get(digest), self._forgotten
        if task is None:
            task = asyncio.create_task(run_in_threadpool(self._find, secret))
            self._looking[digest] = task
            task.add_done_callback(lambda done: self._looked_up(digest, done))
        found = await asyncio.shield(task)
        if forgotten == self._forgotten:
            self._keep(digest, found)
        return found

    def _looked_up(self, digest: bytes, done: asyncio.Task[ApiKey | None]) -> None:
        if self._looking.get(digest) is done:
            del self._looking[digest]
        if not done.cancelled():
            done.exception()  # who waited has it; if nobody is left, it is nobody's

    def _keep(self, digest: bytes, found: ApiKey | None) -> None:
        self._kept.pop(digest, None)
        if found is None:
            return
        if len(self._kept) >= _MOST_KEPT:
            self._kept.pop(next(iter(self._kept)))
        self._kept[digest] = (found, self._clock())


def secret_in(heads: Mapping[bytes, bytes]) -> tuple[str, bool]:
    """The secret that a request brings, and whether a browser added it by itself.

    Gorse's `X-API-Key`, `Authorization: Bearer`, or `Basic` with the key as password, which is what browsers ask for.
    """
    if own := heads.get(b"x-api-key"):
        return own.decode("latin-1"), False
    kind, _, given = heads.get(b"authorization", b"").partition(b" ")
    match kind.lower():
        case b"bearer":
            return given.strip().decode("latin-1"), False
        case b"basic":
            return _password(given), True
        case _:
            return "", False


def too_often(words: str, wait_s: int) -> Problem:
    """429, with when to come again."""
    headers = {"retry-after": str(wait_s)}
    return Problem("too-often", 429, "Too many requests", words, f"try again in {wait_s} s", headers=headers)


def _password(given: bytes) -> str:
    try:
        return b64decode(given, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""
