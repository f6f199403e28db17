"""What the coordinator remembers between rounds and restarts: SQLite by default, PostgreSQL by one line."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.engine import make_url

from fedrec import database
from fedrec_server.state.tables import AUDIT, SETTINGS

# Settings: how often training was rolled back, plus one; whether rounds are paused.
GENERATION, PAUSED = "generation", "paused"
SCHEMA = database.Schema(
    "fedrec_server.state:migrations", whose="the coordinator's", key="state.database", file="server.toml"
)


class Database(database.Database):
    """The coordinator's tables; several processes may use one database."""

    @classmethod
    def open(cls, url: str) -> "Database":
        """Connect and bring the tables to this version.

        Args:
            url: SQLAlchemy's, `sqlite:///…` or `postgresql+psycopg://…`.
        Raises: ConfigError: no such database, or no driver for it.
        """
        return cls.connect(url, SCHEMA)


class Office:
    """Settings that outlive a restart, and the audit log. Every method is one transaction.

    Raises, in every method: StorageError.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def note(self, who: str, what: str, detail: Mapping[str, Any]) -> None:
        """Write a line of the audit log."""
        with self._database.begin() as connection:
            write_audit(connection, who, what, detail)

    def audit(self, limit: int = 100, before: int | None = None) -> list[dict[str, Any]]:
        """The latest lines, or the latest before that of an `id`; newest first."""
        wanted = select(AUDIT).order_by(AUDIT.c.id.desc()).limit(limit)
        wanted = wanted if before is None else wanted.where(AUDIT.c.id < before)
        with self._database.begin() as connection:
            return [dict(row) for row in connection.execute(wanted).mappings()]

    def setting(self, key: str, default: str = "") -> str:
        """A value that outlives a restart."""
        with self._database.begin() as connection:
            found = connection.execute(select(SETTINGS.c.value).where(SETTINGS.c.key == key)).scalar()
            return default if found is None else str(found)

    def set_setting(self, key: str, value: str, *, who: str) -> None:
        """Change one, and say in the audit log who did."""
        with self._database.begin() as connection:
            connection.execute(delete(SETTINGS).where(SETTINGS.c.key == key))
            connection.execute(insert(SETTINGS).values(key=key, value=value))
            write_audit(connection, who, f"set {key}", {"value": value})


def database_url(folder: Path, configured: str) -> str:
    """`sqlite` means a file of the coordinator's folder; anything else is an address."""
    return f"sqlite:///{(folder / 'state' / 'coordinator.sqlite').resolve()}" if configured == "sqlite" else configured


def printable_url(url: str) -> str:
    """Without its password."""
    return make_url(url).render_as_string(hide_password=True)


def now() -> str:
    """ISO 8601, UTC, milliseconds: sorts as text."""
    return at(datetime.now(UTC))


def at(moment: datetime) -> str:
    """As `now`, of another moment."""
    return moment.isoformat(timespec="milliseconds")


def write_audit(connection: Connection, who: str, what: str, detail: Mapping[str, Any]) -> None:
    """A line of the audit log, in the transaction that does what it says."""
    connection.execute(insert(AUDIT).values(at=now(), who=who, what=what, detail=dict(detail)))
