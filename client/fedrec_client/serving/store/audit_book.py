"""Who decided what and when: lines that are added and never changed, each hashed with the one before."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields

from sqlalchemy import Connection, insert, select, text

from fedrec.database import Database
from fedrec.recommend.shelf import Json
from fedrec_client.serving.store.columns import from_cursor, from_json, storable, to_cursor, to_json
from fedrec_client.serving.store.tables import AUDIT

START = "0" * 64
_A = AUDIT.c
_STEP = 1000
_LOCK = 0x72657677  # of PostgreSQL's advisory locks: one line is added at a time


@dataclass(frozen=True)
class AuditLine:
    """One of them.

    Attributes:
        seq: 1, 2, 3 within the tenant.
        at: Unix seconds.
        who: the API key's name; "local" where the service has no keys, "screen" for the service itself.
        what: flagged, proposed, approved, edited, rejected, superseded.
        kind, subject: an item's id, or a rule's name.
        before, after: state and content.
        hash: SHA-256 over the hash before and everything else here.
    """

    seq: int
    at: float
    who: str
    what: str
    kind: str
    subject: str
    before: Json
    after: Json
    note: str
    hash: str

    def to_dict(self) -> dict[str, Json]:
        """In the order of its fields, for JSON."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


class AuditBook:
    """A tenant's lines, to be read; `add_line` writes them beside what they tell of.

    Raises, in every method: StorageError.
    """

    def __init__(self, database: Database, tenant: str) -> None:
        self._database, self._tenant = database, tenant

    def page(self, n: int, cursor: str = "") -> tuple[list[AuditLine], str]:
        """Some, newest first, and where to go on; "" at the end. Raises DataError: the cursor is not of this list."""
        before = from_cursor(cursor, int)
        wanted = select(AUDIT).where(_A.tenant == self._tenant).order_by(_A.seq.desc()).limit(n)
        wanted = wanted if before is None else wanted.where(_A.seq < before[0])
        with self._database.begin() as connection:
            lines = [_line(*row[1:]) for row in connection.execute(wanted)]
        return lines, to_cursor(lines[-1].seq) if len(lines) == n and lines else ""

    def every(self) -> Iterator[AuditLine]:
        """All, oldest first, read some at a time."""
        done = 0
        while True:
            wanted = select(AUDIT).where(_A.tenant == self._tenant, _A.seq > done).order_by(_A.seq).limit(_STEP)
            with self._database.begin() as connection:
                lines = [_line(*row[1:]) for row in connection.execute(wanted)]
            yield from lines
            if len(lines) < _STEP:
                return
            done = lines[-1].seq


def add_line(
    connection: Connection,
    tenant: str,
    *,
    at: float,
    who: str,
    what: str,
    kind: str,
    subject: str,
    before: Json = None,
    after: Json = None,
    note: str = "",
) -> None:
    """Add one, in the transaction of what it tells of: neither is there without the other."""
    one_at_a_time(connection)
    last = select(_A.seq, _A.hash).where(_A.tenant == tenant).order_by(_A.seq.desc()).limit(1)
    seq, parent = connection.execute(last).first() or (0, START)
    was, now = to_json(before), to_json(after)
    line = _line(seq + 1, at, who, what, kind, storable(subject), was, now, storable(note), "")
    stored = line.to_dict() | {"before": was, "after": now, "hash": hash_of(parent, line)}
    connection.execute(insert(AUDIT).values(tenant=tenant, **stored))


def one_at_a_time(connection: Connection) -> None:
    """Whoever adds a case or a line waits for the others, since these are numbered; SQLite has one writer anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _LOCK})


def hash_of(parent: str, line: AuditLine) -> str:
    """What a line's hash must be."""
    told = {name: value for name, value in line.to_dict().items() if name != "hash"}
    content = json.dumps([parent, told], sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(content.encode()).hexdigest()


def flaw_in(lines: Iterable[AuditLine]) -> str:
    """What is wrong with a whole log, oldest line first; "" if nothing.

    A changed, removed or inserted line shows. That the newest are missing shows only beside an export that was kept
    elsewhere: its last hash must be among these.
    """
    parent = START
    for seq, line in enumerate(lines, start=1):
        if line.seq != seq:
            return f"line {seq} is missing"
        if line.hash != hash_of(parent, line):
            return f"line {seq} was changed, or is not of this log"
        parent = line.hash
    return ""


def _line(
    seq: int,
    at: float,
    who: str,
    what: str,
    kind: str,
    subject: str,
    before: str,
    after: str,
    note: str,
    hash: str,  # noqa: A002
) -> AuditLine:
    return AuditLine(seq, at, who, what, kind, subject, from_json(before), from_json(after), note, hash)
