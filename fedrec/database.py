"""A database that a program of ours keeps its state in: SQLite by default, PostgreSQL by one line."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from fedrec.errors import ConfigError, StorageError

_MIGRATING = threading.Lock()
_MIGRATION_LOCK = 0x66656472  # of PostgreSQL's advisory locks, which are numbers
_WRITES = "fedrec_writes"


@dataclass(frozen=True)
class Schema:
    """Whose tables they are, and what they must look like. Public.

    Attributes:
        migrations: alembic's place of the scripts, `package:folder`.
        whose: for errors, "the coordinator's" database.
        key: of the configuration that names the address.
        file: the configuration that has this key.
        is_whole: SQLite's transactions begin when ours do, and not at the first row that is changed. Then migrations
            are whole, savepoints work, and a transaction that reads and then writes never finds another in between.
        secure_delete: what is deleted from SQLite's file is overwritten there.
    """

    migrations: str
    whose: str
    key: str
    file: str
    is_whole: bool = False
    secure_delete: bool = False


class Database:
    """Tables in transactions; several threads and processes may use one database."""

    def __init__(self, engine: Engine, whose: str) -> None:
        self._engine = engine
        self._writing = engine.execution_options(**{_WRITES: True})
        self._whose = whose

    @classmethod
    def connect(cls, url: str, schema: Schema) -> Self:
        """Connect and bring the tables to this version.

        Args:
            url: SQLAlchemy's, `sqlite:///…` or `postgresql+psycopg://…`.
        Raises: ConfigError: no such database, no driver for it, or tables of a newer fedrec. StorageError.
        """
        try:
            engine = create_engine(url, pool_pre_ping=True, hide_parameters=True)
        except (SQLAlchemyError, ModuleNotFoundError) as error:
            raise ConfigError(
                f"{schema.key} is no usable address", f"see {schema.file}; PostgreSQL needs psycopg"
            ) from error
        if engine.dialect.name == "sqlite":
            _listen(engine, schema)
        store = cls(engine, schema.whose)
        try:
            with store.write() as connection:
                _migrate(connection, schema.migrations)
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
        with self._transaction(self._engine) as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction that changes something: where SQLite's are whole it waits its turn before it reads."""
        with self._transaction(self._writing) as connection:
            yield connection

    @contextmanager
    def _transaction(self, engine: Engine) -> Iterator[Connection]:
        try:
            with engine.begin() as connection:
                yield connection
        except (DBAPIError, PoolTimeoutError) as error:
            # The driver's words may quote values, and so may a traceback that shows its cause: the class has to do.
            kind = type(getattr(error, "orig", None) or error).__name__
            raise StorageError(f"{self._whose} database fails: {kind}", "mend it; nothing is half-written") from None


def _listen(engine: Engine, schema: Schema) -> None:
    pragmas = ["busy_timeout=10000", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"]
    pragmas += ["secure_delete=ON"] if schema.secure_delete else []

    def prepare(connection: Any, _record: object) -> None:
        """Readers never wait for the writer; what is committed survives a power cut."""
        if schema.is_whole:
            connection.isolation_level = None  # the driver begins nothing by itself
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    event.listen(engine, "connect", prepare)
    if schema.is_whole:
        event.listen(engine, "begin", _begin_whole)


def _begin_whole(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _migrate(connection: Connection, migrations: str) -> None:
    """Only if there is something to do: alembic keeps state of its own, which threads must not share."""
    config = Config()
    config.set_main_option("script_location", migrations)
    config.attributes["connection"] = connection
    with _MIGRATING:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _MIGRATION_LOCK})
        found = MigrationContext.configure(connection).get_current_revision()
        known = ScriptDirectory.from_config(config)
        if found is not None and found not in {script.revision for script in known.walk_revisions()}:
            raise ConfigError("the database is of a newer fedrec", "update this one")
        if found != known.get_current_head():
            command.upgrade(config, "head")
