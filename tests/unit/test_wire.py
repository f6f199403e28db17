"""Messages: every field declared, typed and bounded, on both sides of the wire."""

from dataclasses import fields, replace
from typing import Any

import pytest

from fedrec.errors import ProtocolError
from fedrec.wire import RoundPlan, UpdateHeader

PLAN = RoundPlan(
    run="demo/federated_dp-1",
    round=3,
    attempt=1,
    part="head",
    local_epochs=1,
    local_steps=1,
    learning_rate=0.5,
    parent_hash="a" * 64,
    privacy_plan_hash="b" * 64,
    mode="secagg",
    quorum=8,
    deadline_s=600.0,
    seed=1,
)
HEADER = UpdateHeader("demo", 3, 1, "partner-1", "c" * 64, "b" * 64)


@pytest.mark.parametrize("message", [PLAN, HEADER])
def test_records_come_back_as_they_went(message: RoundPlan | UpdateHeader) -> None:
    record = message.to_record()
    assert {type(value) for value in record.values()} <= {int, float, str}
    assert type(message).from_record(record) == message


def test_no_header_can_claim_a_number_of_examples() -> None:
    assert {f.name for f in fields(UpdateHeader) if f.type is not str} == {"round", "attempt"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("round", 0),
        ("attempt", 0),
        ("local_steps", 0),
        ("local_epochs", -1),
        ("quorum", 0),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("deadline_s", float("inf")),
        ("seed", -1),
        ("seed", 2**63),
        ("mode", "open"),
        ("run", ""),
        ("part", "x" * 201),
        ("parent_hash", "a\nb"),
    ],
)
def test_values_out_of_range_are_named(name: str, value: Any) -> None:
    with pytest.raises(ProtocolError, match=rf"- {name} must be"):
        replace(PLAN, **{name: value})


@pytest.mark.parametrize("value", [True, "3", 3.0, b"3", [3], None])
def test_a_field_of_another_type_is_refused(value: object) -> None:
    with pytest.raises(ProtocolError, match=r"round: must be int"):
        RoundPlan.from_record({**PLAN.to_record(), "round": value})


def test_a_whole_number_is_a_float_to_the_partner_too() -> None:
    read = RoundPlan.from_record({**PLAN.to_record(), "learning_rate": 1})
    assert repr(read.learning_rate) == "1.0"


def test_every_problem_is_listed_at_once_and_no_foreign_name_is_echoed() -> None:
    record: dict[str, object] = {**HEADER.to_record(), "round": "x", "n_examples_secret": 400}
    del record["partner"]
    with pytest.raises(ProtocolError) as caught:
        UpdateHeader.from_record(record)
    assert "UpdateHeader: 3 problems" in str(caught.value)
    assert "secret" not in str(caught.value)
