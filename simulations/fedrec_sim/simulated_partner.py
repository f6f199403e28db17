"""One partner of a simulation as its node is in earnest: a worker, a place in sums, and now and then a loss."""

import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import get_args

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from fedrec.errors import ProtocolError, RunError
from fedrec.model.adapter import AdapterDelta, AdapterState
from fedrec.privacy.integer_code import IntegerCode
from fedrec.secagg.messages import SumTerms
from fedrec.secagg.shamir import Entropy
from fedrec.wire import RoundPlan, SumHeader, SumStep, UpdateHeader
from fedrec_client.sums import RoundWorker, SumDesk

Lost = Callable[[int], dict[str, SumStep]]
"""Of a round: partners that are lost in it, and the step that each of them misses."""


class PlainSums:
    """The sums that masks hide, added up beside them: of one attempt at a time, whatever the number of partners."""

    def __init__(self) -> None:
        self._place: tuple[str, int, int] | None = None
        self._sum: NDArray[np.int64] = np.zeros(0, np.int64)
        self._names: set[str] = set()
        self.compared = 0

    def add(self, plan: RoundPlan, partner: str, vector: NDArray[np.int64]) -> None:
        """A vector that is about to be masked."""
        place = (plan.run, plan.round, plan.attempt)
        if place != self._place:
            self._place, self._sum, self._names = place, np.zeros(len(vector), np.int64), set()
        self._sum += vector
        self._names.add(partner)

    def compare(self, terms: SumTerms, survivors: tuple[str, ...], total: NDArray[np.int64]) -> None:
        """Raises RunError: the sum under masks is not, to the last bit, the plain sum of the survivors' integers."""
        plan = terms.plan
        same = self._place == (plan.run, plan.round, plan.attempt) and self._names == set(survivors)
        if not same or not np.array_equal(self._sum, total):
            raise RunError(f"round {plan.round}: the sum under masks is not the sum of its survivors' integers")
        self.compared += 1


@dataclass(frozen=True)
class SimulatedPartner:
    """A `WorkerLink`. What it keeps between the steps of a sum is in `desk`, so that workers may come and go.

    Attributes:
        find_worker: the worker, made if it is not there.
        lost: see `Lost`; a partner without masks misses a round if it would be lost before its vector was there.
    """

    name: str
    find_worker: Callable[[], RoundWorker] = field(repr=False)
    desk: SumDesk | None = field(repr=False)
    lost: Lost = field(repr=False)

    def train(self, plan: RoundPlan, state: AdapterState) -> tuple[UpdateHeader, AdapterDelta]:
        """See `WorkerLink`."""
        if self.lost(plan.round).get(self.name) in ("advertise", "share", "mask"):
            raise ProtocolError("lost, as the simulation wants it")
        return self.find_worker().train(plan, state)

    def add(self, header: SumHeader, body: bytes, state: AdapterState | None) -> tuple[SumHeader, bytes]:
        """See `WorkerLink`."""
        if self.desk is None:
            raise ProtocolError("this row adds nothing up under masks")
        if self.lost(header.round).get(self.name) == header.step:
            self.desk.forget()
            raise ProtocolError("lost, as the simulation wants it")
        return self.desk.answer(header, body, state)


@dataclass(frozen=True)
class WatchedSource:
    """The integers of a partner, noted for the comparison before they are masked."""

    name: str
    find_worker: Callable[[], RoundWorker] = field(repr=False)
    sums: PlainSums = field(repr=False)

    def integers(self, plan: RoundPlan, state: AdapterState, code: IntegerCode, session: bytes) -> NDArray[np.int64]:
        """See `IntegerSource`."""
        vector = self.find_worker().integers(plan, state, code, session)
        self.sums.add(plan, self.name, vector)
        return vector


def losses_of(names: list[str], losses: int, seed: int) -> Lost:
    """So many partners each round, drawn by seed and round, each at another of the five steps."""
    steps: tuple[SumStep, ...] = get_args(SumStep)

    def lost(number: int) -> dict[str, SumStep]:
        if not losses:
            return {}
        drawn = np.random.default_rng([seed, number]).choice(len(names), losses, replace=False)
        return {names[place]: steps[(number + 2 * i) % len(steps)] for i, place in enumerate(drawn)}

    return lost


def repeatable(root: bytes, place: tuple[str, int, int]) -> Entropy:
    """Secrets of one attempt from a partner's noise key, so that a run that is repeated has the same noise."""
    key = hmac.digest(root, f"secrets of a sum|{place[0]}|{place[1]}|{place[2]}".encode(), "sha256")
    stream = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()
    return lambda n_bytes: stream.update(bytes(n_bytes))
