"""A node's place in sums under masks: every step once and in order, nothing after a restart, peers by hand alone."""

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedrec.config import ModelConfig, ShapeConfig
from fedrec.errors import BudgetError, FedrecError, PrivacyError, ProtocolError
from fedrec.files import sha256
from fedrec.model.adapter import AdapterState
from fedrec.privacy.integer_code import IntegerCode
from fedrec.privacy.plan import PartPlan, PrivacyPlan
from fedrec.secagg.messages import Confirmation, Keys, Opening, Revealed, Shares
from fedrec.signing import SigningKey, verify
from fedrec.terms import FORMAT, FederationTerms, ModelTerms, WorkTerms
from fedrec.wire import RoundPlan, SumHeader
from fedrec_client.agreement import policy_problems
from fedrec_client.desk import NodeDesk, SeenRounds
from fedrec_client.settings import PolicySettings
from fedrec_client.sums import SumDesk, SumRules

COORDINATOR, ME = SigningKey(bytes(32)), "p001"
STATE = AdapterState({"w": np.zeros(4, np.float32)})
PLAN = PrivacyPlan("user", "secagg", 1e-5, (PartPlan("head", 1.0, 1.0, 20.0, 3),), quorum=2, dishonest=1)
HASH = "0" * 64
TERMS = FederationTerms(
    format=FORMAT,
    name="films",
    mode="secagg",
    privacy_plan=PLAN.to_dict(),
    model=ModelTerms(
        config=ModelConfig(), backbone_hash=HASH, catalog_hash=HASH, feature_hash=HASH, shape=ShapeConfig()
    ),
    work=WorkTerms(max_history=50, weight_decay=0.0, batch_users=8),
    parts={"head": {"w": (4,)}},
    initial_hash=STATE.hash,
    seed=1,
    range_users=20,
)
RULES = SumRules(PLAN, {"head": 4}, 20)
KINDS: dict[str, Any] = {"advertise": Keys, "share": Shares, "confirm": Confirmation, "reveal": Revealed}


class Counting:
    """Who computes integers, and counts; trains nothing."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked, self._error = list[RoundPlan](), error
        self.sessions = list[bytes]()
        self.vector = np.array([5, -6, 7, 0])

    def integers(self, plan: RoundPlan, state: AdapterState, code: IntegerCode, session: bytes) -> NDArray[np.int64]:
        self.asked.append(plan)
        self.sessions.append(session)
        if self._error:
            raise self._error
        return self.vector

    def train(self, plan: RoundPlan, state: AdapterState) -> Any:
        raise AssertionError("trained without masks")


class Place:
    """A node among honest others."""

    def __init__(self, make_sum: Any, folder: Path, n: int = 4, **plan: Any) -> None:
        values = {"privacy_plan_hash": PLAN.hash, "parent_hash": STATE.hash, "quorum": 3, **plan}
        code = RULES.code("head", n)
        self.world = make_sum(n, numbers=4, bits=code.bits, grain=code.grain, dishonest=PLAN.dishonest, **values)
        self.source, self.folder = Counting(), folder
        self.restart()

    def restart(self, **changed: Any) -> NodeDesk:
        """The node anew: what is on its disk stays."""
        world = self.world
        peers = changed.pop("peers", world.public)
        sums = SumDesk(ME, world.keys[ME], lambda: peers, RULES, self.source)
        values: dict[str, Any] = {"partner": ME, "coordinator": lambda: COORDINATOR.public, "key": world.keys[ME]}
        values |= {"terms": TERMS, "policy": PolicySettings(modes=("secagg",)), "worker": self.source, "sums": sums}
        values |= {"seen": SeenRounds(self.folder / "rounds.json"), "is_paused": lambda: False}
        values |= {"now": lambda: datetime(2026, 1, 1, 12, 0)}
        self.desk = NodeDesk(**{**values, **changed})
        return self.desk

    def body(self, step: str) -> bytes:
        if step == "advertise":
            return Opening(plan=self.world.plan.to_record(), cohort=self.world.names).to_bytes()
        told: bytes = self.world.for_one(step, ME).to_bytes()
        return told

    def header(self, step: str, body: bytes) -> SumHeader:
        plan = self.world.plan
        return SumHeader(plan.run, plan.round, plan.attempt, step, "coordinator", sha256(body))  # type: ignore[arg-type]

    def ask(self, step: str, *, body: bytes | None = None, key: SigningKey = COORDINATOR, **changed: Any) -> Any:
        """The node's answer, as the coordinator reads it."""
        body = self.body(step) if body is None else body
        state = changed.pop("state", STATE if step == "mask" else None)
        header = replace(self.header(step, body), **changed)
        answer, content, signature = self.desk.add(header, body, state, key.sign("secagg-ask", header.to_record()))
        verify(self.world.keys[ME].public, "secagg-answer", answer.to_record(), signature)
        assert answer == replace(header, sender=ME, body_hash=sha256(content))
        return content if step == "mask" else KINDS[step].from_bytes(content)

    def step(self, step: str) -> None:
        """This node and all others."""
        for name in self.world.names:
            self.world.take(step, name, self.ask(step) if name == ME else self.world.ask(step, name))
        self.world.close(step)

    def until(self, last: str) -> "Place":
        for step in self.world.STEPS[: self.world.STEPS.index(last)]:
            self.step(step)
        return self


@pytest.fixture
def place(make_sum: Any, tmp_path: Path) -> Place:
    return Place(make_sum, tmp_path)


def test_a_node_takes_part_in_a_whole_sum(place: Place) -> None:
    world = place.world
    for step in world.STEPS:
        place.step(step)
    expected = world.plain(set(world.names) - {ME}) + place.source.vector
    assert np.array_equal(world.coordinator.total(), expected)
    assert place.source.asked == [world.plan]
    assert place.source.sessions == [world.coordinator._session]  # which keys the noise
    assert place.desk.status() | {"answered": 1, "generation": 1, "round": 1} == place.desk.status()


@pytest.mark.parametrize("step", ["advertise", "share", "mask", "confirm", "reveal"])
def test_no_step_is_answered_twice(place: Place, step: str) -> None:
    place.until(step).ask(step)
    with pytest.raises(ProtocolError, match="was asked before"):
        place.ask(step)
    assert len(place.source.asked) <= 1


@pytest.mark.parametrize("step", ["advertise", "share", "mask", "confirm", "reveal"])
def test_after_a_restart_a_sum_is_not_gone_on_with(place: Place, step: str) -> None:
    """Neither the step that was answered already, nor the next: the secrets are gone."""
    place.until(step).step(step)
    place.restart()
    with pytest.raises(ProtocolError, match="was asked before"):
        place.ask(step)
    after = place.world.STEPS[place.world.STEPS.index(step) + 1 :][:1]
    for later in after:
        with pytest.raises(ProtocolError, match="no part in that sum"):
            place.ask(later)
    assert len(place.source.asked) <= 1


def test_an_earlier_step_or_attempt_is_refused_after_a_later_one(make_sum: Any, tmp_path: Path) -> None:
    Place(make_sum, tmp_path, attempt=2).until("confirm")
    for attempt, step in ((2, "advertise"), (1, "advertise")):
        with pytest.raises(ProtocolError, match="older than one"):
            Place(make_sum, tmp_path, attempt=attempt).ask(step)
    Place(make_sum, tmp_path, attempt=3).ask("advertise")


def test_another_attempt_ends_the_sum_before_it(make_sum: Any, tmp_path: Path) -> None:
    first = Place(make_sum, tmp_path).until("confirm")
    second = Place(make_sum, tmp_path, attempt=2)
    second.desk = first.desk
    second.ask("advertise")
    with pytest.raises(ProtocolError, match="older than one"):
        first.ask("confirm")
    first.desk.seen = SeenRounds(tmp_path / "forgotten.json")  # not even if its disk were set back
    with pytest.raises(ProtocolError, match="no part in that sum"):
        first.ask("confirm")


def test_skipped_steps_are_refused_and_end_the_sum(place: Place) -> None:
    place.until("mask")
    inbox = place.body("mask")
    with pytest.raises(ProtocolError):
        place.ask("reveal", body=b'{"signatures":{}}')
    with pytest.raises(ProtocolError, match="older than one"):
        place.ask("mask", body=inbox)
    assert place.source.asked == []


def test_seen_rounds_remember_the_step_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "rounds.json"
    SeenRounds(path).see((1, 2, 1), 3)
    for seen, words in (((1, 2, 1), 3), "asked before"), (((1, 2, 1), 2), "older"), (((1, 1, 9), 5), "older"):
        with pytest.raises(ProtocolError, match=words):
            SeenRounds(path).see(*seen)
    with pytest.raises(ProtocolError, match="older"):
        SeenRounds(path).see((1, 2, 1))  # the same round without masks
    SeenRounds(path).see((1, 2, 1), 4)
    assert SeenRounds(path).latest() == (1, 2, 1)
    path.write_text(json.dumps({"format": 1, "generation": 2, "round": 1, "attempt": 1}))  # as older nodes wrote it
    SeenRounds(path).see((2, 1, 1), 1)


MOMENTS = [
    ({"is_paused": lambda: True}, "paused"),
    ({"policy": PolicySettings(modes=("secagg",), hours="22:00-06:00")}, "outside of this node's hours"),
]
OPENINGS = [
    ({"policy": PolicySettings()}, "asks for mode secagg"),
    ({"policy": PolicySettings(modes=("secagg",), epsilon_round=0.001)}, "costs more than a round may"),
    ({"sums": None}, "ask for no sums"),
]


@pytest.mark.parametrize(("changed", "words"), MOMENTS + OPENINGS)
def test_a_first_step_outside_the_policy_is_refused(place: Place, changed: dict[str, Any], words: str) -> None:
    place.restart(**changed)
    with pytest.raises(PrivacyError, match=words):
        place.ask("advertise")
    assert not (place.folder / "rounds.json").exists()
    place.restart()
    place.ask("advertise")  # as soon as it is allowed


@pytest.mark.parametrize(("changed", "words"), MOMENTS)
def test_rows_are_not_read_while_a_node_rests_either(place: Place, changed: dict[str, Any], words: str) -> None:
    place.until("mask")
    for name, value in changed.items():
        setattr(place.desk, name, value)
    with pytest.raises(PrivacyError, match=words):
        place.ask("mask")
    assert place.source.asked == []


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ({"mode": "inspect"}, "asks for mode inspect"),
        ({"privacy_plan_hash": "9" * 64}, "another privacy plan"),
        ({"part": "lora"}, "asks for part 'lora'"),
        ({"run": "music/1"}, "is of run 'music/1'"),
        ({"quorum": 2}, "another quorum than the 3 that were agreed"),
        ({"quorum": 4}, "another quorum than the 3 that were agreed"),
        ({"local_steps": 2}, "asks for more than one step"),
        ({"attempt": 65}, "more than attempt 64: each is another draw"),
    ],
)
def test_a_plan_that_was_not_agreed_to_gets_no_key(
    make_sum: Any, tmp_path: Path, plan: dict[str, Any], words: str
) -> None:
    place = Place(make_sum, tmp_path, **plan)
    with pytest.raises(PrivacyError, match=words):
        place.ask("advertise")
    assert place.source.asked == []


def test_the_last_attempt_is_answered(make_sum: Any, tmp_path: Path) -> None:
    Place(make_sum, tmp_path, attempt=64).ask("advertise")


def test_secrets_of_an_attempt_are_of_the_entropy_that_is_asked_for_it(
    make_sum: Any, make_stream: Any, tmp_path: Path
) -> None:
    """A simulation's; a node has the operating system's."""
    keys = []
    for attempt in (1, 1, 2):
        place = Place(make_sum, tmp_path / str(len(keys)), attempt=attempt)
        place.folder.mkdir()
        assert place.desk.sums is not None
        place.desk.sums.entropy = lambda at: make_stream(f"{at}")
        keys.append(place.ask("advertise").mask_key)
    assert keys[0] == keys[1] != keys[2]
    drawn = []
    for number in (1, 2):
        place = Place(make_sum, tmp_path / f"own {number}")
        place.folder.mkdir()
        drawn.append(place.ask("advertise").mask_key)
    assert drawn[0] != drawn[1]


def test_a_plan_must_bear_as_many_dishonest_partners_as_the_policy_says() -> None:
    def problems(least: int, terms: FederationTerms = TERMS) -> list[str]:
        policy = PolicySettings(modes=("secagg",), epsilon_total=100.0, epsilon_round=100.0, min_dishonest=least)
        return [problem for problem in policy_problems(terms, policy) if "dishonest" in problem]

    assert problems(0) == problems(1) == []
    assert problems(2) == ["bears 1 dishonest partners, policy.min_dishonest is 2"]
    assert PolicySettings().min_dishonest == 1  # so that a plan that bears none is refused unless somebody says so
    none = TERMS.model_copy(update={"privacy_plan": replace(PLAN, dishonest=0).to_dict()})
    assert problems(1, none) == ["bears 0 dishonest partners, policy.min_dishonest is 1"]
    assert problems(0, none) == []


@pytest.mark.parametrize("changed", [{"round": 2}, {"attempt": 5}, {"run": "films/2"}])
def test_a_plan_of_another_round_than_its_header_is_refused(place: Place, changed: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError, match="not of the round that its header names"):
        place.ask("advertise", **changed)
    with pytest.raises(ProtocolError, match="no part in that sum"):
        place.ask("share", body=b"{}", **changed)


def test_secagg_is_refused_on_the_path_without_masks(place: Place) -> None:
    plan = place.world.plan
    with pytest.raises(PrivacyError, match="never leaves without masks"):
        place.desk.answer(plan, STATE, COORDINATOR.sign("round-plan", plan.to_record()))
    assert not (place.folder / "rounds.json").exists()


def test_unknown_partners_are_refused_by_name_and_before_a_key(place: Place) -> None:
    place.restart(peers={name: key for name, key in place.world.public.items() if name not in ("p000", "p003")})
    with pytest.raises(PrivacyError, match="no peers of this one: p000, p003"):
        place.ask("advertise")
    assert place.desk.status()["last_refusal"].endswith("p000, p003")


def test_a_peer_whose_key_the_owner_replaced_is_not_who_signs(place: Place) -> None:
    place.restart(peers={**place.world.public, "p003": SigningKey(bytes([9] * 32)).public})
    place.until("share")
    with pytest.raises(ProtocolError, match="secagg-keys: the signature"):
        place.ask("share")


def test_what_the_coordinator_did_not_sign_or_hash_is_refused(place: Place) -> None:
    with pytest.raises(ProtocolError, match="secagg-ask: the signature"):
        place.ask("advertise", key=place.world.keys[ME])
    assert not (place.folder / "rounds.json").exists()
    with pytest.raises(ProtocolError, match="not that of its header"):
        place.ask("advertise", body_hash="0" * 64)
    with pytest.raises(ProtocolError, match="or not the coordinator's"):
        place.ask("share", body=b"{}", sender="p000")


def test_a_vector_is_computed_only_with_safe_shares_and_a_good_adapter(place: Place) -> None:
    place.until("mask")
    good = place.body("mask")
    wrong = AdapterState({"w": np.zeros(5, np.float32)})
    with pytest.raises(PrivacyError, match="another shape"):
        place.ask("mask", state=wrong)
    inbox = place.world.coordinator.inbox(ME)
    with pytest.raises(ProtocolError, match="sealed shares are missing"):
        place.ask("mask", body=inbox.model_copy(update={"sealed": {}}).to_bytes())
    assert place.source.asked == []
    with pytest.raises(ProtocolError, match="was asked before"):
        place.ask("mask", body=good)


def test_a_step_without_its_adapter_is_refused(place: Place) -> None:
    place.until("mask")
    with pytest.raises(ProtocolError, match="the adapter is missing"):
        place.ask("mask", state=None)
    assert place.source.asked == []


@pytest.mark.parametrize("error", [BudgetError("nothing remains"), ZeroDivisionError("a private value")])
def test_a_refusal_of_the_worker_ends_the_sum(place: Place, error: Exception) -> None:
    place.source = Counting(error)
    place.restart()
    place.until("mask")
    with pytest.raises(type(error)):
        place.ask("mask")
    assert place.desk.sums is not None
    assert place.desk.sums._sum is None
    assert place.desk.status()["lost"][type(error).__name__] == 1
    assert "private" not in str(place.desk.status()) + repr(place.desk)


def test_nonsense_of_a_coordinator_is_refused_in_words(place: Place) -> None:
    for attempt, body in enumerate((b"", b"{}", b"[]", b'{"plan": {}, "cohort": []}', b"\xff"), start=1):
        with pytest.raises(FedrecError) as found:
            place.ask("advertise", body=body, attempt=attempt)
        assert found.value.problem
