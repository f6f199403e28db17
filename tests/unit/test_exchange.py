"""One attempt at a round, over a Grid in memory: what a partner sends can cost that partner's turn only."""

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import numpy as np
import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from fedrec.aggregation.mean import PartnerUpdate
from fedrec.model.adapter import AdapterDelta, AdapterSpec, AdapterState
from fedrec.wire import ADAPTER, ADAPTER_DELTA, ANSWER, QUESTION, RoundPlan, UpdateHeader
from fedrec_server.rounds import exchange
from fedrec_server.rounds.exchange import Exchange, wait_for_quorum

SPEC = AdapterSpec("llm", "h", "h", "h", {"head": {"w": (2, 2), "v": (1,)}, "prior": {"bias": (3,)}})
STATE = AdapterState({name: np.full(shape, 0.5, np.float32) for name, shape in SPEC.shapes.items()})
PARTNERS = {12: "carl", 10: "anna", 11: "bert"}
GOOD = {"w": np.array([[1, 2], [3, 4]], np.float32), "v": np.array([5], np.float32)}
Tensors = Mapping[str, np.ndarray]
Answer = Callable[[Message, str], Message | None]


def plan(deadline_s: float = 5.0) -> RoundPlan:
    return RoundPlan("test", 3, 1, "head", 1, 1, 0.5, STATE.hash, "none", "inspect", 2, deadline_s, 1)


def honest(message: Message, partner: str, tensors: Tensors = GOOD, /, **changed: Any) -> Message:
    """A partner's answer, if it can read the question."""
    asked = message.content[QUESTION]
    assert isinstance(asked, ConfigRecord)
    values = dict(asked)
    adapter = values.pop(ADAPTER)
    assert isinstance(adapter, bytes)
    read = RoundPlan.from_record(values)
    assert AdapterState.from_bytes(adapter).hash == read.parent_hash
    is_delta = all(tensor.dtype == np.float32 for tensor in tensors.values())
    delta_hash = AdapterDelta(tensors).hash if is_delta else "0" * 64
    header = UpdateHeader(read.run, read.round, read.attempt, partner, delta_hash, read.privacy_plan_hash)
    record = ConfigRecord({**header.to_record(), ADAPTER_DELTA: flat(tensors), **changed})
    return Message(RecordDict({ANSWER: record}), reply_to=message)


def flat(tensors: Tensors) -> bytes:
    return b"".join(tensors[name].tobytes() for name in sorted(tensors))


def sends(tensors: Tensors) -> Answer:
    return lambda message, partner: honest(message, partner, {**GOOD, **tensors})


def claims(**header: Any) -> Answer:
    return lambda message, partner: honest(message, partner, **header)


def says(reason: str) -> Answer:
    return lambda message, _: Message(Error(1007, reason), reply_to=message)


def with_bytes(data: bytes | str) -> Answer:
    """An answer whose numbers are anything."""
    return lambda message, partner: honest(message, partner, adapter_delta=data)


def without_numbers(message: Message, partner: str) -> Message:
    good = honest(message, partner)
    record = good.content[ANSWER]
    assert isinstance(record, ConfigRecord)
    del record[ADAPTER_DELTA]
    return good


def reversed_names(message: Message, partner: str) -> Message:
    """An answer whose numbers are joined in another order."""
    joined = b"".join(GOOD[name].tobytes() for name in sorted(GOOD, reverse=True))
    return honest(message, partner, adapter_delta=joined)


def with_extra_record(message: Message, partner: str) -> Message:
    good = honest(message, partner)
    good.content["history"] = ConfigRecord({"item": 1})
    return good


def from_another_node(message: Message, partner: str) -> Message:
    good = honest(message, partner)
    good.metadata.__dict__["_src_node_id"] = 10
    return good


def explode(message: Message, partner: str) -> Message:
    raise MemoryError("private: 4711")


class Kept:
    """Takes good answers in the order in which they are handed on."""

    def __init__(self) -> None:
        self.updates: list[PartnerUpdate] = []

    def add(self, update: PartnerUpdate) -> None:
        self.updates.append(update)

    def result(self) -> AdapterDelta:
        raise NotImplementedError


class MemoryGrid:
    """What the exchange needs of Flower's Grid. Each partner answers when it is asked for, in its own way."""

    def __init__(self, **answers: Answer) -> None:
        self.answers = answers
        self.unknown: set[int] = set()
        self.times = 1
        self.asked: dict[str, Message] = {}
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        numbers = []
        for message in copy.deepcopy(list(messages)):
            node = message.metadata.dst_node_id
            message.metadata.__dict__["_message_id"] = f"to {node}"
            self.asked[f"to {node}"] = message
            numbers.append("" if node in self.unknown else f"to {node}")
        return numbers

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        replies = []
        for number in message_ids:
            message = self.asked[number]
            partner = PARTNERS[message.metadata.dst_node_id]
            answer = self.answers.get(partner, honest)(message, partner)
            replies += [copy.deepcopy(answer)] * self.times if answer else []
        return replies


def run(
    grid: MemoryGrid, deadline_s: float = 5.0, kept: Kept | None = None, in_flight: int = 0
) -> tuple[Exchange, list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []
    attempt = Exchange(
        cast(Grid, grid),
        plan(deadline_s),
        SPEC,
        max_norm=100.0,
        partners=PARTNERS,
        running=kept or Kept(),
        on_event=events.append,
        in_flight=in_flight,
    )
    attempt.ask(STATE)
    assert attempt.collect(lambda: False)
    return attempt, events


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "_POLL_S", 0.005)


def test_good_answers_come_in_the_order_of_names() -> None:
    kept = Kept()
    attempt, events = run(MemoryGrid(), kept=kept)
    assert [update.partner for update in kept.updates] == attempt.partners == ["anna", "bert", "carl"]
    assert {update.adapter_delta.hash for update in kept.updates} == {AdapterDelta(GOOD).hash}
    assert attempt.reasons == {}
    assert [event["event"] for event in events] == ["partner_done"] * 3
    assert (events[0]["bytes_up"], events[0]["bytes_down"]) == (4 * 5, 4 * 8)


NOT_V = "adapter_delta is not 5 float32 numbers"
FAULTS: dict[str, tuple[Answer, str]] = {
    "error": (says("BudgetError: spent"), "error 1007: BudgetError: spent"),
    "terminal codes": (says("\x1b[2J\nround\t1 ok" + "x" * 999), "error 1007: [2J round 1 ok"),
    "unpackable": (explode, "answer cannot be fetched: MemoryError"),
    "nan": (sends({"v": np.array([np.nan], np.float32)}), "not finite"),
    "huge": (sends({"v": np.array([101], np.float32)}), "norm above 100"),
    "missing": (lambda m, p: honest(m, p, {"w": GOOD["w"]}), NOT_V),
    "too many": (sends({"bias": np.zeros(3, np.float32)}), NOT_V),
    "no numbers": (without_numbers, "adapter_delta is missing"),
    "text": (with_bytes("1 2 3 4 5"), "adapter_delta is missing, or not bytes"),
    "long signature": (claims(signature="x" * 101), "the signature is no text, or too long"),
    "shape": (sends({"w": np.zeros(3, np.float32)}), NOT_V),
    "order": (reversed_names, "delta_hash is not that of the tensors"),
    "float64": (sends({"v": np.zeros(1)}), NOT_V),
    "empty": (with_bytes(b""), NOT_V),
    "cut": (with_bytes(bytes(19)), NOT_V),
    "longer": (with_bytes(bytes(24)), NOT_V),
    "hash": (claims(delta_hash="0" * 64), "delta_hash"),
    "round": (claims(round=2), "round is not the round's"),
    "name": (claims(partner="anna"), "another partner's name"),
    "examples": (claims(n_examples=10**9), "1 unknown fields"),
    "list": (claims(round=[3]), "round: must be int, is list"),
    "node": (from_another_node, "another node answered"),
    "extra record": (with_extra_record, "not one record, an answer"),
    "no records": (lambda m, _: Message(RecordDict(), reply_to=m), "not one record, an answer"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_costs_its_sender_the_turn_and_nobody_else(fault: str) -> None:
    answer, words = FAULTS[fault]
    attempt, events = run(MemoryGrid(bert=answer))
    assert attempt.partners == ["anna", "carl"]
    (refused,) = (event for event in events if event["event"] == "partner_refused")
    assert (refused["partner"], refused["round"], refused["part"]) == ("bert", 3, "head")
    assert attempt.reasons == {"bert": refused["reason"]}
    assert words in refused["reason"]
    assert "4711" not in refused["reason"]
    assert refused["reason"].isprintable()
    assert len(refused["reason"]) <= 300


def test_silence_costs_the_turn_after_the_deadline() -> None:
    attempt, events = run(MemoryGrid(bert=lambda *_: None), deadline_s=0.1)
    assert attempt.reasons == {"bert": "no answer before the deadline"}
    assert len(attempt.partners) == 2
    assert events[-1]["seconds"] >= 0.1


def test_an_answer_after_the_deadline_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(message: Message, partner: str) -> Message:
        monkeypatch.setattr("time.monotonic", lambda: 1e9)
        return honest(message, partner)

    attempt, _ = run(MemoryGrid(bert=slow))
    assert attempt.reasons["bert"] == "answer after the deadline"
    assert "bert" not in attempt.partners


def test_an_answer_twice_counts_once() -> None:
    grid = MemoryGrid()
    grid.times = 2
    attempt, events = run(grid)
    assert len(attempt.partners) == 3
    assert attempt.reasons == {}
    reasons = [event["reason"] for event in events if event["event"] == "partner_refused"]
    assert reasons == ["answers what it was not asked, or twice"] * 3


def test_a_node_that_flower_does_not_know_loses_its_turn() -> None:
    grid = MemoryGrid()
    grid.unknown = {11}
    attempt, _ = run(grid)
    assert "not connected" in attempt.reasons["bert"]
    assert len(attempt.partners) == 2


@pytest.mark.parametrize("in_flight", [1, 2, 3, 0])
@pytest.mark.parametrize("slow", PARTNERS.values())
def test_answers_are_handed_on_in_the_order_of_names_and_few_are_open_at_once(in_flight: int, slow: str) -> None:
    """The slow partner answers at the third look; whoever is behind it waits its turn."""
    looks: list[str] = []
    kept, grid = Kept(), MemoryGrid()

    def answer(message: Message, partner: str) -> Message | None:
        most = len(grid.asked) - len(kept.updates)
        assert most <= (in_flight or 3)
        looks.append(partner)
        return None if partner == slow and looks.count(slow) < 3 else honest(message, partner)

    grid.answers = dict.fromkeys(PARTNERS.values(), answer)
    attempt, _ = run(grid, kept=kept, in_flight=in_flight)
    assert [update.partner for update in kept.updates] == attempt.partners == ["anna", "bert", "carl"]
    assert looks.count(slow) == 3
    assert attempt.bytes_up == 3 * 4 * 5


def test_whoever_is_not_asked_before_the_deadline_loses_its_turn() -> None:
    kept = Kept()
    attempt, _ = run(MemoryGrid(anna=lambda *_: None), deadline_s=0.1, kept=kept, in_flight=1)
    assert attempt.reasons == {
        "anna": "no answer before the deadline",
        "bert": "its turn to be asked came after the deadline",
        "carl": "its turn to be asked came after the deadline",
    }
    assert kept.updates == []


def test_a_lost_partner_holds_up_nobody() -> None:
    kept = Kept()
    grid = MemoryGrid(anna=says("busy"))
    grid.unknown = {11}
    attempt, _ = run(grid, kept=kept, in_flight=1)
    assert [update.partner for update in kept.updates] == attempt.partners == ["carl"]


def test_flower_drops_questions_and_late_answers_at_the_deadline() -> None:
    grid = MemoryGrid()
    run(grid, deadline_s=7.0)
    assert {(m.metadata.ttl, m.metadata.message_type) for m in grid.asked.values()} == {(7.0, "train")}


def test_all_answers_are_looked_for_at_once_and_alone_only_when_a_look_fails() -> None:
    looks: list[int] = []

    class Counting(MemoryGrid):
        def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
            wanted = list(message_ids)
            looks.append(len(wanted))
            return super().pull_messages(wanted)

    run(Counting())
    assert looks == [3]
    looks.clear()
    attempt, _ = run(Counting(bert=explode))
    assert looks == [3, 1, 1, 1]
    assert attempt.partners == ["anna", "carl"]


class Connecting:
    """One more node at every look."""

    seen = 0

    def get_node_ids(self) -> list[int]:
        self.seen += 1
        return [99, *sorted(PARTNERS)][: self.seen]


def test_the_coordinator_waits_for_a_quorum_but_not_for_ever_and_not_for_strangers() -> None:
    grid = Connecting()
    wait_for_quorum(cast(Grid, grid), plan(), PARTNERS, lambda: False)
    assert grid.seen == 3  # the stranger, and two partners
    wait_for_quorum(cast(Grid, Connecting()), plan(0.02), {1: "anna", 2: "bert"}, lambda: False)
    wait_for_quorum(cast(Grid, Connecting()), plan(), {1: "anna", 2: "bert"}, lambda: True)
