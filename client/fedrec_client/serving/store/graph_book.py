"""Graphs of items in PostgreSQL (pgvector): made whole or not at all, found again by name, shared by all processes.

Their tables are made here when the first graph is, and not by the migrations: most stores never have one.

Reference: https://github.com/pgvector/pgvector, "HNSW".
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Column, Connection, DateTime, MetaData, Table, Text, delete, func, select, text
from sqlalchemy import update as update_rows
from sqlalchemy.exc import DBAPIError

from fedrec.database import Database
from fedrec.errors import StorageError
from fedrec.recommend.index import rows_hash
from fedrec.recommend.live_model import Floats
from fedrec_client.serving.store.tables import GRAPH_PREFIX

Availability = Literal["ready", "not PostgreSQL", "not on the server", "not allowed", "too old", "out of sight"]
_LEAST_VERSION = (0, 8)  # of pgvector: before it a search gives fewer than are asked for
_LOCKS = 0x67726170  # of PostgreSQL's advisory locks of two numbers
# Of 30,000 made items of a demo (fedrec_sim/serving_bench/made.py) 400 candidates hold 96.2% of the exact ten with
# pgvector's 16 and 64, and 98.3% with these, 99.0% with `_EFFORT`; usearch's 97.7%. As rows are, not made equally long
# (fedrec/recommend/index.py), they hold 0.2%; with the mean taken off alone 98.3%, but of the exact 200 92%, not 98%.
_LINKS, _EFFORT_OF_MAKING = 24, 200
# It looks at half as many again as are asked for, since the last of them are found least well; pgvector takes so many.
_EFFORT, _MOST_EFFORT = 1.5, 1000
_MAKING_BYTES = 2 << 30  # of the database's memory for making, at most
_KEPT = 2  # the newest of a tenant, whoever uses them: of the adapter that serves and of the one before
_UNUSED = timedelta(minutes=10)  # after which any other may go; `touch` must come more often
_SEARCH_MS = 2000
# How SQLSTATEs begin that say nothing of a graph: the database is away, ends, is full or too slow, a pooler mixes up
# prepared statements (26, 42P05), or the vector that is asked for is no good (22). After any other the graph cannot be
# used: its table, column, type or index is not there.
_NOT_THE_GRAPH = ("08", "22", "25", "26", "40", "42P05", "53", "55", "57", "58")
# A service that ends waits so long for one cancel, and so long for all, well within what is left of its end.
_CANCEL_S, _STOPPING_S, _CANCEL_AGAIN_S = 1.0, 5.0, 0.05
_WORD = Text(collation="C")
_GRAPHS = Table(
    f"{GRAPH_PREFIX}s",
    MetaData(),
    Column("tenant", _WORD, primary_key=True),
    Column("name", _WORD, primary_key=True),
    Column("made_at", DateTime(timezone=True), nullable=False),
    Column("used_at", DateTime(timezone=True), nullable=False),
)
_G = _GRAPHS.c


class GraphGoneError(StorageError):
    """A graph was dropped since nobody seemed to use it, or cannot be searched any more."""


@dataclass(frozen=True)
class Kind:
    """How pgvector holds a row: in single precision, or wider ones in half of it."""

    type: Literal["vector", "halfvec"]
    number: Literal[">f4", ">f2"]
    widest: int


KINDS = (Kind("vector", ">f4", 2000), Kind("halfvec", ">f2", 4000))


def kind_of(width: int) -> Kind | None:
    """None: no index of pgvector takes rows so wide.

    >>> [kind.type if kind else None for kind in map(kind_of, (2000, 2001, 4001))]
    ['vector', 'halfvec', None]
    """
    return next((kind for kind in KINDS if width <= kind.widest), None)


def availability(database: Database) -> Availability:
    """Whether graphs can be made in a database; installs the extension where that is allowed. Raises StorageError."""
    with database.write() as connection:
        if connection.dialect.driver != "psycopg":
            return "not PostgreSQL"
        _wait_for_lock(connection, "extension")
        found = connection.scalar(text("SELECT extversion FROM pg_extension WHERE extname = 'vector'"))
        offered = connection.scalar(text("SELECT default_version FROM pg_available_extensions WHERE name = 'vector'"))
        if found is None and offered is None:
            return "not on the server"
        if _version(found or offered) < _LEAST_VERSION:
            return "too old"
        if found is None:
            try:
                connection.execute(text("CREATE EXTENSION IF NOT EXISTS vector"))
            except DBAPIError:
                return "not allowed"
        return "ready" if connection.scalar(text("SELECT to_regtype('vector') IS NOT NULL")) else "out of sight"


class GraphBook:
    """The graphs of one tenant.

    Raises, in every method: StorageError.
    """

    def __init__(self, database: Database, tenant: str) -> None:
        self._database, self._tenant = database, tenant
        self._making: Any = None
        self._is_stopped = False
        self._changing = threading.Lock()  # of the two above

    def name_of(self, rows: Floats) -> str:
        """Of the graph of these rows, made as graphs are made here."""
        return rows_hash(rows, f"1|{self._tenant}|{_LINKS}|{_EFFORT_OF_MAKING}")

    def made_at(self, name: str) -> datetime | None:
        """When a graph was made that is there, whole; then it is not dropped for a while. None: it is not there."""
        with self._database.write() as connection:
            return self._touch(connection, name)

    def make(self, name: str, rows: Floats, broken: datetime | None = None) -> bool:
        """Make a graph: minutes for many items. False: another process makes it at this moment.

        All is one transaction: of a process that is killed nothing is left, and nobody sees a half.

        Args:
            rows: `[items, width]`, a code each; not wider than the widest of `KINDS`.
            broken: when the one was made that is there and cannot be used; one of another time stays.
        """
        kind = kind_of(rows.shape[1])
        assert kind is not None
        self._make_registry()
        if not self._clear(name, broken):
            return False
        table = table_of(name)
        with self._database.write() as connection:
            if not _has_lock(connection, table):
                return False
            if self._touch(connection, name):
                return True
            with self._cancellable(connection):
                self._fill(connection, table, rows, kind)
            now = {"made_at": func.clock_timestamp(), "used_at": func.clock_timestamp()}  # not when it was begun
            connection.execute(_GRAPHS.insert().values(tenant=self._tenant, name=name, **now))
        return True

    def _clear(self, name: str, broken: datetime | None) -> bool:
        """Drop what is there and is not whole, or is the broken one. False: another process makes it.

        A transaction of its own: others that ask for the graph would wait for one that makes it.
        """
        with self._database.write() as connection:
            connection.execute(_SOON)
            if not _has_lock(connection, table_of(name)):
                return False
            if self._touch(connection, name) in (None, broken):
                connection.execute(delete(_GRAPHS).where(_G.tenant == self._tenant, _G.name == name))
                connection.execute(text(f"DROP TABLE IF EXISTS {table_of(name)}"))
        return True

    @contextmanager
    def _cancellable(self, connection: Connection) -> Iterator[None]:
        with self._changing:
            self._go_on()
            self._making = connection.connection.driver_connection
        try:
            yield
        finally:
            with self._changing:  # a cancel that is on its way must not meet the next who uses this connection
                self._making = None

    def _go_on(self) -> None:
        if self._is_stopped:
            raise StorageError("a graph of items was given up", "the service is ending")

    def _fill(self, connection: Connection, table: str, rows: Floats, kind: Kind) -> None:
        _prepare_making(connection, rows)
        connection.execute(text(f"CREATE TABLE {table} (code int NOT NULL, v {kind.type}({rows.shape[1]}) NOT NULL)"))
        _copy(connection, table, rows, kind)
        self._go_on()
        options = f"m = {_LINKS}, ef_construction = {_EFFORT_OF_MAKING}"
        connection.execute(text(f"CREATE INDEX ON {table} USING hnsw (v {kind.type}_ip_ops) WITH ({options})"))

    def stop(self) -> None:
        """Give up what is being made, from another thread; for good, and within seconds whatever the database does."""
        with self._changing:
            self._is_stopped = True
        until = time.monotonic() + _STOPPING_S
        while self._cancel() and time.monotonic() < until:
            time.sleep(_CANCEL_AGAIN_S)  # it may have come between two statements, where it does nothing

    def _cancel(self) -> bool:
        """Whether something was being made."""
        with self._changing:
            if self._making is None:
                return False
            with suppress(Exception):  # of the driver or the network; the service ends anyway
                self._making.cancel_safe(timeout=_CANCEL_S)
            return True

    def search(
        self, name: str, vector: Floats, k: int, effort: int, *, touch: bool = False
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """About the k highest inner products: codes and products, best first.

        Args:
            effort: candidates that are looked at.
            touch: say that this graph is in use.
        Raises: GraphGoneError: it was dropped, or is broken.
        """
        kind = kind_of(len(vector))
        assert kind is not None
        wanted = text(search_sql(table_of(name), kind))
        asked = {"vector": f"[{','.join(map(str, vector.tolist()))}]", "k": k}
        with self._database.begin() as connection:
            connection.execute(SEARCHING, {"effort": str(min(max(effort, int(_EFFORT * k)), _MOST_EFFORT))})
            try:
                found = connection.execute(wanted, asked).all()
            except DBAPIError as error:
                if _is_of_graph(error):
                    raise _gone() from None
                raise
            if not found or (touch and not self._touch(connection, name)):
                raise _gone()
        return np.array([code for code, _ in found], np.int64), -np.array([d for _, d in found], np.float64)

    def drop_unused(self) -> list[str]:
        """Drop graphs that nobody used lately, but for the newest."""
        dropped = []
        with self._database.write() as connection:
            connection.execute(_SOON)
            newest = select(_G.name).where(_G.tenant == self._tenant).order_by(_G.made_at.desc()).limit(_KEPT)
            unused = _G.used_at < func.now() - _UNUSED
            # Whoever takes one up meanwhile has its row: this waits, looks at it again, and leaves it.
            gone = delete(_GRAPHS).where(_G.tenant == self._tenant, _G.name.not_in(newest), unused).returning(_G.name)
            for (name,) in connection.execute(gone).all():
                connection.execute(text(f"DROP TABLE IF EXISTS {table_of(name)}"))
                dropped.append(name)
        return dropped

    def _make_registry(self) -> None:
        with self._database.write() as connection:
            _wait_for_lock(connection, "registry")  # two that make it at once would not see each other
            _GRAPHS.create(connection, checkfirst=True)

    def _touch(self, connection: Connection, name: str) -> datetime | None:
        """When it was made; None: it is not there, or not whole, and then nothing keeps what is left of it."""
        if connection.scalar(select(func.to_regclass(_GRAPHS.name))) is None:
            return None
        if not connection.scalar(_IS_WHOLE, {"table": table_of(name)}):
            return None
        here = update_rows(_GRAPHS).where(_G.tenant == self._tenant, _G.name == name)
        made_at: datetime | None = connection.scalar(here.values(used_at=func.now()).returning(_G.made_at))
        return made_at


def table_of(name: str) -> str:
    """Of hexadecimal digits alone, so that it needs no quotes."""
    assert name.isalnum()
    return f"{GRAPH_PREFIX}_{name}"


def search_sql(table: str, kind: Kind) -> str:
    """The distance is the inner product with its sign turned."""
    distance = f"v <#> CAST(:vector AS {kind.type})"
    return f"SELECT code, {distance} FROM {table} ORDER BY {distance} LIMIT :k"


# `enable_seqscan`: a table that has just been filled has no statistics to choose the index by.
SEARCHING = text(
    "SELECT set_config('hnsw.ef_search', :effort, true), set_config('hnsw.iterative_scan', 'strict_order', true),"
    f" set_config('enable_seqscan', 'off', true), set_config('statement_timeout', '{_SEARCH_MS}', true)"
)
# In parallel it would need shared memory as large, which containers seldom give.
_MAKING = text(
    "SELECT set_config('maintenance_work_mem', greatest(:kb, pg_size_bytes(current_setting('maintenance_work_mem'))"
    " / 1024) || 'kB', true), set_config('max_parallel_maintenance_workers', '0', true),"
    " set_config('statement_timeout', '0', true)"
)
_SOON = text("SET LOCAL lock_timeout = '5s'")
# Without its index a table still answers, after looking at every row; the index goes with the column and the extension.
_IS_WHOLE = text(
    "SELECT EXISTS (SELECT FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid JOIN pg_am ON pg_am.oid = relam"
    " WHERE indrelid = to_regclass(:table) AND indisvalid AND amname = 'hnsw')"
)
_COPY_HEAD, _COPY_END = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"
_COPIED_AT_ONCE = 4096


def _version(told: str) -> tuple[int, int]:
    major, minor = told.split(".")[:2]
    return int(major), int(minor)


def _wait_for_lock(connection: Connection, what: str) -> None:
    connection.execute(select(func.pg_advisory_xact_lock(_LOCKS, func.hashtext(what))))


def _has_lock(connection: Connection, table: str) -> bool:
    """Of who makes or drops this graph, until the transaction ends; nobody waits for it."""
    return bool(connection.scalar(select(func.pg_try_advisory_xact_lock(_LOCKS, func.hashtext(table)))))


def _is_of_graph(error: DBAPIError) -> bool:
    state = getattr(error.orig, "sqlstate", None)  # none where the connection broke
    return state is not None and not state.startswith(_NOT_THE_GRAPH)


def _gone() -> GraphGoneError:
    return GraphGoneError("a graph of items is gone", "it is made anew")


def _prepare_making(connection: Connection, rows: Floats) -> None:
    """A graph that does not fit into its memory takes many times as long."""
    needed = len(rows) * (4 * rows.shape[1] + 48 * _LINKS + 512)
    connection.execute(_MAKING, {"kb": min(needed, _MAKING_BYTES) >> 10})


def _copy(connection: Connection, table: str, rows: Floats, kind: Kind) -> None:
    """In PostgreSQL's binary form: each column after its length in bytes, a vector after its width."""
    width, number = rows.shape[1], np.dtype(kind.number)
    head = [("columns", ">i2"), ("code_bytes", ">i4"), ("code", ">i4"), ("v_bytes", ">i4"), ("width", ">i2")]
    form = np.dtype([*head, ("unused", ">i2"), ("v", number, (width,))])
    try:
        cursor = connection.connection.cursor()
        with cursor.copy(f"COPY {table} (code, v) FROM STDIN (FORMAT binary)") as copy:
            copy.write(_COPY_HEAD)
            for start in range(0, len(rows), _COPIED_AT_ONCE):
                some = rows[start : start + _COPIED_AT_ONCE]
                packed = np.zeros(len(some), form)
                packed["columns"], packed["code_bytes"], packed["v_bytes"] = 2, 4, 4 + width * number.itemsize
                packed["code"], packed["width"], packed["v"] = np.arange(start, start + len(some)), width, some
                copy.write(packed.tobytes())
            copy.write(_COPY_END)
    except connection.dialect.loaded_dbapi.Error as error:  # SQLAlchemy sees only what goes through it
        kind_of_error = type(error).__name__
        raise StorageError(f"a graph of items cannot be copied: {kind_of_error}", "mend the database") from None
