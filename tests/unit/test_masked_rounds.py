"""Sums under masks over a Grid in memory: who is lost is named with its step, and costs nobody else anything."""

import copy
import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity
from numpy.typing import NDArray

from fedrec.aggregation.mean import UniformMean
from fedrec.aggregation.server_optimizer import ServerOptimizer
from fedrec.errors import FedrecError, QuorumError
from fedrec.files import sha256
from fedrec.model.adapter import AdapterSpec, AdapterState
from fedrec.privacy.integer_code import IntegerCode
from fedrec.privacy.plan import PartPlan, PrivacyPlan
from fedrec.registry.registry import Registry
from fedrec.secagg.messages import Shares
from fedrec.signing import SigningKey
from fedrec.wire import ADAPTER, BODY, SUM, RoundPlan, SumHeader
from fedrec_client.sums import SumDesk, SumRules
from fedrec_client.worker import Worker
from fedrec_server.rounds.masked import MaskedExchange, MaskedRounds
from fedrec_server.rounds.schedule import RoundSpec
from fedrec_server.rounds.session import RoundSession, run_rounds
from fedrec_sim.simulated_partner import SimulatedPartner

SPEC = AdapterSpec("llm", "h", "h", "h", {"head": {"w": (2, 2), "v": (1,)}})
INITIAL = AdapterState({name: np.zeros(shape, np.float32) for name, shape in SPEC.shapes.items()})
PLAN = PrivacyPlan("user", "secagg", 1e-5, (PartPlan("head", 1.0, 1.0, 20.0, 9),), quorum=2, dishonest=1)
RULES = SumRules(PLAN, {"head": 5}, 20)
PARTNERS = {14: "emil", 12: "carl", 10: "anna", 11: "bert", 13: "dora"}
NAMES = sorted(PARTNERS.values())
KEYS = {name: SigningKey(sha256(name.encode())[:32].encode()) for name in NAMES}
PUBLIC = {name: key.public for name, key in KEYS.items()}
STEPS = ("advertise", "share", "mask", "confirm", "reveal")
Change = Callable[[SumHeader, bytes], bytes | None]


class Known:
    """A source of integers that differ by partner, round and attempt."""

    def __init__(self, name: str) -> None:
        self.name = name

    def integers(self, plan: RoundPlan, state: AdapterState, code: IntegerCode, session: bytes) -> NDArray[np.int64]:
        assert state.hash == plan.parent_hash
        assert len(session) == 32
        return vector(self.name, plan.round, plan.attempt)


def vector(name: str, number: int, attempt: int) -> NDArray[np.int64]:
    return np.random.default_rng([number, attempt, *name.encode()]).integers(-5000, 5000, 5)


class MemoryGrid:
    """Partners behind a Grid, each as in a simulation; `changes` are of what one of them sends at a step.

    Args:
        lost: of a round, who is lost at which step.
    """

    def __init__(self, lost: Callable[[int], dict[str, Any]] = lambda number: {}) -> None:
        def no_worker() -> Worker:
            raise AssertionError("trains nothing")

        desks = {name: SumDesk(name, KEYS[name], lambda: PUBLIC, RULES, Known(name)) for name in NAMES}
        self.partners = {name: SimulatedPartner(name, no_worker, desk, lost) for name, desk in desks.items()}
        self.changes: dict[tuple[str, str], Change] = {}
        self.asked: list[tuple[str, int, int, str]] = []
        self._waiting: dict[str, Message] = {}
        self._numbers = itertools.count(1)
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1

    def get_node_ids(self) -> list[int]:
        return list(PARTNERS)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        numbers = []
        for message in copy.deepcopy(list(messages)):
            numbers.append(f"m{next(self._numbers)}")
            message.metadata.__dict__["_message_id"] = numbers[-1]
            self._waiting[numbers[-1]] = message
        return numbers

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        waiting = [self._waiting[number] for number in message_ids if number in self._waiting]
        found = [answer for message in waiting if (answer := self._answer(message)) is not None]
        for message in waiting:
            self._waiting.pop(message.metadata.message_id)
        return found

    def _answer(self, message: Message) -> Message | None:
        name, record = PARTNERS[message.metadata.dst_node_id], message.content[SUM]
        assert isinstance(record, ConfigRecord)
        values = dict(record)
        body, adapter = cast(bytes, values.pop(BODY)), cast(bytes | None, values.pop(ADAPTER, None))
        header = SumHeader.from_record(values)
        assert (adapter is not None) == (header.step == "mask")
        self.asked.append((name, header.round, header.attempt, header.step))
        try:
            state = None if adapter is None else AdapterState.from_bytes(adapter)
            answer, content = self.partners[name].add(header, body, state)
        except FedrecError as error:
            return Message(Error(1007, error.problem), reply_to=message)
        told = self.changes.get((name, header.step), lambda _, content: content)(header, content)
        if told is None:
            return None
        answer_values = {**answer.to_record(), "body_hash": sha256(told), BODY: told}
        return Message(RecordDict({SUM: ConfigRecord(answer_values)}), reply_to=message)


def make_plan(attempt: int = 1, state: AdapterState = INITIAL) -> RoundPlan:
    return RoundPlan("films/1", 1, attempt, "head", 1, 1, 0.5, state.hash, PLAN.hash, "secagg", 3, 0.02, 1)


def attempt_of(grid: MemoryGrid) -> tuple[MaskedExchange, list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []
    masked = MaskedRounds(PLAN, 20, PUBLIC, step_timeout_s=0.02)
    partners, rest = PARTNERS, events.append
    exchange = MaskedExchange(
        cast(Grid, grid), make_plan(), SPEC, masked, partners=partners, on_event=rest, wait=lambda _: None
    )
    return exchange, events


def mean_of(names: Iterable[str], number: int = 1, attempt: int = 1) -> NDArray[np.float32]:
    """Minus the learning rate times the mean of vectors, in gradient units."""
    vectors = [vector(name, number, attempt) for name in names]
    return np.asarray(-0.5 * RULES.code("head", 5).grain * np.sum(vectors, axis=0) / len(vectors)).astype(np.float32)


def flat(tensors: Any) -> NDArray[np.float32]:
    return np.concatenate([tensors[name].reshape(-1) for name in sorted(tensors)])


def check_survivors(grid: MemoryGrid, survivors: list[str], lost: dict[str, str]) -> None:
    """Of one attempt: the mean is exactly that of the survivors; whoever is lost is told of in these words."""
    exchange, events = attempt_of(grid)
    mean = exchange.collect(INITIAL, lambda: False)
    assert mean is not None
    assert exchange.partners == survivors
    assert np.array_equal(flat(mean.tensors), mean_of(survivors))
    assert exchange.reasons.keys() == lost.keys()
    for name, words in lost.items():
        assert words in exchange.reasons[name]
    refused = {event["partner"]: event["reason"] for event in events if event["event"] == "partner_refused"}
    assert refused == exchange.reasons
    assert exchange.spoilers == frozenset()


def test_the_mean_is_the_survivors_to_the_last_bit() -> None:
    grid = MemoryGrid()
    check_survivors(grid, NAMES, {})
    assert len(grid.asked) == len(set(grid.asked)) == 5 * len(NAMES)


@pytest.mark.parametrize("step", STEPS)
def test_a_partner_that_is_lost_is_named_with_its_step(step: str) -> None:
    grid = MemoryGrid(lambda number: {"bert": step})
    survivors = [name for name in NAMES if name != "bert" or step in ("confirm", "reveal")]
    check_survivors(grid, survivors, {"bert": f"step {step}: error 1007: lost, as the simulation wants it"})
    asked = [one[3] for one in grid.asked if one[0] == "bert"]
    assert asked == list(STEPS[: STEPS.index(step) + 1])  # and is not asked any more


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda header, content: None, "no answer before the deadline"),
        (lambda header, content: b"\xff\x00{", ""),
        (lambda header, content: b"", ""),
        (lambda header, content: content[:-1], ""),
        (lambda header, content: b"[" * 50_000, ""),
    ],
    ids=["silence", "garbage", "nothing", "cut", "nested"],
)
def test_garbage_costs_its_sender_alone_its_turn(step: str, change: Change, words: str) -> None:
    grid = MemoryGrid()
    grid.changes["dora", step] = change
    survivors = [name for name in NAMES if name != "dora" or step in ("confirm", "reveal")]
    check_survivors(grid, survivors, {"dora": f"step {step}: {words}"})


def test_bytes_that_flower_cannot_unpack_harm_nobody_else() -> None:
    class Exploding(MemoryGrid):
        def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
            numbers = list(message_ids)
            for message in (self._waiting[number] for number in numbers if number in self._waiting):
                record = cast(ConfigRecord, message.content[SUM])
                if message.metadata.dst_node_id == 12 and record["step"] == "share":
                    raise MemoryError("private: 4711")
            return super().pull_messages(numbers)

    grid = Exploding()
    words = "step share: answer cannot be fetched: MemoryError"
    check_survivors(grid, ["anna", "bert", "dora", "emil"], {"carl": words})


@pytest.mark.parametrize("step", STEPS)
def test_too_few_are_no_sum(step: str) -> None:
    exchange, _ = attempt_of(MemoryGrid(lambda number: {"anna": step, "carl": step}))
    with pytest.raises(QuorumError, match=r"3 .*, 4 are needed"):
        exchange.collect(INITIAL, lambda: False)
    assert exchange.reasons.keys() == {"anna", "carl"}
    assert not exchange.spoilers


def bad_seals(header: SumHeader, content: bytes) -> bytes:
    """Nobody can open what this partner sealed."""
    told = Shares.from_bytes(content)
    return told.model_copy(update={"sealed": {holder: bytes(80) for holder in told.sealed}}).to_bytes()


def session_of(folder: Path, rounds: int = 2, **changed: Any) -> tuple[RoundSession, list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []
    values: dict[str, Any] = {
        "run": "films/1",
        "mode": "secagg",
        "seed": 1,
        "schedule": (RoundSpec("head", 1, 1, 0.5, ServerOptimizer("sgd", 1.0, momentum=0.0)),) * rounds,
        "registry": Registry(folder),
        "initial_state": INITIAL,
        "spec": SPEC,
        "aggregator": UniformMean(),
        "partners": PARTNERS,
        "quorum": 3,
        "max_attempts": 2,
        "round_timeout_s": 0.02,
        "max_norm": 1e6,
        "privacy_plan_hash": PLAN.hash,
        "statement": {"mode": "secagg"},
        "on_event": events.append,
        "stop": lambda: False,
        "wait": lambda _: None,
        "masked": MaskedRounds(PLAN, 20, PUBLIC, step_timeout_s=0.02),
    }
    return RoundSession(**{**values, **changed}), events


def test_a_spoiler_is_named_and_not_asked_again_in_attempt_round_or_session(tmp_path: Path) -> None:
    grid = MemoryGrid()
    grid.changes["bert", "share"] = bad_seals
    session, events = session_of(tmp_path / "registry")
    result = run_rounds(cast(Grid, grid), session)
    others = [name for name in NAMES if name != "bert"]
    assert np.array_equal(flat(result.tensors), mean_of(others, 1, 2) + mean_of(others, 2, 1))
    assert session.spoilers == {"bert"}
    assert {(number, attempt) for name, number, attempt, _ in grid.asked if name == "bert"} == {(1, 1)}
    (failed,) = (event for event in events if event["event"] == "round_failed")
    assert failed["reasons"].keys() == {"bert"}
    assert "step reveal: shared out other secrets" in failed["reasons"]["bert"]
    following, _ = session_of(tmp_path / "other", rounds=1, spoilers=session.spoilers)
    grid = MemoryGrid()
    run_rounds(cast(Grid, grid), following)
    assert "bert" not in {name for name, *_ in grid.asked}


def test_who_reveals_nothing_is_lost_and_makes_nobody_a_spoiler(tmp_path: Path) -> None:
    """Where just enough reveal, all others would be excluded by one that withholds."""
    grid = MemoryGrid(lambda number: {"anna": "share"})
    grid.changes["carl", "reveal"] = lambda header, content: b'{"mask_keys":{},"seeds":{}}'
    session, events = session_of(tmp_path, rounds=1)
    with pytest.raises(QuorumError, match=r"carl: step reveal: shares of 4 partners are missing"):
        run_rounds(cast(Grid, grid), session)
    assert not session.spoilers
    assert [event["event"] for event in events].count("round_failed") == 2


def test_after_an_attempt_of_too_few_the_next_one_succeeds(tmp_path: Path) -> None:
    grid = MemoryGrid()

    def once(header: SumHeader, content: bytes) -> bytes | None:
        return None if header.attempt == 1 else content

    grid.changes = {("anna", "confirm"): once, ("emil", "confirm"): once}
    session, events = session_of(tmp_path, rounds=1)
    result = run_rounds(cast(Grid, grid), session)
    assert np.array_equal(flat(result.tensors), mean_of(NAMES, 1, 2))
    (failed,) = (event for event in events if event["event"] == "round_failed")
    assert failed["reasons"] == dict.fromkeys(("anna", "emil"), "step confirm: no answer before the deadline")
    assert not session.spoilers


def test_when_every_attempt_fails_all_who_were_lost_are_named(tmp_path: Path) -> None:
    session, _ = session_of(tmp_path, rounds=1)
    grid = MemoryGrid(lambda number: {"anna": "share", "carl": "mask"})
    with pytest.raises(QuorumError, match=r"round 1: 3 partners sent a masked vector, 4 are needed in attempt 2") as e:
        run_rounds(cast(Grid, grid), session)
    assert "anna: step share: error 1007" in str(e.value)
    assert "carl: step mask: error 1007" in str(e.value)


def test_spoilers_may_leave_too_few(tmp_path: Path) -> None:
    session, events = session_of(tmp_path, rounds=1, spoilers={"anna", "bert", "carl"})
    with pytest.raises(QuorumError):
        run_rounds(cast(Grid, MemoryGrid()), session)
    assert [event["event"] for event in events].count("round_failed") == 2
