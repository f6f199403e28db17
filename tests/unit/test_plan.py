"""The privacy plan: validates itself, hashes exactly, and gives noise and accounting the same figures."""

import dataclasses
import json
import math
from typing import Any

import pytest
from dp_accounting.pld import PLDAccountant

from fedrec.config import load_config
from fedrec.errors import PrivacyError
from fedrec.privacy.accounting import epsilon_prv
from fedrec.privacy.plan import PartPlan, PartShare, PrivacyPlan, calibrate
from fedrec_sim.cli_output import DEMO
from fedrec_sim.federation import private_plan

HEAD = PartPlan("head", sampling_prob=0.1, l2_clip_norm=0.5, noise_multiplier=4.0, total_steps=10)
LORA = PartPlan("lora", sampling_prob=1.0, l2_clip_norm=0.1, noise_multiplier=2.0, total_steps=3)
PLAN = PrivacyPlan("user", "inspect", 1e-5, (HEAD, LORA), quorum=4)


def test_noise_std_is_whole_in_inspect_and_a_share_in_secagg() -> None:
    shared = dataclasses.replace(PLAN, mode="secagg")
    assert PLAN.noise_std("head") == 2.0
    assert shared.noise_std("head") == 1.0  # four such shares have the variance of the whole
    with pytest.raises(PrivacyError, match="prior"):
        PLAN.noise_std("prior")


def test_events_are_the_plan_or_what_is_done_of_it() -> None:
    assert PLAN.events() == [("head", 0.1, 4.0, 10), ("lora", 1.0, 2.0, 3)]
    assert PLAN.events({"lora": 2}) == [("lora", 1.0, 2.0, 2)]
    assert PLAN.events({}) == []


@pytest.mark.parametrize("done", [{"head": 11}, {"head": -1}, {"prior": 1}])
def test_steps_outside_the_plan_are_refused(done: dict[str, int]) -> None:
    with pytest.raises(PrivacyError):
        PLAN.events(done)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("part", ""),
        ("sampling_prob", 0.0),
        ("sampling_prob", 1.0000001),
        ("sampling_prob", math.nan),
        ("l2_clip_norm", 0.0),
        ("l2_clip_norm", math.inf),
        ("noise_multiplier", 0.0),
        ("noise_multiplier", True),
        ("noise_multiplier", "1"),
        ("total_steps", 0),
        ("total_steps", 1.5),
    ],
)
def test_a_part_out_of_range_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(PrivacyError, match="steps" if field == "total_steps" else field):
        dataclasses.replace(HEAD, **{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("unit", "row"),
        ("mode", "none"),
        ("delta", 0.0),
        ("delta", 1.0),
        ("parts", ()),
        ("parts", (HEAD, HEAD)),
        ("quorum", 0),
    ],
)
def test_a_plan_out_of_range_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(PrivacyError, match="part" if field == "parts" else field):
        dataclasses.replace(PLAN, **{field: value})


def test_all_problems_come_at_once() -> None:
    values = PLAN.to_dict()
    values.update(unit="row", delta=2)
    values["parts"][1].update(l2_clip_norm=-1, sampling_prob=0)
    values["parts"][0]["clip"] = 1
    with pytest.raises(PrivacyError) as caught:
        PrivacyPlan.from_dict(values)
    assert "5 problems" in caught.value.problem
    for found in (
        "unit",
        "delta",
        "parts[0]: clip: unknown",
        "parts[1]: l2_clip_norm",
        "parts[1]: sampling_prob",
    ):
        assert found in caught.value.problem


@pytest.mark.parametrize("parts", [None, "head", [1]])
def test_parts_that_are_no_tables_are_refused(parts: Any) -> None:
    with pytest.raises(PrivacyError, match="list of tables"):
        PrivacyPlan.from_dict({**PLAN.to_dict(), "parts": parts})


def test_hash_survives_json_and_does_not_know_int_from_float() -> None:
    again = PrivacyPlan.from_dict(json.loads(json.dumps(PLAN.to_dict())))
    assert again == PLAN
    assert again.hash == PLAN.hash
    whole = dataclasses.replace(LORA, sampling_prob=1, noise_multiplier=2)
    assert dataclasses.replace(PLAN, parts=(HEAD, whole)).hash == PLAN.hash


def test_hash_sees_every_field_to_the_last_bit() -> None:
    def changed(part: PartPlan) -> PrivacyPlan:
        return dataclasses.replace(PLAN, parts=(part, LORA))

    others = [
        dataclasses.replace(PLAN, mode="secagg"),
        dataclasses.replace(PLAN, delta=math.nextafter(1e-5, 1)),
        dataclasses.replace(PLAN, quorum=5),
        dataclasses.replace(PLAN, parts=(LORA, HEAD)),
        changed(dataclasses.replace(HEAD, part="prior")),
        changed(dataclasses.replace(HEAD, sampling_prob=math.nextafter(0.1, 1))),
        changed(dataclasses.replace(HEAD, l2_clip_norm=math.nextafter(0.5, 1))),
        changed(dataclasses.replace(HEAD, noise_multiplier=math.nextafter(4.0, 5))),
        changed(dataclasses.replace(HEAD, total_steps=11)),
    ]
    assert len({PLAN.hash, *(other.hash for other in others)}) == len(others) + 1


def grid() -> list[PrivacyPlan]:
    """20 plans as people would ask for them: few and many rounds, everybody or a sample, one part or three."""
    promises = ((0.5, 1e-6), (1.0, 1e-5), (2.0, 1e-5), (4.0, 1e-4), (8.0, 1e-4))
    parts: list[list[PartShare]] = [
        [("adapter", 20, 1.0, 1.0, 1.0)],
        [("adapter", 100, 0.1, 1.0, 1.0)],
        [("prior", 1, 1.0, 1.0, 0.2), ("head", 45, 1.0, 0.03, 0.75), ("lora", 5, 0.1, 0.05, 0.05)],
        [("head", 200, 0.02, 1.0, 0.5), ("lora", 10, 0.5, 1.0, 0.5)],
    ]
    return [calibrate(shares, epsilon, delta, "inspect", 1) for epsilon, delta in promises for shares in parts]


def test_both_accountants_agree_on_twenty_plans() -> None:
    plans = grid()
    assert len(plans) == 20
    assert len({plan.hash for plan in plans}) == 20
    for plan in plans:
        assert abs(plan.epsilon() - epsilon_prv(plan.events(), plan.delta)) <= 0.03


def test_a_plan_calibrates_itself_and_keeps_its_proportions() -> None:
    plan = PLAN.calibrate(3.0)
    assert 2.97 <= plan.epsilon() <= 3.0
    ratios = {new.noise_multiplier / old.noise_multiplier for new, old in zip(plan.parts, PLAN.parts, strict=True)}
    assert max(ratios) == pytest.approx(min(ratios))
    assert plan.calibrate(3.0).epsilon() == pytest.approx(plan.epsilon(), abs=0.02)


def test_its_event_is_what_any_accountant_of_the_library_composes() -> None:
    accountant = PLDAccountant(value_discretization_interval=1e-3)
    assert accountant.compose(PLAN.dp_event()).get_epsilon(PLAN.delta) == pytest.approx(PLAN.epsilon(), abs=0.01)


def test_masks_bear_no_more_dishonest_partners_than_the_quorum() -> None:
    plan = PrivacyPlan("user", "secagg", 1e-5, (HEAD,), quorum=3, dishonest=3)
    with pytest.raises(PrivacyError, match="dishonest must not exceed quorum"):
        dataclasses.replace(plan, dishonest=4)
    with pytest.raises(PrivacyError, match="dishonest must not exceed quorum"):
        PrivacyPlan.from_dict({**plan.to_dict(), "quorum": 2})


def test_steps_to_spare_are_of_secagg_plans_alone() -> None:
    """Elsewhere a question that is repeated is the same release; under masks each attempt is paid for."""
    config = load_config(DEMO, ("rounds.spare_attempts=3",))
    rounds = [part.rounds for part in config.private.parts]
    assert [part.total_steps for part in private_plan(config, "secagg").parts] == [number + 3 for number in rounds]
    assert [part.total_steps for part in private_plan(config, "inspect").parts] == rounds
