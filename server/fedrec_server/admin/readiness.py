"""Whether a coordinator can do its work: named checks, for `/ready`, load balancers and people."""

import shutil
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import httpx
from sqlalchemy import delete, insert

from fedrec.errors import FedrecError
from fedrec_server.rounds.heartbeat import is_driver_there, last_beat
from fedrec_server.settings import Coordinator
from fedrec_server.state.store import Database
from fedrec_server.state.tables import SETTINGS
from fedrec_server.supervisor import running_pid

# Longer than the driver ever goes without looking at its stop signal: Flower's calls time out after a minute.
BEAT_S = 120.0
LEAST_FREE_BYTES = 64 << 20
_SUPERLINK_S = 3.0


@dataclass(frozen=True)
class Check:
    """One of them. Public within the coordinator.

    Attributes:
        name: `database`, `registry`, `superlink`, `driver` or `disk`.
        detail: what was found, or what is wrong.
    """

    name: str
    is_good: bool
    detail: str


@dataclass(frozen=True)
class Readiness:
    """All of them."""

    checks: tuple[Check, ...]

    @property
    def is_ready(self) -> bool:
        """Whether every check is good."""
        return all(check.is_good for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"is_ready": self.is_ready, "checks": [asdict(check) for check in self.checks]}


def readiness(coordinator: Coordinator) -> Readiness:
    """Check now. It may block for some seconds if something hangs: call it from a thread.

    A coordinator that is paused, has trained all its rounds or waits for partners is ready.
    """
    checks = {"database": _database, "registry": _registry, "superlink": _superlink, "driver": _driver, "disk": _disk}
    return Readiness(tuple(_checked(name, check, coordinator) for name, check in checks.items()))


def try_to_write(database: Database) -> None:
    """Write a row and take it back. Raises StorageError: it does not answer, or may only be read."""
    with suppress(_UndoneError), database.begin() as connection:
        connection.execute(delete(SETTINGS).where(SETTINGS.c.key == "readiness"))
        connection.execute(insert(SETTINGS).values(key="readiness", value="probe"))
        raise _UndoneError


class _NotReadyError(Exception):
    """With what is wrong."""


class _UndoneError(Exception):
    """Takes a transaction back."""


def _checked(name: str, check: Callable[[Coordinator], str], coordinator: Coordinator) -> Check:
    try:
        return Check(name, True, check(coordinator))
    except FedrecError as error:
        return Check(name, False, error.problem)
    except _NotReadyError as error:
        return Check(name, False, str(error))
    except (OSError, ValueError) as error:
        return Check(name, False, type(error).__name__)


def _database(coordinator: Coordinator) -> str:
    try_to_write(coordinator.database)
    return "answers and may be written"


def _registry(coordinator: Coordinator) -> str:
    head, signed = coordinator.registry.head(), coordinator.heads.newest()
    if head is None:
        return "empty: no round is committed yet"
    if signed is None:
        raise _NotReadyError(f"round {head.round} is committed but not signed: the driver has not begun yet")
    return f"round {head.round}"


def _superlink(coordinator: Coordinator) -> str:
    """Any HTTP answer under our certificate will do; what Flower says to whom is not the question."""
    context = ssl.create_default_context(cafile=coordinator.keys / "ca.pem")
    address = coordinator.superlink.address
    try:
        with httpx.Client(verify=context, timeout=_SUPERLINK_S, trust_env=False) as client:
            status = client.get(f"https://{address}/").status_code
    except httpx.HTTPError as error:
        raise _NotReadyError(f"Flower's SuperLink does not answer on {address}: {type(error).__name__}") from error
    if status >= 500:
        raise _NotReadyError(f"Flower's SuperLink answers {status}")
    return f"answers on {address}"


def _driver(coordinator: Coordinator) -> str:
    """The lock says that `flower-server start` runs; the beat, that the rounds' own loop goes round."""
    if running_pid(coordinator) is None:
        raise _NotReadyError("flower-server start does not run")
    if not is_driver_there(coordinator.folder):
        raise _NotReadyError("the driver's process is not there; read driver.log")
    beat = last_beat(coordinator.folder)
    if beat is None:
        raise _NotReadyError("the driver has not come round yet")
    if (age := time.time() - beat) > BEAT_S:
        raise _NotReadyError(f"the driver's loop last came round {age:.0f} s ago; read driver.log")
    return f"came round {max(age, 0.0):.0f} s ago"


def _disk(coordinator: Coordinator) -> str:
    free = shutil.disk_usage(coordinator.folder).free
    if free < LEAST_FREE_BYTES:
        raise _NotReadyError(f"{free >> 20} MiB free, {LEAST_FREE_BYTES >> 20} are needed")
    return f"{free >> 20} MiB free"
