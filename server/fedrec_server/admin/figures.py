"""A coordinator in figures, read at once in a bounded number of queries: what its metrics show. Nothing private."""

import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, func, select, text

from fedrec.errors import FedrecError
from fedrec_server.keys.certificates import expires_at
from fedrec_server.rounds.heartbeat import is_driver_there, last_beat
from fedrec_server.settings import Coordinator
from fedrec_server.state.partner_book import Status
from fedrec_server.state.store import GENERATION, PAUSED, Database
from fedrec_server.state.tables import PARTNERS, ROUNDS, SETTINGS

_T = TypeVar("_T")
STATUSES: tuple[Status, ...] = ("pending", "approved", "suspended", "removed")


@dataclass(frozen=True)
class PartnerFigures:
    """One partner that was not removed.

    Attributes:
        last_seen_s: Unix time at which the gateway last heard of it; None: never.
        is_turn_lost: its last answer did not count.
    """

    name: str
    status: Status
    last_seen_s: float | None
    is_turn_lost: bool


@dataclass(frozen=True)
class CommittedFigures:
    """The attempt that was committed last.

    Attributes:
        seconds: from the question to the commit.
        bytes_up, bytes_down: of all partners together.
    """

    seconds: float
    bytes_up: int
    bytes_down: int


@dataclass(frozen=True)
class StateFigures:
    """What the database holds.

    Attributes:
        attempts: by status: asked, committed, failed.
        bytes_up, bytes_down: of all committed rounds.
        database_bytes: of SQLite's files with Flower's own, or of the PostgreSQL database.
    """

    is_paused: bool
    generation: int
    attempts: Mapping[str, int]
    bytes_up: int
    bytes_down: int
    last: CommittedFigures | None
    partners: tuple[PartnerFigures, ...]
    partners_by_status: Mapping[str, int]
    database_bytes: int


@dataclass(frozen=True)
class TrainingFigures:
    """What is trained; never changes in one folder.

    Attributes:
        statement: the privacy statement of the whole training.
    """

    federation: str
    mode: str
    rounds: int
    statement: Mapping[str, Any]


@dataclass(frozen=True)
class RegistryFigures:
    """What was committed.

    Attributes:
        round: HEAD's; 0 before the first.
        committed_at_s: Unix time of HEAD's version; None before the first.
    """

    round: int
    committed_at_s: float | None
    registry_bytes: int


@dataclass(frozen=True)
class Figures:
    """All of them; a part is None if it could not be read, so that the others are seen all the same.

    Attributes:
        certificate_until_s: Unix time at which the server certificate ends.
        is_driver_there: its process runs on this machine.
        beat_at_s: Unix time at which the driver's main loop last came round.
        disk_bytes, disk_free_bytes: of the file system that holds the folder.
    """

    state: StateFigures | None
    training: TrainingFigures | None
    registry: RegistryFigures | None
    certificate_until_s: float | None
    is_driver_there: bool
    beat_at_s: float | None
    disk_bytes: int
    disk_free_bytes: int


def read_figures(coordinator: Coordinator) -> Figures:
    """Everything, as it stands now. One transaction and some file calls: milliseconds, but not for an event loop."""
    disk = shutil.disk_usage(coordinator.folder)
    return Figures(
        state=_or_none(lambda: read_state(coordinator.database, coordinator.folder)),
        training=_or_none(lambda: _training(coordinator)),
        registry=_or_none(lambda: _registry(coordinator)),
        certificate_until_s=_or_none(lambda: expires_at(coordinator.keys).timestamp()),
        is_driver_there=is_driver_there(coordinator.folder),
        beat_at_s=last_beat(coordinator.folder),
        disk_bytes=disk.total,
        disk_free_bytes=disk.free,
    )


def read_state(database: Database, folder: Path) -> StateFigures:
    """What the database holds, in one transaction. Raises StorageError.

    Args:
        folder: the coordinator's, where Flower's own database lies beside.
    """
    with database.begin() as connection:
        settings = {row.key: row.value for row in connection.execute(select(SETTINGS))}
        attempts, up, down = _attempts(connection)
        partners = [dict(row) for row in connection.execute(select(PARTNERS).order_by(PARTNERS.c.name)).mappings()]
        told = tuple(_partner(row) for row in partners if row["status"] != "removed")
        statuses = [row["status"] for row in partners]
        return StateFigures(
            is_paused=settings.get(PAUSED) == "yes",
            generation=int(settings.get(GENERATION, "1")),
            attempts=attempts,
            bytes_up=up,
            bytes_down=down,
            last=_last_committed(connection),
            partners=told,
            partners_by_status={status: statuses.count(status) for status in STATUSES},
            database_bytes=_database_bytes(connection, folder / "state"),
        )


def _or_none(read: Callable[[], _T]) -> _T | None:
    try:
        return read()
    except (FedrecError, OSError, ValueError):
        return None


def _attempts(connection: Connection) -> tuple[dict[str, int], int, int]:
    """By status, and the bytes of all of them."""
    sums = [func.count(), func.sum(ROUNDS.c.bytes_up), func.sum(ROUNDS.c.bytes_down)]
    rows = connection.execute(select(ROUNDS.c.status, *sums).group_by(ROUNDS.c.status)).all()
    found = {"asked": 0, "committed": 0, "failed": 0} | {status: int(count) for status, count, _, _ in rows}
    return found, sum(int(up) for _, _, up, _ in rows), sum(int(down) for *_, down in rows)


def _last_committed(connection: Connection) -> CommittedFigures | None:
    wanted = select(ROUNDS.c.seconds, ROUNDS.c.bytes_up, ROUNDS.c.bytes_down).where(ROUNDS.c.status == "committed")
    row = connection.execute(wanted.order_by(ROUNDS.c.id.desc()).limit(1)).first()
    return CommittedFigures(float(row[0]), int(row[1]), int(row[2])) if row else None


def _partner(row: Mapping[str, Any]) -> PartnerFigures:
    seen = datetime.fromisoformat(row["last_seen"]).timestamp() if row["last_seen"] else None
    return PartnerFigures(row["name"], row["status"], seen, bool(row["reason"]))


def _database_bytes(connection: Connection, folder: Path) -> int:
    """With SQLite the files beside it too, where what was not yet checkpointed lies."""
    if connection.dialect.name == "postgresql":
        ours = int(connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one())
        return ours + _bytes_of(folder.glob("flower.sqlite*"))
    return _bytes_of(folder.glob("*.sqlite*"))


@lru_cache(maxsize=16)
def _training(coordinator: Coordinator) -> TrainingFigures:
    """Read once: the adapter and the catalogue beside it are megabytes, and a folder trains one federation only."""
    federation = coordinator.federation()
    terms = federation.terms
    return TrainingFigures(terms.name, terms.mode, len(federation.schedule), federation.statement)


def _registry(coordinator: Coordinator) -> RegistryFigures:
    head = coordinator.registry.head()
    size = _bytes_of(coordinator.registry.folder.rglob("*"))
    if head is None:
        return RegistryFigures(0, None, size)
    return RegistryFigures(head.round, datetime.fromisoformat(head.created_at).timestamp(), size)


def _bytes_of(paths: Any) -> int:
    """Of files that may vanish while they are counted."""
    total = 0
    for path in paths:
        with suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total
