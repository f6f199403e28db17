"""What a ledger says was spent, for somebody who only looks: no lock is taken, so that no round ever waits."""

import json
import sqlite3
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import NoResultFound
from sqlalchemy.pool import NullPool

from fedrec.privacy.ledger_chain import Chain, broken, read_chain
from fedrec.privacy.ledger_store import named_errors, newest, read_records
from fedrec.privacy.mechanism import Event
from fedrec.privacy.plan import PrivacyPlan


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
        self._known: tuple[tuple[int, str], Chain, BudgetView] | None = None
        self._after: dict[Event, float] = {}
        self._lock = threading.Lock()

    def budget(self) -> BudgetView:
        """As of now. Raises LedgerError: none there, damaged, or of another format. StorageError: cannot be read."""
        with self._lock:
            return self._read()[1]

    def price_of_next(self, plan: PrivacyPlan, federation: str) -> float:
        """Epsilon that one more step of a plan adds to what was spent, of the dearest part that may come next; >= 0.

        That is less than the step costs alone, since epsilons of many steps do not add up. A part whose steps were
        all taken in the plan's latest training comes no more, unless all were. Whatever else was charged meanwhile,
        a fairness figure or another federation's round, ends no training. Raises as `budget`.

        Args:
            federation: by whose name its runs begin; two may have one plan, and one ledger.
        """
        with self._lock:
            chain, view = self._read()
            taken = _steps_taken(chain, plan.hash, federation)
            left = [part for part in plan.parts if taken[part.part] < part.total_steps] or plan.parts
            events = [(part.part, part.sampling_prob, part.noise_multiplier, 1) for part in left]
            for event in events:
                if event not in self._after:
                    self._after[event] = chain.spent(event)
            return max(0.0, max(self._after[event] for event in events) - view.epsilon_spent)

    def _read(self) -> tuple[Chain, BudgetView]:
        with named_errors(self._path), self._engine.connect() as db:
            try:
                place = newest(db)
            except NoResultFound as error:
                raise broken(str(self._path), 1) from error
            if self._known is None or self._known[0] != place:
                chain = read_chain(read_records(db, str(self._path)), str(self._path))
                self._known, self._after = (place, chain, _view(chain)), {}
            return self._known[1:]


def _view(chain: Chain) -> BudgetView:
    spent, budget = chain.spent(), chain.budget
    return BudgetView(budget.epsilon, spent, max(0.0, budget.epsilon - spent), budget.delta, len(chain.records))


def _steps_taken(chain: Chain, plan_hash: str, federation: str) -> Counter[str]:
    """Of each part, in the training of a plan that a federation charged last."""
    taken: Counter[str] = Counter()
    run = _latest_run(chain, plan_hash, federation)
    for charge in chain.charges:
        if (charge.plan_hash, charge.run) == (plan_hash, run):
            part, _, _, steps = charge.total()
            taken[part] += steps
    return taken


def _latest_run(chain: Chain, plan_hash: str, federation: str) -> str | None:
    for record in reversed(list(chain.reserved.values())):
        content = json.loads(record.content)
        if content["plan_hash"] == plan_hash and content["run"].rpartition("/")[0] == federation:
            return str(content["run"])
    return None


def _engine(path: Path) -> Engine:
    address = f"file:{quote(str(path.absolute()))}?mode=ro"

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(address, uri=True, timeout=1.0, isolation_level=None, check_same_thread=False)

    return create_engine("sqlite://", creator=connect, poolclass=NullPool, hide_parameters=True)
