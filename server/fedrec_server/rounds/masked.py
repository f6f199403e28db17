"""One attempt at a round in `secagg` mode: five steps over Flower's Grid, and a sum of which no part was ever seen."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedrec.errors import PrivacyError, ProtocolError
from fedrec.files import sha256
from fedrec.model.adapter import AdapterDelta, AdapterSpec, AdapterState
from fedrec.privacy.integer_code import IntegerCode
from fedrec.privacy.plan import PrivacyPlan
from fedrec.secagg.coordinator import CoordinatorSum
from fedrec.secagg.graph import LEAST_PARTNERS
from fedrec.secagg.messages import Confirmation, Keys, Opening, Revealed, Shares, SumTerms
from fedrec.wire import ADAPTER, BODY, SIGNATURE, SUM, RoundPlan, SumHeader, SumStep
from fedrec_server.rounds.exchange import OnEvent, Signatures, one_line
from fedrec_server.rounds.records import numbers_of, read_sum_answer, split_numbers
from fedrec_server.rounds.schedule import RoundSpec

_POLL_S = 0.2
Take = Callable[[str, bytes], None]


@dataclass(frozen=True)
class MaskedRounds:
    """What sums under masks need besides what every round does.

    Attributes:
        privacy_plan: that partners agreed to; range and modulus follow from it.
        range_users: as in `IntegerCode.of`.
        identities: partners' public keys by name.
        step_timeout_s: of every step but the third, in which partners train and which has the round's deadline.
        audit: told each sum, in grains, with its terms and survivors; simulations compare it.
    """

    privacy_plan: PrivacyPlan
    range_users: int
    identities: Mapping[str, bytes] = field(repr=False)
    step_timeout_s: float = 30.0
    audit: Callable[[SumTerms, tuple[str, ...], NDArray[np.int64]], None] = field(default=lambda *_: None, repr=False)

    def problems(self, partners: int, schedule: Iterable[RoundSpec]) -> list[str]:
        """Why so many partners cannot add up the parts of a schedule; nothing if they can."""
        if partners < LEAST_PARTNERS:
            return [f"secure aggregation of {partners} partners hides nothing; have at least {LEAST_PARTNERS}"]
        found = []
        for part in dict.fromkeys(spec.part for spec in schedule):
            try:
                IntegerCode.of(self.privacy_plan, part, partners, self.range_users)
            except PrivacyError as error:
                found.append(error.problem)
        return found


class MaskedExchange:
    """Five questions to the cohort. Whoever misses one is lost for the attempt; within the threshold nothing else is.

    Args:
        grid: Flower's.
        plan: what is asked.
        spec: what the sum must fit.
        masked: see there.
        partners: the cohort, node id -> name.
        on_event: told about every partner.
        signatures: keys, where a network lies between; None in one process.
        wait: between two looks for answers, at least so many seconds, or until there is something to see.
    Raises: PrivacyError: so many partners' sums do not fit into 32 bits. ProtocolError: too few for the quorum.
    """

    def __init__(
        self,
        grid: Grid,
        plan: RoundPlan,
        spec: AdapterSpec,
        masked: MaskedRounds,
        *,
        partners: Mapping[int, str],
        on_event: OnEvent,
        signatures: Signatures | None = None,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._grid, self._plan, self._masked, self._on_event = grid, plan, masked, on_event
        self._signatures, self._wait = signatures, wait
        self._shapes, cohort = spec.part(plan.part), tuple(sorted(partners.values()))
        self._code = IntegerCode.of(masked.privacy_plan, plan.part, len(cohort), masked.range_users)
        self._terms = SumTerms(
            plan, cohort, numbers_of(self._shapes), self._code.bits, self._code.grain, masked.privacy_plan.dishonest
        )
        self._sum = CoordinatorSum(self._terms, masked.identities)
        self._nodes = {name: node for node, name in partners.items()}
        self._left = set(cohort)
        self._started = time.monotonic()
        self._stop: Callable[[], bool] = lambda: False
        self._adapter = b""
        self.partners: list[str] = []  # whose vectors are in the sum
        self.reasons: dict[str, str] = {}  # partner -> why it was lost, and where
        self.bytes_up, self.bytes_down = 0, 0

    def collect(self, state: AdapterState, stop: Callable[[], bool]) -> AdapterDelta | None:
        """Run the five steps; the mean of the survivors' differences, or None if a person asked to stop.

        Raises: QuorumError: too few were left at some step, or a secret cannot be opened.
        """
        self._stop, self._adapter = stop, state.to_bytes()
        for step in (self._advertise, self._share, self._mask, self._confirm, self._reveal):
            step()
            if stop():
                return None
        total = self._opened()
        self._masked.audit(self._terms, tuple(self.partners), total)
        return self._mean(total)

    def _advertise(self) -> None:
        opening = Opening(plan=self._plan.to_record(), cohort=self._terms.cohort).to_bytes()
        self._step("advertise", self._to_all_left(opening), self._take_keys)

    def _share(self) -> None:
        self._step("share", self._to_all_left(self._sum.close_keys().to_bytes()), self._take_shares)

    def _mask(self) -> None:
        """The long one, and the only one with the adapter."""
        inboxes = {name: self._sum.inbox(name).to_bytes() for name in self._sum.close_shares()}
        self._step("mask", inboxes, self._take_masked)

    def _confirm(self) -> None:
        self.partners = list(self._sum.close_masked())
        told = {name: self._sum.survivors_for(name).to_bytes() for name in self.partners}
        self._step("confirm", told, self._take_confirmation)

    def _reveal(self) -> None:
        confirmations = self._sum.close_confirmations().to_bytes()
        self._step("reveal", self._to_all_left(confirmations), self._take_revealed)

    def _to_all_left(self, body: bytes) -> dict[str, bytes]:
        return dict.fromkeys(sorted(self._left), body)

    def _opened(self) -> NDArray[np.int64]:
        try:
            return self._sum.total()
        finally:
            for name in self._sum.spoilers:
                self._lose(name, "reveal", "shared out other secrets than it committed to")

    @property
    def spoilers(self) -> frozenset[str]:
        """See `CoordinatorSum`."""
        return frozenset(self._sum.spoilers)

    def _mean(self, total: NDArray[np.int64]) -> AdapterDelta:
        """Minus the learning rate times the sum, in gradient units, over the number of survivors."""
        scale = -self._plan.learning_rate * self._code.grain / len(self.partners)
        return AdapterDelta(split_numbers((total * scale).astype(np.float32), self._shapes))

    def _take_keys(self, partner: str, body: bytes) -> None:
        self._sum.take_keys(partner, Keys.from_bytes(body))

    def _take_shares(self, partner: str, body: bytes) -> None:
        self._sum.take_shares(partner, Shares.from_bytes(body))

    def _take_masked(self, partner: str, body: bytes) -> None:
        self._sum.take_masked(partner, body)
        self._tell("partner_done", partner, bytes_up=len(body), bytes_down=0)

    def _take_confirmation(self, partner: str, body: bytes) -> None:
        self._sum.take_confirmation(partner, Confirmation.from_bytes(body))

    def _take_revealed(self, partner: str, body: bytes) -> None:
        self._sum.take_revealed(partner, Revealed.from_bytes(body))

    def _step(self, step: SumStep, bodies: Mapping[str, bytes], take: Take) -> None:
        """Ask everybody who is left, and take answers until all are there or the time is up."""
        timeout_s = self._plan.deadline_s if step == "mask" else self._masked.step_timeout_s
        waiting = self._ask(step, bodies, timeout_s)
        deadline = time.monotonic() + timeout_s
        while waiting and not self._stop():
            before = len(waiting)
            for reply in self._replies(step, waiting):
                name = waiting.pop(reply.metadata.reply_to_message_id, None)
                if name is not None:
                    self._hear(name, step, reply, take)
            if time.monotonic() > deadline:
                break
            if waiting and len(waiting) == before:
                self._wait(min(_POLL_S, timeout_s))
        for name in () if self._stop() else waiting.values():
            self._lose(name, step, "no answer before the deadline")

    def _ask(self, step: SumStep, bodies: Mapping[str, bytes], ttl: float) -> dict[str, str]:
        """Send a step; message id -> partner."""
        messages, names = [], list(bodies)
        for name in names:
            record = self._record(step, bodies[name])
            content, node = RecordDict({SUM: record}), self._nodes[name]
            messages.append(Message(content, node, MessageType.TRAIN, ttl=ttl, group_id=str(self._plan.round)))
            self.bytes_down += len(bodies[name]) + (len(self._adapter) if step == "mask" else 0)
        waiting = {}
        for name, number in zip_longest(names, self._grid.push_messages(messages)):
            if number:
                waiting[number] = name
            else:
                self._lose(name, step, "not connected: Flower did not take the question")
        return waiting

    def _record(self, step: SumStep, body: bytes) -> ConfigRecord:
        plan = self._plan
        header = SumHeader(plan.run, plan.round, plan.attempt, step, "coordinator", sha256(body))
        values: dict[str, Any] = {**header.to_record(), BODY: body}
        if self._signatures:
            values[SIGNATURE] = self._signatures.own.sign("secagg-ask", header.to_record())
        if step == "mask":
            values[ADAPTER] = self._adapter
        return ConfigRecord(values)

    def _replies(self, step: SumStep, waiting: dict[str, str]) -> list[Message]:
        """What has come; bytes of one sender that cannot be unpacked harm nobody else."""
        try:
            return list(self._grid.pull_messages(tuple(waiting)))
        except Exception:  # noqa: BLE001  # whose bytes they are shows when each is fetched alone
            found = list[Message]()
            for number in tuple(waiting):
                try:
                    found += self._grid.pull_messages([number])
                except Exception as error:  # noqa: BLE001  # whatever a sender's bytes provoke costs it its turn
                    self._lose(waiting.pop(number), step, f"answer cannot be fetched: {type(error).__name__}")
            return found

    def _hear(self, name: str, step: SumStep, reply: Message, take: Take) -> None:
        try:
            body = self._checked(name, step, reply)
            take(name, body)
        except ProtocolError as error:
            self._lose(name, step, error.problem)
            return
        self.bytes_up += len(body)

    def _checked(self, name: str, step: SumStep, reply: Message) -> bytes:
        if reply.has_error():
            raise ProtocolError(f"error {reply.error.code}: {reply.error.reason or 'no reason given'}")
        if reply.metadata.src_node_id != self._nodes[name]:
            raise ProtocolError("another node answered")
        header, body, signature = read_sum_answer(reply.content)
        plan = self._plan
        if header != SumHeader(plan.run, plan.round, plan.attempt, step, name, sha256(body)):
            raise ProtocolError("answers another question, or under another name")
        if self._signatures:
            self._signatures.check_sum(name, header, signature)
        return body

    def _lose(self, partner: str, step: SumStep, reason: str) -> None:
        self._left.discard(partner)
        self.reasons[partner] = one_line(f"step {step}: {reason}")
        self._tell("partner_refused", partner, reason=self.reasons[partner])

    def _tell(self, event: str, partner: str, **more: Any) -> None:
        plan = self._plan
        place = {"round": plan.round, "attempt": plan.attempt, "part": plan.part, "partner": partner}
        self._on_event({"event": event, **place, "seconds": time.monotonic() - self._started, **more})
