"""One attempt at a round: ask every partner, add up what is good, name who lost its turn and why."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from flwr.app import ConfigRecord, Message
from flwr.serverapp import Grid

from fedrec.aggregation.mean import PartnerUpdate, Running, check_reply
from fedrec.errors import ProtocolError
from fedrec.model.adapter import AdapterDelta, AdapterSpec, AdapterState
from fedrec.signing import SigningKey, verify
from fedrec.wire import RoundPlan, SumHeader, UpdateHeader
from fedrec_server.rounds.records import question, questions, read_answer

# Between two looks for answers.
_POLL_S = 0.2
_MAX_REASON = 300
OnEvent = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Signatures:
    """What is signed on a network, and by whom.

    Attributes:
        own: the coordinator's key.
        partners: each partner's public key, by name.
    """

    own: SigningKey
    partners: Mapping[str, bytes] = field(repr=False)

    def sign(self, plan: RoundPlan) -> str:
        """The coordinator's, over a plan."""
        return self.own.sign("round-plan", plan.to_record())

    def check(self, partner: str, header: UpdateHeader, signature: str) -> None:
        """Raises ProtocolError unless the partner signed the header."""
        if partner not in self.partners:
            raise ProtocolError("has no key here")
        verify(self.partners[partner], "answer", header.to_record(), signature)

    def check_sum(self, partner: str, header: SumHeader, signature: str) -> None:
        """The same of a step of a sum under masks."""
        if partner not in self.partners:
            raise ProtocolError("has no key here")
        verify(self.partners[partner], "secagg-answer", header.to_record(), signature)


class Exchange:
    """Questions and answers of one attempt. An answer that is no good costs its sender the turn, nobody else.

    Good answers are handed to `running` in the order of the partners' names, whatever order they come in, so that
    the sum has the same bits and nothing is held but what overtook a slower partner.

    Args:
        grid: Flower's.
        plan: what is asked.
        spec: what an answer must fit.
        max_norm: largest L2 norm of an adapter_delta.
        partners: the cohort, node id -> name.
        running: takes the good answers.
        on_event: told about every answer.
        in_flight: questions that are open, or answered ahead of a slower partner, at once; bounds memory. 0: all.
        signatures: keys, where a network lies between; None in one process.
        wait: between two looks for answers, at least so many seconds, or until there is something to see.
    """

    def __init__(
        self,
        grid: Grid,
        plan: RoundPlan,
        spec: AdapterSpec,
        *,
        max_norm: float,
        partners: Mapping[int, str],
        running: Running,
        on_event: OnEvent,
        in_flight: int = 0,
        signatures: Signatures | None = None,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._wait = wait
        self._signatures = signatures
        self._grid, self._plan, self._spec, self._max_norm = grid, plan, spec, max_norm
        self._partners, self._running, self._on_event = partners, running, on_event
        self._order = sorted(partners, key=lambda node: partners[node])
        self._names = frozenset(partners.values())
        self._asked, self._folded = 0, 0  # places in the order
        self._most = in_flight or len(partners)
        self._question = ConfigRecord()
        self._waiting: dict[str, int] = {}  # message id -> node
        self._overtook: dict[str, AdapterDelta] = {}  # good, but somebody before it in the order is still open
        self._good: dict[str, int] = {}  # partner -> bytes of its answer
        self._started = time.monotonic()
        self._bytes_down = 0
        self.reasons: dict[str, str] = {}  # partner -> why its turn is lost

    @property
    def partners(self) -> list[str]:
        """Who gave a good answer, in the order of the names."""
        return sorted(self._good)

    @property
    def bytes_up(self) -> int:
        """Size of all good answers' tensors."""
        return sum(self._good.values())

    def ask(self, state: AdapterState) -> None:
        """Send the round to the cohort, or as many questions as may be open at once; `collect` sends the others."""
        self._bytes_down = state.n_bytes
        self._question = question(self._plan, state, self._signatures.sign(self._plan) if self._signatures else "")
        self._ask_more()

    def collect(self, stop: Callable[[], bool]) -> bool:
        """Take answers until all are there or the deadline has passed. False if a person asked to stop."""
        while self._waiting and not self._is_late():
            before = self._folded, len(self._waiting)
            for reply in self._replies():
                if stop():
                    return False
                self._take(reply)
            if stop():
                return False
            self._ask_more()
            if (self._folded, len(self._waiting)) == before:
                self._wait(min(_POLL_S, self._plan.deadline_s))
        for node in self._waiting.values():
            self._lose(self._partners[node], "no answer before the deadline")
        for node in self._order[self._asked :]:
            self._lose(self._partners[node], "its turn to be asked came after the deadline")
        self._waiting.clear()
        self._asked = len(self._order)
        self._fold()
        return True

    def _ask_more(self) -> None:
        """Fill up with questions what is not open any more."""
        self._fold()
        while nodes := self._order[self._asked : self._folded + self._most]:
            numbers = self._grid.push_messages(questions(self._plan, self._question, nodes))
            self._asked += len(nodes)
            for node, number in zip_longest(nodes, numbers):
                if number:
                    self._waiting[number] = node
                else:
                    self._lose(self._partners[node], "not connected: Flower did not take the question")
            self._fold()

    def _fold(self) -> None:
        """Hand on what stands next in the order."""
        for node in self._order[self._folded : self._asked]:
            partner = self._partners[node]
            if partner in self._good:
                self._running.add(PartnerUpdate(partner, self._overtook.pop(partner)))
            elif partner not in self.reasons:
                return
            self._folded += 1

    def _is_late(self) -> bool:
        return self._seconds() > self._plan.deadline_s

    def _seconds(self) -> float:
        return time.monotonic() - self._started

    def _replies(self) -> Iterator[Message]:
        """What has come. All are looked for at once, since a look costs as much for one as for a thousand."""
        try:
            yield from self._grid.pull_messages(tuple(self._waiting))
        except Exception:  # noqa: BLE001  # somebody's bytes cannot be unpacked: whose, shows below
            for number in tuple(self._waiting):
                yield from self._reply(number)

    def _reply(self, number: str) -> list[Message]:
        """One partner's answer, alone, so that bytes Flower cannot unpack harm nobody else."""
        try:
            return list(self._grid.pull_messages([number]))
        except Exception as error:  # noqa: BLE001  # whatever a sender's bytes provoke costs it its turn
            partner = self._partners[self._waiting.pop(number)]
            self._lose(partner, f"answer cannot be fetched: {type(error).__name__}")
            return []

    def _take(self, reply: Message) -> None:
        node = self._waiting.pop(reply.metadata.reply_to_message_id, None)
        if node is None:
            sender = self._partners.get(reply.metadata.src_node_id, f"node {reply.metadata.src_node_id}")
            self._refuse(sender, "answers what it was not asked, or twice")
            return
        partner = self._partners[node]
        try:
            if self._is_late():
                raise ProtocolError("answer after the deadline")
            adapter_delta = self._checked(reply, node)
        except ProtocolError as error:
            self._lose(partner, error.problem)
            return
        self._good[partner], self._overtook[partner] = adapter_delta.n_bytes, adapter_delta
        self._tell("partner_done", partner, bytes_up=adapter_delta.n_bytes, bytes_down=self._bytes_down)

    def _checked(self, reply: Message, node: int) -> AdapterDelta:
        if reply.has_error():
            raise ProtocolError(f"error {reply.error.code}: {reply.error.reason or 'no reason given'}")
        if reply.metadata.src_node_id != node:
            raise ProtocolError("another node answered")
        header, adapter_delta, signature = read_answer(reply.content, self._spec.part(self._plan.part))
        if self._signatures:
            self._signatures.check(self._partners[node], header, signature)
        check_reply(
            header,
            adapter_delta,
            sender=self._partners[node],
            plan=self._plan,
            spec=self._spec,
            max_norm=self._max_norm,
            cohort=self._names,
            answered=self._good,
        )
        return adapter_delta

    def _lose(self, partner: str, reason: str) -> None:
        self.reasons[partner] = one_line(reason)
        self._refuse(partner, reason)

    def _refuse(self, partner: str, reason: str) -> None:
        self._tell("partner_refused", partner, reason=one_line(reason))

    def _tell(self, event: str, partner: str, **more: Any) -> None:
        plan = self._plan
        place = {"round": plan.round, "attempt": plan.attempt, "part": plan.part, "partner": partner}
        self._on_event({"event": event, **place, "seconds": self._seconds(), **more})


def wait_for_quorum(
    grid: Grid, plan: RoundPlan, nodes: Mapping[int, str], stop: Callable[[], bool], least: int = 0
) -> None:
    """Give partners until the round's deadline to connect; after a restart Flower's nodes need some 20 s."""
    deadline = time.monotonic() + plan.deadline_s
    while len(nodes.keys() & set(grid.get_node_ids())) < (least or plan.quorum) and not stop():
        if time.monotonic() > deadline:
            return
        time.sleep(_POLL_S)


def one_line(reason: str) -> str:
    """A sender's words, fit for a terminal and a log."""
    words = " ".join(reason.split())
    return "".join(c for c in words if c.isprintable())[:_MAX_REASON]
