"""What a ledger says was spent, for somebody who only looks: no lock is taken, so that no round ever waits."""

import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.exc import NoResultFound
from sqlalchemy.pool import NullPool

from fedrec.privacy.ledger_chain import broken, read_chain
from fedrec.privacy.ledger_store import named_errors, newest, read_records


@dataclass(frozen=True)
class BudgetView:
    """A budget and what it has paid. Public within the partner.

    Attributes:
        epsilon_total: the newest budget, at `delta`.
        epsilon_remaining: >= 0.
        records: in the ledger.
    """

    epsilon_total: float
    epsilon_spent: float
    epsilon_remaining: float
    delta: float
    records: int


class LedgerView:
    """Looks at a ledger from beside: the hash chain is checked, the anchor is not, and nothing is written.

    For figures alone: whoever is about to spend opens a `PrivacyLedger`, which checks and locks. A ledger that has
    not changed is not read again, since adding up its events takes a while.

    Args:
        path: of the SQLite file.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._engine = path, _engine(path)
        self._known: tuple[tuple[int, str], BudgetView] | None = None
        self._lock = threading.Lock()

    def budget(self) -> BudgetView:
        """As of now. Raises LedgerError: none there, damaged, or of another format. StorageError: cannot be read."""
        with self._lock, named_errors(self._path), self._engine.connect() as db:
            try:
                place = newest(db)
            except NoResultFound as error:
                raise broken(str(self._path), 1) from error
            if self._known is None or self._known[0] != place:
                self._known = place, _view(db, str(self._path))
            return self._known[1]


def _view(db: Connection, name: str) -> BudgetView:
    chain = read_chain(read_records(db, name), name)
    spent, budget = chain.spent(), chain.budget
    return BudgetView(budget.epsilon, spent, max(0.0, budget.epsilon - spent), budget.delta, len(chain.records))


def _engine(path: Path) -> Engine:
    address = f"file:{quote(str(path.absolute()))}?mode=ro"

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(address, uri=True, timeout=1.0, isolation_level=None, check_same_thread=False)

    return create_engine("sqlite://", creator=connect, poolclass=NullPool, hide_parameters=True)
