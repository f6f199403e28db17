"""An answer is exactly what was asked, or it is refused in words that hold no value."""

from dataclasses import replace

import numpy as np
import pytest

from fedrec.aggregation.mean import check_reply
from fedrec.errors import ProtocolError
from fedrec.model.adapter import AdapterDelta, AdapterSpec
from fedrec.wire import RoundPlan, UpdateHeader

SPEC = AdapterSpec("llm", "h", "h", "h", {"head": {"w": (2,), "v": (1,)}, "prior": {"bias": (3,)}})
PLAN = RoundPlan("run", 3, 2, "head", 1, 1, 0.5, "parent", "plan", "inspect", 2, 60.0, 1)
GOOD = {"w": np.array([3.0, 0.0], np.float32), "v": np.array([4.0], np.float32)}


def refusal(
    tensors: dict[str, np.ndarray] = GOOD,
    *,
    sender: str = "anna",
    answered: tuple[str, ...] = (),
    max_norm: float = 5.0,
    **changed: object,
) -> str:
    """What check_reply says; empty if nothing."""
    adapter_delta = AdapterDelta(tensors)
    header = UpdateHeader("run", 3, 2, "anna", adapter_delta.hash, "plan")
    header = replace(header, **changed)  # type: ignore[arg-type]  # the tables below fit
    try:
        check_reply(
            header,
            adapter_delta,
            sender=sender,
            plan=PLAN,
            spec=SPEC,
            max_norm=max_norm,
            cohort=["anna", "bert"],
            answered=answered,
        )
    except ProtocolError as error:
        return error.problem
    return ""


def test_what_was_asked_is_accepted_up_to_the_norm() -> None:
    assert refusal() == ""
    assert "norm" in refusal(max_norm=4.99)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"run": "other"}, "run is not the round's"),
        ({"round": 2}, "round is not the round's"),
        ({"attempt": 1}, "attempt is not the round's"),
        ({"plan_hash": "other"}, "privacy plan is not the round's"),
        ({"partner": "bert"}, "another partner's name"),
        ({"delta_hash": "0" * 64}, "delta_hash"),
    ],
)
def test_a_header_that_does_not_fit(changed: dict[str, object], words: str) -> None:
    said = refusal(**changed)  # type: ignore[arg-type]  # fields of the header
    assert said.startswith("partner anna: ")
    assert words in said


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"w": GOOD["w"]}, "1 tensors missing, first 'v'"),
        ({**GOOD, "bias": np.zeros(3, np.float32)}, "1 tensors too many"),
        ({**GOOD, "w": np.zeros(3, np.float32)}, "'w' has shape [3], not [2]"),
        ({**GOOD, "v": np.array([np.nan], np.float32)}, "not finite"),
        ({**GOOD, "v": np.array([-np.inf], np.float32)}, "not finite"),
        ({**GOOD, "v": np.array([8765.4321], np.float32)}, "norm above 5"),
    ],
)
def test_tensors_that_do_not_fit(tensors: dict[str, np.ndarray], words: str) -> None:
    said = refusal(tensors)
    assert words in said
    assert "8765" not in said


def test_a_stranger_and_a_second_answer_are_refused() -> None:
    assert "not in the cohort" in refusal(sender="carl", partner="carl")
    assert "answered already" in refusal(answered=("anna",))


def test_everything_wrong_is_said_at_once() -> None:
    said = refusal({**GOOD, "w": np.full(3, np.nan, np.float32)}, round=9, partner="bert")
    assert said.count(";") == 3
