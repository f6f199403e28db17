"""The round loop over a Grid in memory: crashes cost nothing, and the bits stay the same."""

import copy
import itertools
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from fedrec.aggregation.mean import PublicWeights, UniformMean
from fedrec.aggregation.robust import RobustAggregator
from fedrec.aggregation.server_optimizer import OptimizerState, ServerOptimizer
from fedrec.defence import Defence
from fedrec.errors import ConfigError, ModelError, PrivacyError, QuorumError, RunError, StorageError
from fedrec.model.adapter import AdapterDelta, AdapterSpec, AdapterState
from fedrec.registry.registry import Registry
from fedrec.wire import ADAPTER, ADAPTER_DELTA, ANSWER, QUESTION, RoundPlan, UpdateHeader
from fedrec_server.app import make_server_app
from fedrec_server.rounds import exchange
from fedrec_server.rounds.schedule import RoundSpec
from fedrec_server.rounds.session import RoundSession, run_rounds

SHAPES: dict[str, dict[str, tuple[int, ...]]] = {"prior": {"bias": (3,)}, "head": {"w": (2, 2), "v": (1,)}}
SPEC = AdapterSpec("llm", "h", "h", "h", SHAPES)
INITIAL = AdapterState({name: np.full(shape, 0.1, np.float32) for name, shape in SPEC.shapes.items()})
PARTNERS = {12: "carl", 10: "anna", 11: "bert"}
AVERAGE = ServerOptimizer("sgd", 1.0, momentum=0.0)
SCHEDULE = (
    RoundSpec("prior", 1, 1, 1.0, AVERAGE),
    RoundSpec("head", 1, 1, 0.5, ServerOptimizer("adam", 0.1)),
    RoundSpec("head", 1, 1, 0.5, ServerOptimizer("adam", 0.05)),
    RoundSpec("prior", 1, 1, 0.5, ServerOptimizer("sgd", 0.3)),
)


class Killed(BaseException):
    """As if the process had ended."""


def honest_delta(plan: RoundPlan, state: AdapterState, partner: str) -> AdapterDelta:
    """Depends on all that an answer may depend on, but not on the attempt."""
    rng = np.random.default_rng([plan.round, *partner.encode()])
    rate = np.float32(plan.learning_rate)
    goals = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES[plan.part].items()}
    return AdapterDelta({name: np.asarray(rate * (g - state.tensors[name])) for name, g in goals.items()})


class MemoryGrid:
    """What the loop needs of Flower's Grid, and honest partners behind it.

    Args:
        fault: reason for which a partner refuses an attempt, or an empty one.
    """

    def __init__(self, fault: Callable[[RoundPlan, str], str] = lambda plan, partner: "") -> None:
        self.fault = fault
        self.plans: list[RoundPlan] = []
        self._asked: dict[str, Message] = {}
        self._numbers = itertools.count(1)
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1

    def get_node_ids(self) -> list[int]:
        return list(PARTNERS)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        numbers = []
        for message in copy.deepcopy(list(messages)):
            numbers.append(f"m{next(self._numbers)}")
            message.metadata.__dict__["_message_id"] = numbers[-1]
            self._asked[numbers[-1]] = message
        return numbers

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        return [copy.deepcopy(self._answer(self._asked.pop(number))) for number in message_ids]

    def _answer(self, message: Message) -> Message:
        partner = PARTNERS[message.metadata.dst_node_id]
        asked = message.content[QUESTION]
        assert isinstance(asked, ConfigRecord)
        values = dict(asked)
        adapter = values.pop(ADAPTER)
        assert isinstance(adapter, bytes)
        plan = RoundPlan.from_record(values)
        self.plans.append(plan)
        if reason := self.fault(plan, partner):
            return Message(Error(1007, reason), reply_to=message)
        state = AdapterState.from_bytes(adapter)
        assert state.hash == plan.parent_hash
        adapter_delta = honest_delta(plan, state, partner)
        header = UpdateHeader(plan.run, plan.round, plan.attempt, partner, adapter_delta.hash, "none")
        numbers = b"".join(tensor.tobytes() for tensor in adapter_delta.tensors.values())
        record = ConfigRecord({**header.to_record(), ADAPTER_DELTA: numbers})
        return Message(RecordDict({ANSWER: record}), reply_to=message)


def run(grid: MemoryGrid, session: RoundSession) -> AdapterState:
    return run_rounds(cast(Grid, grid), session)


def make_session(folder: Path, **changed: Any) -> RoundSession:
    events: list[dict[str, Any]] = []
    session = RoundSession(
        run="test",
        mode="inspect",
        seed=1,
        schedule=SCHEDULE,
        registry=Registry(folder),
        initial_state=INITIAL,
        spec=SPEC,
        aggregator=UniformMean(),
        partners=PARTNERS,
        quorum=2,
        max_attempts=2,
        round_timeout_s=5.0,
        max_norm=100.0,
        privacy_plan_hash="none",
        statement={"mode": "inspect"},
        on_event=events.append,
        stop=lambda: False,
    )
    return replace(session, **changed)


def events_of(session: RoundSession, kind: str) -> list[dict[str, Any]]:
    found = session.on_event.__self__  # type: ignore[attr-defined]  # the list of make_session
    return [event for event in found if event["event"] == kind]


@pytest.fixture
def session(tmp_path: Path) -> RoundSession:
    return make_session(tmp_path / "registry")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "_POLL_S", 0.005)


def oracle(present: Callable[[int], list[str]]) -> AdapterState:
    """The same rounds, slow and obvious, with those partners that are present in each."""
    state = INITIAL
    moments: dict[str, OptimizerState] = {"prior": {}, "head": {}}
    for number, spec in enumerate(SCHEDULE, start=1):
        plan = RoundPlan("test", number, 1, spec.part, 1, 1, spec.learning_rate, "-", "-", "none", 1, 1.0, 1)
        deltas = [honest_delta(plan, state, partner).tensors for partner in present(number)]
        mean = {k: np.asarray(np.mean([d[k] for d in deltas], axis=0, dtype=float)) for k in deltas[0]}
        delta = AdapterDelta({name: tensor.astype(np.float32) for name, tensor in mean.items()})
        moved, moments[spec.part] = spec.optimizer.step(delta, moments[spec.part])
        state = state.plus(moved)
    return state


@pytest.mark.parametrize("faulty", [0, 1, 2, 4])
def test_a_round_moves_the_adapter_by_the_mean_of_the_good_answers(session: RoundSession, faulty: int) -> None:
    fault = MemoryGrid(lambda plan, partner: "busy" if (plan.round, partner) == (faulty, "bert") else "")
    state = run(fault, session)
    expected = oracle(lambda number: ["anna", "carl"] if number == faulty else ["carl", "bert", "anna"])
    for name, tensor in expected.tensors.items():
        np.testing.assert_allclose(state.tensors[name], tensor, rtol=1e-6)
    assert session.registry.verify() == 5
    assert session.registry.load_head().hash == state.hash
    assert session.registry.load(0).hash == INITIAL.hash
    assert set(session.registry.load_server_state(4)) >= {"head/step", "prior/step", "head/first.w"}


def test_the_app_leaves_its_result_in_the_session(session: RoundSession) -> None:
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
    make_server_app(session)(cast(Grid, MemoryGrid()), context)
    assert session.result is not None
    assert session.result.hash == session.registry.load_head().hash


def test_events_tell_what_a_round_took(session: RoundSession) -> None:
    run(MemoryGrid(), session)
    assert [e["round"] for e in events_of(session, "round_started")] == [1, 2, 3, 4]
    committed = events_of(session, "round_committed")
    assert [e["part"] for e in committed] == ["prior", "head", "head", "prior"]
    assert committed[1]["partners"] == ["anna", "bert", "carl"]
    assert (committed[1]["bytes_up"], committed[1]["bytes_down"]) == (3 * 4 * 5, 3 * 4 * 8)
    assert len(events_of(session, "partner_done")) == 12
    assert all(event["seconds"] >= 0 for event in committed)


def test_a_round_is_committed_before_the_next_is_asked(session: RoundSession) -> None:
    def fault(plan: RoundPlan, partner: str) -> str:
        return "" if session.registry.head_round() == plan.round - 1 else "asked too early"

    run(MemoryGrid(fault), session)
    assert events_of(session, "partner_refused") == []


def test_the_order_of_partners_does_not_matter(tmp_path: Path) -> None:
    orders = itertools.permutations(PARTNERS.items())
    ends = [
        run(MemoryGrid(), make_session(tmp_path / str(number), partners=dict(order)))
        for number, order in enumerate(orders)
    ]
    assert len({end.hash for end in ends}) == 1


def test_too_few_answers_are_asked_for_again(session: RoundSession) -> None:
    def fault(plan: RoundPlan, partner: str) -> str:
        return "busy" if (plan.round, plan.attempt) == (2, 1) and partner != "anna" else ""

    state = run(MemoryGrid(fault), session)
    (failed,) = events_of(session, "round_failed")
    assert (failed["round"], failed["attempt"], failed["good"]) == (2, 1, 1)
    assert failed["reasons"] == {"bert": "error 1007: busy", "carl": "error 1007: busy"}
    assert [session.registry.version(n).attempt for n in range(1, 5)] == [1, 2, 1, 1]
    assert state.hash == run(MemoryGrid(), make_session(session.registry.folder / "other")).hash


def test_no_quorum_ends_the_run_with_reasons_and_keeps_what_is_committed(session: RoundSession) -> None:
    grid = MemoryGrid(lambda plan, partner: "spent" if plan.round == 3 and partner != "carl" else "")
    with pytest.raises(QuorumError) as caught:
        run(grid, session)
    assert "round 3: 1 good answers in attempt 2, the quorum is 2" in str(caught.value)
    assert "- anna: error 1007: spent\n  - bert: error 1007: spent" in str(caught.value)
    assert session.registry.verify() == 3
    assert {plan.attempt for plan in grid.plans if plan.round == 3} == {1, 2}


@pytest.mark.parametrize("number", [1, 2, 4])
@pytest.mark.parametrize("where", ["answer", "place_folder", "replace_file", "event"])
def test_a_killed_run_goes_on_and_ends_in_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, where: str
) -> None:
    def kill(*_: object) -> None:
        raise Killed

    def fault(plan: RoundPlan, partner: str) -> str:
        if plan.round == number and partner == "bert":
            if where == "answer":
                kill()
            elif where != "event":
                patched.setattr(f"fedrec.registry.registry.{where}", kill)
        return ""

    def on_event(event: dict[str, Any]) -> None:
        if where == "event" and (event["event"], event["round"]) == ("round_committed", number):
            kill()

    with monkeypatch.context() as patched, pytest.raises(Killed):
        run(MemoryGrid(fault), make_session(tmp_path / "killed", on_event=on_event))
    grid, resumed, whole = MemoryGrid(), make_session(tmp_path / "killed"), make_session(tmp_path / "whole")
    assert run(grid, resumed).hash == run(MemoryGrid(), whole).hash
    first = number + 1 if where == "event" else number
    assert sorted({plan.round for plan in grid.plans}) == list(range(first, 5))
    saved = [s.registry.load_server_state(4) for s in (resumed, whole)]
    one, other = ({key: array.tobytes() for key, array in state.items()} for state in saved)
    assert one == other
    assert resumed.registry.verify() == 5


def test_stop_drops_the_round_under_way(session: RoundSession) -> None:
    grid = MemoryGrid()
    stopped = replace(session, stop=lambda: [plan.round for plan in grid.plans].count(3) >= 2)
    state = run(grid, stopped)
    assert len(grid.plans) == 9
    assert session.registry.head_round() == 2
    assert state.hash == session.registry.load(2).hash
    (event,) = events_of(session, "stopped")
    assert (event["round"], event["part"]) == (3, "head")


def test_a_full_disk_ends_the_run_with_everything_before_it_in_place(
    session: RoundSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def fault(plan: RoundPlan, partner: str) -> str:
        if plan.round == 3:
            monkeypatch.setattr("fedrec.registry.registry.place_folder", full)
        return ""

    with pytest.raises(StorageError, match="no space left"):
        run(MemoryGrid(fault), session)
    assert session.registry.verify() == 3


def test_a_registry_of_another_model_or_a_damaged_one_is_refused(session: RoundSession) -> None:
    run(MemoryGrid(), session)
    other = replace(SPEC, parts={**SHAPES, "prior": {"bias": (4,)}})
    grown = AdapterState({**INITIAL.tensors, "bias": np.zeros(4, np.float32)})
    with pytest.raises(ModelError):
        run(MemoryGrid(), replace(session, spec=other, initial_state=grown))
    (session.registry.folder / "versions/round-0004/server_state.safetensors").write_bytes(b"")
    with pytest.raises(RunError, match="server_state"):
        run(MemoryGrid(), session)


def test_secagg_mode_has_no_weights(tmp_path: Path) -> None:
    weights = PublicWeights({"anna": 1.0, "bert": 1.0, "carl": 3.0})
    with pytest.raises(PrivacyError, match="uniform mean only"):
        make_session(tmp_path, mode="secagg", aggregator=weights)
    make_session(tmp_path, mode="inspect", aggregator=weights)
    make_session(tmp_path, mode="secagg")


MEDIAN = RobustAggregator(Defence(aggregator="median", hostile=1))


def test_a_quorum_that_the_hostile_could_outvote_is_refused_before_anybody_is_asked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="quorum 2, the aggregator needs 3 answers"):
        make_session(tmp_path, aggregator=MEDIAN, quorum=2)
    with pytest.raises(PrivacyError, match="uniform mean only"):
        make_session(tmp_path, aggregator=MEDIAN, quorum=3, mode="secagg")


def test_with_fewer_answers_than_it_needs_an_attempt_fails_and_the_next_counts(tmp_path: Path) -> None:
    session = make_session(tmp_path, aggregator=MEDIAN, quorum=3)
    run(MemoryGrid(lambda plan, partner: "busy" if (plan.attempt, partner) == (1, "bert") else ""), session)
    assert [(e["round"], e["good"]) for e in events_of(session, "round_failed")] == [(n, 2) for n in (1, 2, 3, 4)]
    assert {e["attempt"] for e in events_of(session, "round_committed")} == {2}


def test_one_partner_that_sends_anything_does_not_decide_where_a_median_goes(tmp_path: Path) -> None:
    plan = RoundPlan("test", 1, 1, "prior", 1, 1, 1.0, "-", "-", "none", 1, 1.0, 1)
    answers = [honest_delta(plan, INITIAL, name).tensors["bias"] for name in PARTNERS.values()]
    session = make_session(tmp_path, aggregator=MEDIAN, quorum=3, schedule=SCHEDULE[:1])
    moved = run(MemoryGrid(), session).tensors["bias"] - INITIAL.tensors["bias"]
    np.testing.assert_allclose(moved, np.median(answers, axis=0), rtol=1e-6)


def test_settings_that_do_not_fit_are_named_together(tmp_path: Path) -> None:
    wrong = {"partners": {1: "anna", 2: "anna"}, "quorum": 3, "max_attempts": 0}
    with pytest.raises(ConfigError) as caught:
        make_session(tmp_path, schedule=(RoundSpec("lora", 1, 1, 1.0, AVERAGE),), **wrong)
    for words in ("unknown part 'lora'", "same partner's name", "quorum 3 of 2", "max_attempts"):
        assert words in str(caught.value)
