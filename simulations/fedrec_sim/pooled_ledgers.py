"""Ledgers of thousands of simulated partners in one file: all that a ledger checks, without a file and a disk each."""

import sqlite3
import weakref
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedrec.errors import LedgerError
from fedrec.files import make_folders, storage_errors
from fedrec.privacy.ledger import PrivacyLedger
from fedrec.privacy.ledger_chain import FORMAT, Budget, Chain, Kind, Record, chained, read_chain
from fedrec.privacy.ledger_store import WAIT_S

_TABLE = (
    "CREATE TABLE IF NOT EXISTS records (partner TEXT, seq INTEGER, kind TEXT, event_id TEXT, content TEXT, note TEXT,"
    " time_utc_s REAL, hash TEXT, PRIMARY KEY (partner, seq)) WITHOUT ROWID"
)


class LedgerPool:
    """One SQLite file with the hash chains of all partners of a row. For simulations alone.

    A partner's own ledger waits for the disk some ten times a round (80 ms where it was measured), which is nothing for
    one partner and a quarter of an hour a round for 10,000 on one machine. Here the records, their chains, budgets and
    refusals are the same; but all partners share a file, it has no anchor, and a loss of power may cost its newest
    records, though no end of the process can. It lies here, where neither the core nor a partner's node may import
    from (a test), so that no configuration of a node can ask for it. `private.ledger = "pooled"` does in a simulation.

    Args:
        path: of the file; made with its folder if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with storage_errors(path.parent):
            make_folders(path.parent)
        # From the threads of Ray's actors too; each asks for one partner at a time.
        self._db = sqlite3.connect(path, isolation_level=None, timeout=WAIT_S, check_same_thread=False)
        weakref.finalize(self, self._db.close)
        path.chmod(0o600)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.execute(_TABLE)

    def records(self, partner: str) -> list[Record]:
        """A partner's records in order, unchecked."""
        columns = "seq, kind, event_id, content, note, time_utc_s, hash"
        with closing(
            self._db.execute(f"SELECT {columns} FROM records WHERE partner = ? ORDER BY seq", [partner])
        ) as rows:
            return [Record._make(row) for row in rows]

    def append(self, partner: str, record: Record) -> None:
        """Out of reach of SIGKILL when this returns."""
        with storage_errors(self.path.parent), closing(self._db.cursor()) as cursor:
            cursor.execute("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?)", [partner, *record])

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()


@dataclass(frozen=True)
class _Turn:
    chain: Chain
    pool: LedgerPool
    partner: str

    def append(self, kind: Kind, content: Any, event_id: str = "", note: str = "") -> None:
        """Once a turn."""
        self.pool.append(self.partner, chained(self.chain.records[-1], kind, content, 0.0, event_id, note))


class PooledLedger(PrivacyLedger):
    """One partner's chain in a pool. Records carry no time: two runs of a seed have the same ledgers."""

    def __init__(self, pool: LedgerPool, *, partner: str, dataset: str) -> None:
        self.path = pool.path
        self._pool, self._partner = pool, partner
        self._owner = {"partner": partner, "dataset": dataset}

    def enrol(self, budget_epsilon: float, budget_delta: float, *, begun: bool) -> None:
        """Begin the chain if there is none. Raises LedgerError: missing though the row has begun, or not whole."""
        partner, dataset = self._partner, self._owner["dataset"]
        if begun or self._pool.records(partner):
            self.chain()
            return
        identity = {"format": FORMAT, "ledger_id": f"{dataset}/{partner}", "partner": partner, "dataset": dataset}
        genesis = chained(None, "genesis", identity, 0.0)
        self._pool.append(partner, genesis)
        self._pool.append(partner, chained(genesis, "budget", vars(Budget(budget_epsilon, budget_delta)), 0.0))

    @contextmanager
    def _turn(self, *, anchored: bool = True) -> Iterator[Any]:  # noqa: ARG002  # a pool has no anchors
        partner, name = self._partner, f"{self.path}: {self._partner}"
        found = self._pool.records(partner)
        if not found:
            raise LedgerError(f"{name}: the ledger of a run that has begun is missing", "restore it, or start anew")
        chain = read_chain(found, name)
        if (chain.partner, chain.dataset) != (partner, self._owner["dataset"]):
            raise LedgerError(f"{name}: somebody else's ledger", "start a new run")
        yield _Turn(chain, self._pool, partner)
