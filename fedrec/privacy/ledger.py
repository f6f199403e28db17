"""A partner's own durable account of what its data have paid: RESERVE, read data, RELEASE, send.

A crash in between leaves the reserve spent. The file holds no private value: hashes, public figures, times.
"""

import hashlib
import json
import math
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

from fedrec.errors import BudgetError, FedrecError, PrivacyError, RunError, StorageError
from fedrec.privacy.accounting import epsilon_pld
from fedrec.privacy.mechanism import Event, mechanism_problems

_FORMAT = 1
_TABLE = """
CREATE TABLE IF NOT EXISTS records (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,  -- 1, 2, 3, ...; sqlite_sequence remembers the last one
    kind TEXT NOT NULL CHECK (kind IN ('reserve', 'release')),
    event_id TEXT NOT NULL,
    content TEXT NOT NULL,                  -- canonical JSON: the cost, or the hash of what was released
    note TEXT NOT NULL,
    time_utc_s REAL NOT NULL,
    hash TEXT NOT NULL,                     -- SHA-256 over the fields above and the hash of the row before
    UNIQUE (kind, event_id)
)"""
_RESTORE = "restore the newest backup; if it is older than the last round, add what that round cost"
_WAIT_S = 60.0  # for another process's reserve


class _Row(NamedTuple):
    seq: int
    kind: str
    event_id: str
    content: str
    note: str
    time_utc_s: float
    hash: str

    def expected_hash(self, previous: str) -> str:
        return hashlib.sha256(_canonical([previous, *self[:-1]]).encode()).hexdigest()

    def event(self) -> Event:
        part, sampling_prob, noise_multiplier, steps = json.loads(self.content)["event"]
        return part, sampling_prob, noise_multiplier, steps


class PrivacyLedger:
    """Append-only records in SQLite, each hashed with the one before; every use checks the whole chain.

    Safe between threads and processes: each call opens its own connection, and writers queue up.

    Args:
        path: of the SQLite file, made if missing; its folder must exist.
        budget_epsilon: of the node's owner, never of the coordinator; > 0, at `budget_delta` in (0, 1).
    Raises:
        PrivacyError: a budget out of range, or a record that was changed or removed.
        RunError: no ledger of this format, or in use for too long. StorageError: not to be opened or written.
    """

    def __init__(self, path: Path, budget_epsilon: float, budget_delta: float) -> None:
        if not 0 < budget_epsilon < math.inf or not 0 < budget_delta < 1:
            given = f"epsilon {budget_epsilon!r} and delta {budget_delta!r}"
            raise PrivacyError(f"a budget must be finite and > 0, with delta in (0, 1), is {given}")
        self.path = Path(path)
        self.budget_epsilon = budget_epsilon
        self.budget_delta = budget_delta
        with self._transaction("IMMEDIATE") as db:
            self._prepare(db)
            self._read(db)

    def reserve(
        self,
        event_id: str,
        *,
        plan_hash: str,
        part: str,
        sampling_prob: float,
        noise_multiplier: float,
        steps: int,
        note: str = "",
    ) -> None:
        """Pay for an event; it is on the disk when this returns. Call BEFORE the data are read.

        The same event reserved again costs nothing: a repeated round repeats the same release with the same
        keyed noise. So `event_id` must name the whole question, as the noise context does.

        Args:
            event_id: name of the question; what follows it is public. Where the question holds anything private, as
                a fingerprint of the data, the name must be keyed with a secret.
            steps: sampled Gaussian mechanisms run under this event.
            note: for the owner who reads the ledger; free text without private values.
        Raises:
            BudgetError: the budget does not cover it; nothing is written.
            PrivacyError: wrong figures, or the event was reserved before at another cost.
        """
        if problems := mechanism_problems(sampling_prob, noise_multiplier, steps):
            raise PrivacyError.of_all(problems, "mend the plan", f"event {event_id}")
        event = (part, float(sampling_prob), float(noise_multiplier), steps)
        content = _canonical({"plan_hash": plan_hash, "event": event})
        with self._transaction("IMMEDIATE") as db:
            rows = self._read(db)
            known = _find(rows, "reserve", event_id)
            if known is None:
                self._refuse_overspending(rows, event)
                self._append(db, rows, "reserve", event_id, content, note)
            elif known.content != content:
                raise PrivacyError(f"event {event_id} was reserved before at another cost", "name it anew")

    def release(self, event_id: str, delta_hash: str) -> None:
        """Note what an event gives away; on the disk when this returns. Call BEFORE it is sent.

        Args:
            delta_hash: hash of the noised difference; public.
        Raises: PrivacyError: the event was not reserved, or was released before with another hash, as it must
            not: two answers under one noise give away their difference.
        """
        with self._transaction("IMMEDIATE") as db:
            rows = self._read(db)
            if _find(rows, "reserve", event_id) is None:
                raise PrivacyError(f"event {event_id} was never reserved", "reserve before reading data")
            known = _find(rows, "release", event_id)
            if known is None:
                self._append(db, rows, "release", event_id, _canonical(delta_hash), "")
            elif known.content != _canonical(delta_hash):
                raise PrivacyError(
                    f"event {event_id} was released before with another hash",
                    "send what was released; a new answer needs a new round, and costs",
                )

    def spent(self) -> tuple[float, float]:
        """(epsilon, delta) of all that was reserved, released or not; delta is the budget's."""
        with self._transaction("DEFERRED") as db:
            events = _events(self._read(db))
        return epsilon_pld(events, self.budget_delta), self.budget_delta

    def verify(self) -> None:
        """Check every record against the chain.

        Raises: PrivacyError: naming the first broken row. An older copy of the file cannot be found out,
            nor one whose hashes were all made anew.
        """
        with self._transaction("DEFERRED") as db:
            self._read(db)

    def _refuse_overspending(self, rows: list[_Row], event: Event) -> None:
        before = _events(rows)
        after = epsilon_pld([*before, event], self.budget_delta)
        if after <= self.budget_epsilon:
            return
        spent = epsilon_pld(before, self.budget_delta)
        remaining = max(0.0, self.budget_epsilon - spent)
        raise BudgetError(
            f"budget epsilon {self.budget_epsilon:g} at delta {self.budget_delta:g}: spent {spent:.4f}, "
            f"remaining {remaining:.4f}; part {event[0]!r} would bring it to {after:.4f}",
            "go on without this partner, or let its owner raise the budget",
        )

    @contextmanager
    def _transaction(self, kind: Literal["DEFERRED", "IMMEDIATE"]) -> Iterator[sqlite3.Connection]:
        """IMMEDIATE: nobody else writes meanwhile. On the disk when it ends; an exception undoes it."""
        try:
            # Closing without COMMIT rolls back. isolation_level=None: Python begins none of its own.
            with closing(sqlite3.connect(self.path, timeout=_WAIT_S, isolation_level=None)) as db:
                db.execute("PRAGMA journal_mode=WAL")
                db.execute("PRAGMA synchronous=FULL")
                db.execute(f"BEGIN {kind}")
                yield db
                db.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._storage_error(error) from error

    def _storage_error(self, error: sqlite3.Error) -> FedrecError:
        match getattr(error, "sqlite_errorname", "").split("_")[1:2]:  # SQLITE_BUSY_SNAPSHOT: BUSY
            case ["BUSY" | "LOCKED"]:
                return RunError(f"{self.path}: in use by another process for {_WAIT_S:.0f} s", "let it end")
            case ["NOTADB" | "CORRUPT" | "ERROR"]:
                return RunError(f"{self.path}: no privacy ledger, or damaged ({error})", _RESTORE)
            case _:
                return StorageError(f"{self.path}: {error}", "free space, or mend folder and permissions")

    def _prepare(self, db: sqlite3.Connection) -> None:
        found = db.execute("PRAGMA user_version").fetchone()[0]
        tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if found != _FORMAT and (found or tables):
            raise RunError(f"{self.path}: ledger of format {found}, not {_FORMAT}", "use a newer fedrec")
        db.execute(_TABLE)
        db.execute(f"PRAGMA user_version={_FORMAT}")

    def _read(self, db: sqlite3.Connection) -> list[_Row]:
        rows: list[_Row] = []
        previous = ""
        for number, values in enumerate(db.execute("SELECT * FROM records ORDER BY seq"), start=1):
            row = _Row(*values)
            if row.hash != row.expected_hash(previous):
                raise self._broken(number)
            rows.append(row)
            previous = row.hash
        last = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'records'").fetchone()
        if (last[0] if last else 0) != len(rows):
            raise self._broken(len(rows) + 1)
        return rows

    def _broken(self, number: int) -> PrivacyError:
        return PrivacyError(f"{self.path}: row {number} of the ledger was changed or removed", _RESTORE)

    def _append(
        self, db: sqlite3.Connection, rows: list[_Row], kind: str, event_id: str, content: str, note: str
    ) -> None:
        row = _Row(len(rows) + 1, kind, event_id, content, note, time.time(), "")
        row = row._replace(hash=row.expected_hash(rows[-1].hash if rows else ""))
        db.execute("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?)", row)


def _find(rows: list[_Row], kind: str, event_id: str) -> _Row | None:
    return next((row for row in rows if row.kind == kind and row.event_id == event_id), None)


def _events(rows: list[_Row]) -> list[Event]:
    return [row.event() for row in rows if row.kind == "reserve"]


def _canonical(value: Any) -> str:
    """One text for one value; floats as their repr, which is exact."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
