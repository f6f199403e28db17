"""How the thin ClientApp reaches the partner's worker. No torch here: Flower starts it anew for each message."""

from typing import Protocol

from fedrec.errors import ProtocolError
from fedrec.model.adapter import AdapterDelta, AdapterState
from fedrec.wire import RoundPlan, UpdateHeader


class WorkerLink(Protocol):
    """The one question that code sent by the coordinator may ask."""

    def train(self, plan: RoundPlan, state: AdapterState) -> tuple[UpdateHeader, AdapterDelta]:
        """Answer a round with a noised adapter difference.

        Raises: FedrecError: the worker refuses, with a reason that names no private value.
        """


_in_process: dict[str, WorkerLink] = {}


def register(address: str, link: WorkerLink) -> None:
    """Make a worker of this process reachable under an address; simulations use it."""
    _in_process[address] = link


def connect(address: str) -> WorkerLink:
    """The worker behind an address. Raises ProtocolError if nobody listens there."""
    link = _in_process.get(address)
    if link is None:
        raise ProtocolError(f"no worker listens at {address!r}", "start the partner's worker first")
    return link
