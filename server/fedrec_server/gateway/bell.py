"""Wakes those who wait within the gateway's process."""

import asyncio
import time
from contextlib import suppress


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
