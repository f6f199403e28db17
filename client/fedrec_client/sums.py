"""A partner's place in sums under masks: five steps of one attempt at a time, with secrets that never touch a disk."""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import PrivacyError, ProtocolError
from fedrec.model.adapter import AdapterState
from fedrec.privacy.integer_code import IntegerCode
from fedrec.privacy.plan import PrivacyPlan
from fedrec.secagg.messages import Confirmations, Inbox, Opening, Roster, SumTerms, Survivors
from fedrec.secagg.partner import PartnerSum
from fedrec.secagg.shamir import Entropy
from fedrec.signing import SigningKey
from fedrec.wire import RoundPlan, SumHeader
from fedrec_client.link import Trainer

Place = tuple[str, int, int]
MOST_ATTEMPTS = 64
SumAnswer = tuple[SumHeader, bytes]


class IntegerSource(Protocol):
    """Who computes what is added up."""

    def integers(self, plan: RoundPlan, state: AdapterState, code: IntegerCode, session: bytes) -> NDArray[np.int64]:
        """The round's noised sum, paid for, int64 `[numbers of the part]` in grains of the code.

        Args:
            session: hash of the secure sum that it is for; it keys the noise, so that no two sums share any.
        Raises: FedrecError: refused, with a reason that names no private value.
        """


class RoundWorker(Trainer, IntegerSource, Protocol):
    """Answers rounds of every mode."""


@dataclass(frozen=True)
class SumRules:
    """What this partner holds a sum against. Public.

    Attributes:
        privacy_plan: that it agreed to.
        numbers: of a vector, by part of the adapter.
        range_users: as in `IntegerCode.of`.
    """

    privacy_plan: PrivacyPlan
    numbers: Mapping[str, int]
    range_users: int

    def code(self, part: str, partners: int) -> IntegerCode:
        """As both sides derive it. Raises PrivacyError: no such part, or too many partners."""
        return IntegerCode.of(self.privacy_plan, part, partners, self.range_users)

    def refuse(self, plan: RoundPlan) -> None:
        """Raises PrivacyError: not what was agreed to; before anybody is sent a key."""
        agreed, problems = self.privacy_plan, list[str]()
        least = agreed.quorum + agreed.dishonest
        if plan.mode != "secagg" or plan.mode != agreed.mode or plan.privacy_plan_hash != agreed.hash:
            problems.append("asks for another privacy plan than was agreed to")
        if plan.quorum != least:
            problems.append(f"has another quorum than the {least} that were agreed")
        if plan.part not in self.numbers or all(part.part != plan.part for part in agreed.parts):
            problems.append(f"asks for part {plan.part!r}")
        if plan.local_steps != 1:
            # A second local step would depend on the first one's sum under the partner's own small noise share, so
            # that one user could move the whole group's second gradient by more than the clip norm.
            problems.append("asks for more than one step")
        if plan.attempt > MOST_ATTEMPTS:
            problems.append(f"is more than attempt {MOST_ATTEMPTS}: each is another draw of who hides behind whom")
        if problems:
            raise PrivacyError(f"round {plan.round} attempt {plan.attempt}: {'; '.join(problems)}")


def numbers_of(parts: Mapping[str, Mapping[str, tuple[int, ...]]]) -> dict[str, int]:
    """Length of a vector, by part."""
    return {part: sum(map(prod, shapes.values())) for part, shapes in parts.items()}


@dataclass
class SumDesk:
    """Answers the steps of sums for one partner. Another attempt, or a refusal, ends the sum before it.

    Attributes:
        partner: its name.
        identity: its long-lived key.
        peers: public keys that the owner accepts, by name, as they are at this moment.
        rules: what a sum is held against.
        source: computes the vector, once the shares are safe.
        entropy: of an attempt's secrets; a simulation has its own, so that it can be repeated.
    """

    partner: str
    identity: SigningKey
    peers: Callable[[], Mapping[str, bytes]] = field(repr=False)
    rules: SumRules
    source: IntegerSource = field(repr=False)
    entropy: Callable[[Place], Entropy] = field(default=lambda _: os.urandom, repr=False)
    _place: Place | None = None
    _sum: PartnerSum | None = field(default=None, repr=False)
    _code: IntegerCode | None = None

    def answer(self, header: SumHeader, body: bytes, state: AdapterState | None) -> SumAnswer:
        """Answer one step.

        Args:
            state: the round's adapter, in step `mask` alone.
        Raises: FedrecError: refused, in words that name no private value; the partner is out of this sum.
        Privacy: nothing is computed from rows before step `mask`, which pays first; what leaves there is uniform to
            whoever lacks the masks.
        """
        if header.sender != "coordinator" or header.body_hash != body_hash(body):
            raise ProtocolError("the body is not that of its header, or not the coordinator's")
        try:
            content = self._step(header, body, state)
        except BaseException:
            self.forget()
            raise
        return replace(header, sender=self.partner, body_hash=body_hash(content)), content

    def forget(self) -> None:
        """Leave the sum under way, if there is one."""
        self._place = self._sum = self._code = None

    def _step(self, header: SumHeader, body: bytes, state: AdapterState | None) -> bytes:
        place = (header.run, header.round, header.attempt)
        if header.step == "advertise":
            self._begin(place, Opening.from_bytes(body))
        if self._sum is None or self._place != place:
            raise ProtocolError("this partner has no part in that sum")
        match header.step:
            case "advertise":
                return self._sum.keys().to_bytes()
            case "share":
                return self._sum.shares(Roster.from_bytes(body)).to_bytes()
            case "mask":
                return self._masked(self._sum, Inbox.from_bytes(body), state)
            case "confirm":
                return self._sum.confirm(Survivors.from_bytes(body)).to_bytes()
            case "reveal":
                revealed = self._sum.reveal(Confirmations.from_bytes(body)).to_bytes()
                self.forget()
                return revealed

    def _begin(self, place: Place, opening: Opening) -> None:
        self.forget()
        plan = RoundPlan.from_record(opening.plan)
        if (plan.run, plan.round, plan.attempt) != place:
            raise ProtocolError("the plan is not of the round that its header names")
        self.rules.refuse(plan)
        code = self.rules.code(plan.part, len(opening.cohort))
        sizes = (self.rules.numbers[plan.part], code.bits, code.grain)
        terms = SumTerms(plan, opening.cohort, *sizes, self.rules.privacy_plan.dishonest)
        self._sum = PartnerSum(self.partner, self.identity, self.peers(), terms, self.entropy(place))
        self._place, self._code = place, code

    def _masked(self, open_sum: PartnerSum, inbox: Inbox, state: AdapterState | None) -> bytes:
        if state is None or self._code is None:
            raise ProtocolError("the adapter is missing")
        open_sum.check_inbox(inbox)  # before a row is read, and before it costs anything
        return open_sum.mask(self.source.integers(open_sum.terms.plan, state, self._code, open_sum.session))


def body_hash(body: bytes) -> str:
    """As a header names it."""
    return hashlib.sha256(body).hexdigest()


def opened_plan(body: bytes) -> RoundPlan:
    """The plan of a first step. Raises ProtocolError."""
    return RoundPlan.from_record(Opening.from_bytes(body).plan)
