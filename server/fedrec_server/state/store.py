"""What the coordinator remembers between rounds and restarts: SQLite by default, PostgreSQL by one line."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, delete, event, insert, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from fedrec.errors import ConfigError, StorageError
from fedrec_server.state.tables import AUDIT, SETTINGS

# Settings: how often training was rolled back, plus one; whether rounds are paused.
GENERATION, PAUSED = "generation", "paused"
_MIGRATING = threading.Lock()


class Database:
    """The coordinator's tables; several processes may use one database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def open(cls, url: str) -> "Database":
        """Connect and bring the tables to this version.

        Args:
            url: SQLAlchemy's, `sqlite:///…` or `postgresql+psycopg://…`.
        Raises: ConfigError: no such database, or no driver for it.
        """
        try:
            engine = create_engine(url, pool_pre_ping=True)
        except (SQLAlchemyError, ModuleNotFoundError) as error:
            raise ConfigError(
                "state.database is no usable address", "see server.toml; PostgreSQL needs psycopg"
            ) from error
        if engine.dialect.name == "sqlite":
            event.listen(engine, "connect", _prepare_sqlite)
        store = cls(engine)
        try:
            with store.begin() as connection:
                _migrate(connection)
        except BaseException:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Let go of the connections."""
        self._engine.dispose()

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """One transaction. Raises StorageError: the database does not answer or cannot be written."""
        try:
            with self._engine.begin() as connection:
                yield connection
        except DBAPIError as error:
            # The driver's words may quote values: the class has to do.
            raise StorageError(
                f"the coordinator's database fails: {type(error.orig).__name__}", "mend it; nothing is half-written"
            ) from error


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


def _migrate(connection: Connection) -> None:
    """Only if there is something to do: alembic keeps state of its own, which threads must not share."""
    config = Config()
    config.set_main_option("script_location", "fedrec_server.state:migrations")
    config.attributes["connection"] = connection
    with _MIGRATING:
        found = MigrationContext.configure(connection).get_current_revision()
        known = ScriptDirectory.from_config(config)
        if found is not None and found not in {script.revision for script in known.walk_revisions()}:
            raise ConfigError("the database is of a newer fedrec", "update this one")
        if found != known.get_current_head():
            command.upgrade(config, "head")


def _prepare_sqlite(connection: Any, _record: object) -> None:
    """Readers never wait for the writer; what is committed survives a power cut."""
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
