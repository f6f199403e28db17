"""The ledger's table in SQLite: one writer at a time, on the disk at every commit, errors with names."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import (
    CheckConstraint,
    Column,
    Connection,
    Engine,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    insert,
    select,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from fedrec.errors import FedrecError, LedgerError, RunError, StorageError
from fedrec.privacy.ledger_chain import FORMAT, KINDS, Record

WAIT_S = 60.0  # for another process's turn
SYNCHRONOUS = "FULL"  # every commit waits for the disk

RECORDS = Table(
    "records",
    MetaData(),
    Column("seq", Integer, primary_key=True, autoincrement=False),  # 1, 2, 3, ...
    Column("kind", String, CheckConstraint(f"kind IN {KINDS}"), nullable=False),
    Column("event_id", String, nullable=False),
    Column("content", String, nullable=False),
    Column("note", String, nullable=False),
    Column("time_utc_s", Float, nullable=False),
    Column("hash", String, nullable=False),
)
Index("once", RECORDS.c.kind, RECORDS.c.event_id, unique=True, sqlite_where=RECORDS.c.event_id != "")


def make_engine(path: Path, *, new: bool = False) -> Engine:
    """An engine whose every connection is a fresh one, and whose every transaction is the only writer.

    Args:
        path: must exist; SQLite would make a forgotten ledger anew.
        new: an empty file that shall become a ledger. A foreign file stays as it is.
    """
    address = f"file:{quote(str(path.absolute()))}?mode=rw"

    def connect() -> sqlite3.Connection:
        # isolation_level=None: Python begins no transaction of its own; `_begin` does (SQLAlchemy's recipe).
        db = sqlite3.connect(address, uri=True, timeout=WAIT_S, isolation_level=None, check_same_thread=False)
        try:
            db.execute(f"PRAGMA synchronous={SYNCHRONOUS}")
            if new or _format(db) == FORMAT:
                db.execute("PRAGMA journal_mode=WAL")
        except BaseException:
            db.close()
            raise
        return db

    engine = create_engine("sqlite://", creator=connect, poolclass=NullPool, hide_parameters=True)
    event.listen(engine, "begin", _begin)
    return engine


def write_new(path: Path, records: Sequence[Record]) -> None:
    """Turn an empty file into a ledger with its first records."""
    with named_errors(path), make_engine(path, new=True).begin() as db:
        RECORDS.create(db)
        db.execute(insert(RECORDS), [record._asdict() for record in records])
        db.exec_driver_sql(f"PRAGMA user_version={FORMAT}")


def read_records(db: Connection, name: str) -> Iterator[Record]:
    """All records in order, unchecked. Raises LedgerError: no ledger of this format."""
    found = db.exec_driver_sql("PRAGMA user_version").scalar_one()
    if found == 0:
        raise LedgerError(f"{name}: no privacy ledger", "give the path of one")
    if found != FORMAT:
        remedy = "use a newer fedrec" if found > FORMAT else "go on with the fedrec that wrote it, or start a new run"
        raise LedgerError(f"{name}: ledger of format {found}, this fedrec reads {FORMAT}", remedy)
    return map(Record._make, db.execute(select(RECORDS).order_by(RECORDS.c.seq)).all())


def append_record(db: Connection, record: Record) -> None:
    """Within a transaction."""
    db.execute(insert(RECORDS), record._asdict())


def newest(db: Connection) -> tuple[int, str]:
    """seq and hash of the last record."""
    seq, hash_ = db.execute(select(RECORDS.c.seq, RECORDS.c.hash).order_by(RECORDS.c.seq.desc()).limit(1)).one()
    return seq, hash_


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Turns what SQLite says into one of our errors, which name the file."""
    try:
        yield
    except DBAPIError as error:
        raise _named(path, error.orig) from error


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _format(db: sqlite3.Connection) -> int:
    with closing(db.execute("PRAGMA user_version")) as found:
        return int(found.fetchone()[0])


def _named(path: Path, error: BaseException | None) -> FedrecError:
    if not path.exists() and path.parent.is_dir():
        return LedgerError(f"{path}: no ledger there", "restore the newest backup, or mend the path")
    match getattr(error, "sqlite_errorname", "").split("_")[1:2]:  # SQLITE_BUSY_SNAPSHOT: BUSY
        case ["BUSY" | "LOCKED"]:
            return RunError(f"{path}: in use by another process for {WAIT_S:.0f} s", "let it end")
        case ["CANTOPEN" | "READONLY" | "IOERR" | "FULL" | "PERM" | "AUTH" | "NOLFS"]:
            return StorageError(f"{path}: {error}", "free space, or mend folder and permissions")
        case _:
            remedy = "restore the newest backup, then fedrec privacy ledger adopt"
            return LedgerError(f"{path}: no privacy ledger, or damaged ({error})", remedy)
