"""What a round costs a partner: held against the agreed plan, reserved before rows are read, noted before it leaves."""

import hashlib
import hmac
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import PrivacyError
from fedrec.privacy.ledger import PrivacyLedger
from fedrec.privacy.noise import NoiseSource
from fedrec.privacy.plan import PartPlan, PrivacyPlan
from fedrec.wire import RoundPlan


@dataclass(frozen=True)
class RoundPayments:
    """One partner's plan, ledger and noise key, whatever it trains.

    Attributes:
        plan, ledger: None together, where no privacy is claimed (simulations only).
        noise_root: 32 secret bytes; keys every draw.
    """

    partner: str
    plan: PrivacyPlan | None
    ledger: PrivacyLedger | None = field(repr=False)
    noise_root: bytes = field(repr=False)

    def agreed(self, plan: RoundPlan) -> tuple[PartPlan, PrivacyLedger]:
        """The part's plan, if the coordinator asks for exactly what this partner agreed to.

        Raises: PrivacyError: it does not.
        """
        if self.plan is None or self.ledger is None:
            raise PrivacyError(f"partner {self.partner} has no privacy plan", "agree on a plan before the first round")
        if plan.privacy_plan_hash != self.plan.hash or plan.mode != self.plan.mode:
            raise PrivacyError(f"round {plan.round} asks for another privacy plan than this partner agreed to")
        least = self.plan.quorum + self.plan.dishonest
        if plan.quorum != least:
            raise PrivacyError(f"round {plan.round} has another quorum than the {least} that were agreed")
        part = next((p for p in self.plan.parts if p.part == plan.part), None)
        if part is None:
            raise PrivacyError(f"part {plan.part!r} is not in the agreed plan")
        if plan.mode == "secagg" and plan.local_steps != 1:
            # A second local step would depend on the first one's sum under the partner's own small noise share,
            # so that one user could move the whole group's second gradient by more than the clip norm.
            raise PrivacyError("secagg allows one step a round", "set local_steps to 1")
        return part, self.ledger

    def pay(self, plan: RoundPlan, question: str) -> str:
        """Reserve the round's cost, before anything is computed from rows; the event's name.

        Raises: PrivacyError, BudgetError: as `agreed`, and as the ledger.
        """
        part, ledger = self.agreed(plan)
        event = event_of(self.noise_root, question)
        ledger.reserve(
            event,
            plan_hash=plan.privacy_plan_hash,
            run=plan.run,
            part=part.part,
            sampling_prob=part.sampling_prob,
            noise_multiplier=part.noise_multiplier,
            steps=plan.local_steps,
            most_steps=part.total_steps,
            note=f"run {plan.run} round {plan.round} mode {plan.mode}",
        )
        return event

    def note_release(self, event: str, released: str) -> None:
        """Note the hash of what an event gives away, before it is sent."""
        assert self.ledger is not None  # `pay` has refused otherwise
        self.ledger.release(event, released)

    def note_vector(self, event: str, vector: NDArray[np.int64]) -> None:
        """The same for the integers of a sum under masks."""
        self.note_release(event, hashlib.sha256(vector.astype("<i8").tobytes()).hexdigest())

    def source(self, question: str, number: int) -> NoiseSource:
        """The keyed stream of one step of a question."""
        return NoiseSource.from_root(self.noise_root, f"{question}|{number}".encode())


def question_of(
    plan: RoundPlan, state_hash: str, fingerprint: str, partner: str, bounds: tuple[int, ...], session: bytes = b""
) -> str:
    """Hash of the question asked of the data; private. The same one gets the same noise and costs once.

    Under secure aggregation each sum is another question: two that were opened over different partners would
    otherwise differ by one partner's answer with nothing but its own small noise share on it. Its session never
    repeats, whatever was forgotten since.

    Args:
        state_hash: of the adapter that the round starts from.
        fingerprint: of the data; private.
        bounds: public figures that shape what is computed (longest history, most users and a rank, say).
    """
    question = f"{plan.run}|{plan.round}|{plan.part}|{plan.local_steps}|{plan.learning_rate!r}|"
    question += "".join(f"{bound}|" for bound in bounds)
    question += f"{plan.privacy_plan_hash}|{state_hash}|{fingerprint}|{partner}|"
    question += f"{plan.attempt}|{session.hex()}" if plan.mode == "secagg" else "any attempt"
    return hashlib.sha256(question.encode()).hexdigest()


def event_of(noise_root: bytes, question: str) -> str:
    """The ledger's name of a question: keyed, since its hash alone would confirm a guess of all rows.

    Whoever has the partner's keys and rows can say by it, afterwards and here alone, which rows a round was paid for.
    """
    return hmac.digest(noise_root, f"ledger|{question}".encode(), "sha256").hex()
