"""How the thin ClientApp reaches the partner's worker. No torch here: Flower starts it anew for each message."""

from collections.abc import Callable
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


def connect(address: str) -> WorkerLink:
    """The worker behind an address. Raises ProtocolError if nobody listens there."""
    place, _, name = address.rpartition("/")
    if address in _in_process:
        return _in_process[address]
    if place in _finders:
        return _finders[place](name)
    raise ProtocolError(f"no worker listens at {address!r}", "start the partner's worker first")
