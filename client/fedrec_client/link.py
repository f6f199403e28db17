"""How the thin ClientApp reaches the partner's worker. No torch here: Flower starts it anew for each message."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fedrec.errors import ProtocolError
from fedrec.model.adapter import AdapterDelta, AdapterState
from fedrec.wire import RoundPlan, SumHeader, UpdateHeader

UNIX = "unix:"  # begins the address of a worker's socket
Answer = tuple[UpdateHeader, AdapterDelta, str]
"""Header, difference, and the partner's signature over the header; empty inside one process."""
SignedSumAnswer = tuple[SumHeader, bytes, str]
"""Header, body, and the partner's signature over the header; empty inside one process."""


class Desk(Protocol):
    """What may be asked of a partner from outside."""

    def answer(self, plan: RoundPlan, state: AdapterState, signature: str) -> Answer:
        """Answer a round that the coordinator signed.

        Raises: FedrecError: refused, with a reason that names no private value.
        """

    def add(self, header: SumHeader, body: bytes, state: AdapterState | None, signature: str) -> SignedSumAnswer:
        """Answer a step of a sum under masks, as `SumDesk.answer`.

        Raises: as `answer`.
        """


class Trainer(Protocol):
    """Who trains for a partner."""

    def train(self, plan: RoundPlan, state: AdapterState) -> tuple[UpdateHeader, AdapterDelta]:
        """Answer a round with a noised adapter difference.

        Raises: FedrecError: the worker refuses, with a reason that names no private value.
        """


class WorkerLink(Trainer, Protocol):
    """A partner of this process, whom nobody else can reach: nothing is signed."""

    def add(self, header: SumHeader, body: bytes, state: AdapterState | None) -> tuple[SumHeader, bytes]:
        """Answer a step of a sum under masks. Raises: as `train`."""


@dataclass(frozen=True)
class _Unsigned:
    """A worker of this process as a desk."""

    worker: WorkerLink

    def answer(self, plan: RoundPlan, state: AdapterState, signature: str) -> Answer:
        assert not signature
        return *self.worker.train(plan, state), ""

    def add(self, header: SumHeader, body: bytes, state: AdapterState | None, signature: str) -> SignedSumAnswer:
        assert not signature
        return *self.worker.add(header, body, state), ""


_in_process: dict[str, WorkerLink] = {}
_finders: dict[str, Callable[[str], WorkerLink]] = {}


def register(address: str, link: WorkerLink) -> None:
    """Make a worker of this process reachable under an address; simulations use it."""
    _in_process[address] = link


def register_all(place: str, find: Callable[[str], WorkerLink] | None) -> None:
    """Let workers be found, or made, when they are asked for, under addresses `PLACE/NAME`; None ends it."""
    if find is None:
        _finders.pop(place, None)
    else:
        _finders[place] = find


def connect(address: str) -> Desk:
    """The desk behind an address. Raises ProtocolError if nobody listens there."""
    if address.startswith(UNIX):
        from fedrec_client.socket_link import SocketDesk

        return SocketDesk(Path(address.removeprefix(UNIX)))
    place, _, name = address.rpartition("/")
    if address in _in_process:
        return _Unsigned(_in_process[address])
    if place in _finders:
        return _Unsigned(_finders[place](name))
    raise ProtocolError(f"no worker listens at {address!r}", "start the partner's worker first")
