"""Work that is done again and again beside serving, and that no error of its own ends."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from fedrec.errors import FedrecError

_log = logging.getLogger(__name__)


async def periodically(name: str, work: Callable[[], Awaitable[object]], every_s: float) -> None:
    """Until it is cancelled. What fails is logged by its name and class, and tried again the next time."""
    while True:
        try:
            await work()
        except FedrecError as error:
            _log.warning("%s: %s", name, error.problem, extra={"event": "learning_failed"})
        except Exception:  # noqa: BLE001  # logged, without values; the next look may go well
            _log.exception("%s failed", name, extra={"event": "learning_failed"})
        await asyncio.sleep(every_s)
