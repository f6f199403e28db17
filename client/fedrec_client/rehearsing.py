"""Workers of a rehearsal: they answer with public numbers, or with nonsense, and pay in the ledger as real ones do."""

import hashlib
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import PrivacyError, ProtocolError
from fedrec.model.adapter import AdapterDelta, AdapterState
from fedrec.privacy.integer_code import IntegerCode
from fedrec.privacy.ledger import PrivacyLedger
from fedrec.terms import FederationTerms
from fedrec.wire import RoundPlan, UpdateHeader
from fedrec_client.sums import numbers_of


class PowerOfTwo:
    """Stands in for a worker in rehearsals: its answer is 2**power in one number and 0 elsewhere.

    Every subset of partners has another sum, so that a sum shows whose answer is missing or counted twice. It pays in
    the ledger like the worker that it stands in for.
    """

    def __init__(self, partner: str, power: int, terms: FederationTerms, ledger: PrivacyLedger | None) -> None:
        self._partner, self._power, self._ledger = partner, power, ledger
        self._terms = terms

    def train(self, plan: RoundPlan, state: AdapterState) -> tuple[UpdateHeader, AdapterDelta]:
        """See `WorkerLink`."""
        if state.hash != plan.parent_hash:
            raise ProtocolError(f"round {plan.round}: the adapter is not the parent that the round names")
        tensors = {name: np.zeros(shape, np.float32) for name, shape in self._terms.parts[plan.part].items()}
        next(iter(tensors.values())).flat[0] = np.float32(2.0**self._power)
        adapter_delta = AdapterDelta(tensors)
        if self._ledger is not None:
            self._pay(plan, adapter_delta.hash, self._ledger)
        place = (plan.run, plan.round, plan.attempt)
        header = UpdateHeader(*place, self._partner, adapter_delta.hash, plan.privacy_plan_hash)
        return header, adapter_delta

    def integers(
        self,
        plan: RoundPlan,
        state: AdapterState,
        code: IntegerCode,  # noqa: ARG002  # see `IntegerSource`
        session: bytes,  # noqa: ARG002
    ) -> NDArray[np.int64]:
        """See `IntegerSource`: the power itself, so that the sum is a whole number."""
        if state.hash != plan.parent_hash:
            raise ProtocolError(f"round {plan.round}: the adapter is not the parent that the round names")
        vector = np.zeros(numbers_of(self._terms.parts)[plan.part], np.int64)
        vector[0] = 2**self._power
        if self._ledger is not None:
            self._pay(plan, hashlib.sha256(vector.tobytes()).hexdigest(), self._ledger)
        return vector

    def _pay(self, plan: RoundPlan, released: str, ledger: PrivacyLedger) -> None:
        agreed = self._terms.plan
        assert agreed is not None  # a ledger is only handed in with a plan
        part = next((p for p in agreed.parts if p.part == plan.part), None)
        if part is None:
            raise PrivacyError(f"part {plan.part!r} is not in the agreed plan")
        attempt = str(plan.attempt) if plan.mode == "secagg" else "any attempt"
        event = hashlib.sha256(f"{plan.run}|{plan.round}|{plan.part}|{attempt}".encode()).hexdigest()
        ledger.reserve(
            event,
            plan_hash=plan.privacy_plan_hash,
            run=plan.run,
            part=part.part,
            sampling_prob=part.sampling_prob,
            noise_multiplier=part.noise_multiplier,
            steps=plan.local_steps,
            most_steps=part.total_steps,
            note=f"rehearsal of run {plan.run} round {plan.round}",
        )
        ledger.release(event, released)


class Nonsense:
    """Spoils the answers of another worker, in another way each time."""

    def __init__(self, worker: PowerOfTwo) -> None:
        self._worker = worker
        self._count = 0

    def train(self, plan: RoundPlan, state: AdapterState) -> tuple[UpdateHeader, AdapterDelta]:
        """See `WorkerLink`."""
        header, adapter_delta = self._worker.train(plan, state)
        kind, self._count = self._count % 5, self._count + 1
        name, first = next(iter(adapter_delta.tensors.items()))
        spoiled = {
            0: {**adapter_delta.tensors, name: np.full_like(first, np.nan)},
            1: {**adapter_delta.tensors, name: np.zeros(3, np.float32)},
            2: {**adapter_delta.tensors, name: np.full_like(first, 1e20)},
        }
        if kind in spoiled:
            adapter_delta = AdapterDelta(spoiled[kind])
            return replace(header, delta_hash=adapter_delta.hash), adapter_delta
        return replace(header, partner="server") if kind == 3 else replace(header, delta_hash="0" * 64), adapter_delta

    def integers(self, plan: RoundPlan, state: AdapterState, code: IntegerCode, session: bytes) -> NDArray[np.int64]:
        """See `IntegerSource`. What does not fit into the sum's bits; of what fits, a sum would show nothing."""
        return self._worker.integers(plan, state, code, session) - (1 << 40)
