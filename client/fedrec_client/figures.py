"""A node in figures, for its own people's monitoring. Nothing tells how many users or rows there are.

Metrics are often shipped to somebody else's monitoring. So counts of users and rows stay out, and so do the worker's
computing time and memory, from which the size of a step could be read.
"""

import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from fedrec.errors import FedrecError
from fedrec.privacy.ledger_view import BudgetView, LedgerView
from fedrec.terms import FederationTerms
from fedrec_client.adapters import Adapters
from fedrec_client.desk import SeenRounds
from fedrec_client.settings import PAUSED, Node
from fedrec_client.socket_link import SocketDesk

_T = TypeVar("_T")
_ASK_EVERY_S = 2.0
# A worker that has not answered for so long hangs; it answers from a thread of its own while another one trains.
_SILENT_S = 30.0
_UNHEARD_S = 300.0


@dataclass(frozen=True)
class WorkerFigures:
    """Since the worker's process began.

    Attributes:
        answered: rounds.
        lost: rounds that were not answered, by class of error.
    """

    answered: int
    lost: Mapping[str, int]


@dataclass(frozen=True)
class NodeFigures:
    """Public within the partner, and fit for monitoring elsewhere.

    Attributes:
        place: generation, round and attempt that were asked last; zeros before the first.
        worker: None: it does not answer.
        budget: None: there is no ledger, or it cannot be read.
        adapter_round: of the adapter that is held, None if none is; `adapter_since_s`: Unix time of its coming.
        heard_at_s: Unix time at which the coordinator last answered; `is_heard`: that is not long ago.
        disk_free_bytes: where the node's folder lies.
    """

    partner: str
    federation: str
    mode: str
    place: tuple[int, int, int]
    is_paused: bool
    is_supernode_up: bool
    worker: WorkerFigures | None
    budget: BudgetView | None
    adapter_round: int | None
    adapter_since_s: float | None
    heard_at_s: float | None
    is_heard: bool
    disk_free_bytes: int


@dataclass
class NodeWatch:
    """Looks at a running node. Only the worker is asked anything, by a thread, so that no scrape waits for it.

    Attributes:
        is_supernode_up: asked at each look.
        heard_at: when the coordinator last answered.
        silent_s: a worker that has not answered for so long counts as down.
    """

    node: Node
    terms: FederationTerms
    adapters: Adapters
    is_supernode_up: Callable[[], bool]
    heard_at: Callable[[], float | None]
    silent_s: float = _SILENT_S
    _stop: threading.Event = field(default_factory=threading.Event, repr=False)
    _answer: tuple[float, WorkerFigures | None] = field(default=(0.0, None), repr=False)

    def __post_init__(self) -> None:
        self._ledger = LedgerView(self.node.ledger)
        self._seen, self._desk = SeenRounds(self.node.state / "rounds.json"), SocketDesk(self.node.run)

    def start(self) -> None:
        """Begin to ask the worker."""
        threading.Thread(target=self._ask_forever, name="node-watch", daemon=True).start()

    def stop(self) -> None:
        """Ask no more."""
        self._stop.set()

    def figures(self) -> NodeFigures:
        """As of now; the worker's, of some seconds ago. Reads the ledger without its lock."""
        held, heard_at = _or_none(self.adapters.held), self.heard_at()
        return NodeFigures(
            partner=self.node.settings.name,
            federation=self.terms.name,
            mode=self.terms.mode,
            place=_or_none(self._seen.latest) or (0, 0, 0),
            is_paused=(self.node.state / PAUSED).exists(),
            is_supernode_up=self.is_supernode_up(),
            worker=self._worker(),
            budget=_or_none(self._ledger.budget),
            adapter_round=held.round if held else None,
            adapter_since_s=self.adapters.held_since() if held else None,
            heard_at_s=heard_at,
            is_heard=heard_at is not None and time.time() - heard_at <= self._unheard_s(),
            disk_free_bytes=shutil.disk_usage(self.node.folder).free,
        )

    def _worker(self) -> WorkerFigures | None:
        at, answer = self._answer
        return answer if time.monotonic() - at <= self.silent_s else None

    def _unheard_s(self) -> float:
        """Some of the node's own calls may fail, and each waits longer for the next."""
        return max(_UNHEARD_S, 3 * self.node.settings.local.adapter_every_s)

    def _ask_forever(self) -> None:
        while not self._stop.is_set():
            told = _or_none(self._desk.status)
            found = WorkerFigures(int(told["answered"]), dict(told["lost"])) if told else None
            self._answer = (time.monotonic(), found)
            self._stop.wait(_ASK_EVERY_S)


def _or_none(read: Callable[[], _T]) -> _T | None:
    """What cannot be read is missing in the metrics; the node's log says why."""
    try:
        return read()
    except (FedrecError, OSError, ValueError):
        return None
