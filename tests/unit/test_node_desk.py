"""What a partner's node answers, and what it refuses: every reason named, nothing private, nothing twice."""

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedrec.config import ModelConfig, ShapeConfig
from fedrec.errors import FedrecError, PrivacyError, ProtocolError
from fedrec.model.adapter import AdapterDelta, AdapterState
from fedrec.privacy.plan import PartPlan, PrivacyPlan
from fedrec.signing import SigningKey, verify
from fedrec.terms import FORMAT, FederationTerms, ModelTerms, WorkTerms
from fedrec.wire import RoundPlan, UpdateHeader
from fedrec_client.agreement import Agreement, policy_problems
from fedrec_client.desk import NodeDesk, SeenRounds, is_open
from fedrec_client.settings import PolicySettings

COORDINATOR, OWN = SigningKey(bytes(32)), SigningKey(bytes([1] * 32))
STATE = AdapterState({"w": np.zeros(4, np.float32)})
PLAN = PrivacyPlan("user", "inspect", 1e-5, (PartPlan("head", 1.0, 1.0, 20.0, 3),), quorum=2)
HASH = "0" * 64
MODEL = ModelTerms(config=ModelConfig(), backbone_hash=HASH, catalog_hash=HASH, feature_hash=HASH, shape=ShapeConfig())
TERMS = FederationTerms(
    format=FORMAT,
    name="films",
    mode="inspect",
    privacy_plan=PLAN.to_dict(),
    model=MODEL,
    work=WorkTerms(max_history=50, weight_decay=0.0, batch_users=8),
    parts={"head": {"w": (4,)}},
    initial_hash=STATE.hash,
    seed=1,
)
NOON = datetime(2026, 1, 1, 12, 0)


class Counting:
    """A worker that answers and counts."""

    def __init__(self) -> None:
        self.asked: list[RoundPlan] = []

    def train(self, plan: RoundPlan, state: AdapterState) -> tuple[UpdateHeader, AdapterDelta]:
        self.asked.append(plan)
        delta = AdapterDelta({"w": np.ones(4, np.float32)})
        header = UpdateHeader(plan.run, plan.round, plan.attempt, "shop", delta.hash, plan.privacy_plan_hash)
        return header, delta


def desk_of(folder: Path, worker: Counting, **changed: Any) -> NodeDesk:
    policy = PolicySettings(**changed.pop("policy", {}))
    values: dict[str, Any] = {
        "partner": "shop",
        "coordinator": lambda: COORDINATOR.public,
        "key": OWN,
        "terms": TERMS,
        "policy": policy,
        "worker": worker,
        "seen": SeenRounds(folder / "rounds.json"),
        "is_paused": lambda: False,
        "now": lambda: NOON,
    }
    return NodeDesk(**{**values, **changed})


def asked(number: int = 1, attempt: int = 1, run: str = "films/1", **changed: Any) -> RoundPlan:
    values: dict[str, Any] = {"mode": "inspect", "part": "head", "privacy_plan_hash": PLAN.hash}
    values |= {"parent_hash": STATE.hash, "local_steps": 1, **changed}
    return RoundPlan(
        run=run,
        round=number,
        attempt=attempt,
        local_epochs=1,
        learning_rate=1.0,
        quorum=2,
        deadline_s=60.0,
        seed=1,
        **values,
    )


def ask(desk: NodeDesk, plan: RoundPlan, key: SigningKey = COORDINATOR, state: AdapterState = STATE) -> Any:
    return desk.answer(plan, state, key.sign("round-plan", plan.to_record()))


def test_an_allowed_round_is_answered_and_signed(tmp_path: Path) -> None:
    worker = Counting()
    header, delta, signature = ask(desk_of(tmp_path, worker), asked())
    verify(OWN.public, "answer", header.to_record(), signature)
    assert (header.partner, delta.hash) == ("shop", header.delta_hash)
    assert len(worker.asked) == 1


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"mode": "none"}, "asks for mode none"),
        ({"privacy_plan_hash": "other"}, "another privacy plan"),
        ({"part": "lora"}, "asks for part 'lora'"),
        ({"run": "music/1"}, "is of run 'music/1'"),
    ],
)
def test_a_plan_outside_the_terms_is_refused(tmp_path: Path, changed: dict[str, str], words: str) -> None:
    worker = Counting()
    with pytest.raises(PrivacyError, match=words):
        ask(desk_of(tmp_path, worker), asked(**changed))
    assert worker.asked == []
    assert not (tmp_path / "rounds.json").exists()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"is_paused": lambda: True}, "paused"),
        ({"policy": {"hours": "22:00-06:00"}}, "outside of this node's hours"),
        ({"policy": {"epsilon_round": 0.001}}, "costs more than a round may"),
        ({"policy": {"modes": ("none",)}}, "asks for mode inspect"),
        ({"policy": {"epsilon_round": 0.2}, "asked": {"local_steps": 3}}, "costs more than a round may"),
        ({"asked": {"local_steps": 4}}, "asks for 4 steps, the plan has 3"),
    ],
)
def test_a_plan_outside_the_partners_own_policy_is_refused(tmp_path: Path, changed: dict[str, Any], words: str) -> None:
    worker = Counting()
    changed = dict(changed)
    plan = asked(**changed.pop("asked", {}))
    with pytest.raises(PrivacyError, match=words):
        ask(desk_of(tmp_path, worker, **changed), plan)
    assert worker.asked == []


def test_a_round_of_one_step_is_within_what_three_are_not(tmp_path: Path) -> None:
    ask(desk_of(tmp_path, Counting(), policy={"epsilon_round": 0.2}), asked())


def test_a_share_of_noise_never_leaves_without_masks(tmp_path: Path) -> None:
    worker = Counting()
    with pytest.raises(PrivacyError, match="without masks"):
        ask(desk_of(tmp_path, worker, policy={"modes": ("inspect", "secagg")}), asked(mode="secagg"))
    assert worker.asked == []


def test_every_reason_is_told_at_once_and_kept_for_the_partner(tmp_path: Path) -> None:
    desk = desk_of(tmp_path, Counting(), is_paused=lambda: True)
    with pytest.raises(PrivacyError) as found:
        ask(desk, asked(mode="none", part="lora"))
    assert found.value.problem.count(";") == 2
    assert desk.status()["last_refusal"] == found.value.problem


def test_a_foreign_or_changed_plan_is_refused(tmp_path: Path) -> None:
    worker = Counting()
    desk = desk_of(tmp_path, worker)
    with pytest.raises(ProtocolError, match="signature"):
        ask(desk, asked(), key=OWN)
    with pytest.raises(ProtocolError, match="signature"):
        desk.answer(asked(2), STATE, COORDINATOR.sign("round-plan", asked(1).to_record()))
    assert worker.asked == []


def test_a_plan_under_a_new_key_makes_the_node_ask_what_vouches_for_it(tmp_path: Path) -> None:
    worker, known, new = Counting(), [COORDINATOR.public], SigningKey(bytes([2] * 32))
    desk = desk_of(tmp_path, worker, coordinator=lambda: known[-1], follow=lambda: known.append(new.public) or True)
    ask(desk, asked(1))
    assert known == [COORDINATOR.public]  # nobody was asked without need
    ask(desk, asked(2), key=new)
    with pytest.raises(ProtocolError, match="signature"):
        ask(desk, asked(3), key=COORDINATOR)
    assert len(worker.asked) == 2


def test_a_new_key_that_a_person_must_accept_is_named_to_both_sides(tmp_path: Path) -> None:
    def refuse() -> bool:
        raise PrivacyError("the coordinator has a new signing key, and policy.accept_new_keys is false")

    desk = desk_of(tmp_path, Counting(), follow=refuse)
    with pytest.raises(PrivacyError, match="accept_new_keys"):
        ask(desk, asked(), key=SigningKey(bytes([2] * 32)))
    assert "accept_new_keys" in desk.status()["last_refusal"]


def test_an_adapter_of_another_shape_is_refused(tmp_path: Path) -> None:
    for state in (
        AdapterState({"w": np.zeros(5, np.float32)}),
        AdapterState({"w": np.full(4, np.nan, np.float32)}),
    ):
        with pytest.raises(PrivacyError, match="another shape"):
            ask(desk_of(tmp_path, Counting()), asked(parent_hash=state.hash), state=state)


def test_nothing_is_answered_twice_or_out_of_order_even_after_a_restart(tmp_path: Path) -> None:
    worker = Counting()
    ask(desk_of(tmp_path, worker), asked(2, 2))
    for place, words in (((2, 2), "was asked before"), ((2, 1), "older"), ((1, 9), "older")):
        with pytest.raises(ProtocolError, match=words):
            ask(desk_of(tmp_path, worker), asked(*place))
    ask(desk_of(tmp_path, worker), asked(2, 3))
    ask(desk_of(tmp_path, worker), asked(1, 1, run="films/2"))  # rolled back
    with pytest.raises(ProtocolError, match="older"):
        ask(desk_of(tmp_path, worker), asked(9, 9, run="films/1"))
    assert len(worker.asked) == 3


@pytest.mark.parametrize("run", ["films/x", "films/", "films/-1", "films/9999999999"])
def test_a_run_without_a_generation_is_refused(tmp_path: Path, run: str) -> None:
    with pytest.raises(FedrecError):
        ask(desk_of(tmp_path, Counting()), asked(run=run))


def test_what_a_policy_does_not_allow_is_told_at_once() -> None:
    policy = PolicySettings(modes=("none",), epsilon_total=0.01, epsilon_round=0.01, backbones=("1" * 64,))
    problems = policy_problems(TERMS, policy)
    assert [problem.split()[0] for problem in problems] == ["mode", "backbone", "costs", "a"]
    assert policy_problems(TERMS, PolicySettings()) == []
    Agreement(TERMS, b"").hold_against(PolicySettings())
    with pytest.raises(PrivacyError, match="4 problems"):
        Agreement(TERMS, b"").hold_against(policy)


@pytest.mark.parametrize(
    ("hours", "hour", "minute", "allowed"),
    [
        ("00:00-24:00", 0, 0, True),
        ("08:00-18:00", 17, 59, True),
        ("08:00-18:00", 18, 0, False),
        ("22:30-06:00", 22, 29, False),
        ("22:30-06:00", 5, 59, True),
    ],
)
def test_hours(hours: str, hour: int, minute: int, allowed: bool) -> None:
    assert is_open(hours, datetime(2026, 1, 1, hour, minute)) == allowed


def test_lost_rounds_are_counted_by_class_for_the_partners_own_people(tmp_path: Path) -> None:
    class Failing(Counting):
        def train(self, plan: RoundPlan, state: AdapterState) -> tuple[UpdateHeader, AdapterDelta]:
            raise ZeroDivisionError("a private value")

    desk = desk_of(tmp_path, Failing(), is_paused=lambda: True)
    with pytest.raises(PrivacyError):
        ask(desk, asked())
    desk.is_paused = lambda: False
    with pytest.raises(ZeroDivisionError):
        ask(desk, asked())
    assert desk.status()["lost"] == {"BudgetError": 0, "PrivacyError": 1, "ProtocolError": 0, "ZeroDivisionError": 1}
    assert "private" not in str(desk.status())
