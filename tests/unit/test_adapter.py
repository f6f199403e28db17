"""The adapter as arrays: hashes that mean the numbers, arithmetic that refuses what does not fit."""

import numpy as np
import pytest

from fedrec.errors import ModelError
from fedrec.model.adapter import AdapterDelta, AdapterSpec, AdapterState

Parts = dict[str, dict[str, tuple[int, ...]]]
PARTS: Parts = {"prior": {"bias": (3,)}, "head": {"w": (2, 3)}, "all": {"w": (2, 3)}}


def state(seed: int = 0) -> AdapterState:
    rng = np.random.default_rng(seed)
    return AdapterState({"w": rng.random((2, 3), np.float32), "bias": rng.random(3, np.float32)})


def spec(parts: Parts = PARTS) -> AdapterSpec:
    return AdapterSpec("llm", "a" * 64, "b" * 64, "c" * 64, parts)


def test_hash_is_of_numbers_names_and_shapes_and_of_nothing_else() -> None:
    tensors = dict(state().tensors)
    same = AdapterState({"bias": tensors["bias"], "w": np.asfortranarray(tensors["w"])})
    assert same.hash == state().hash
    others = [
        {**tensors, "w": tensors["w"] + np.float32(1e-7)},
        {**tensors, "w": tensors["w"].reshape(3, 2)},
        {"w": tensors["w"], "biaz": tensors["bias"]},
        {"w": tensors["w"]},
    ]
    assert len({AdapterState(t).hash for t in others} | {state().hash}) == 5


def test_hash_is_stable_between_versions_of_fedrec() -> None:
    fixed = AdapterState({"w": np.arange(3, dtype=np.float32)})
    assert fixed.hash == "0ee3488ae0d9a0bab5e7c157df3aa6355462138b5ad0374c7cf56494e495be84"


def test_end_minus_start_leads_from_start_to_end() -> None:
    start, end = state(1), state(2)
    np.testing.assert_allclose(start.plus(end.minus(start)).tensors["w"], end.tensors["w"], rtol=1e-6)


def test_a_delta_of_one_part_leaves_the_rest_untouched() -> None:
    start = state()
    moved = start.plus(AdapterDelta({"bias": np.ones(3, np.float32)}))
    np.testing.assert_array_equal(moved.tensors["bias"], start.tensors["bias"] + 1)
    np.testing.assert_array_equal(moved.tensors["w"], start.tensors["w"])
    assert start.hash == state().hash


@pytest.mark.parametrize("kind", [AdapterState, AdapterDelta])
def test_bytes_come_back_as_they_went(kind: type[AdapterState] | type[AdapterDelta]) -> None:
    original = kind({**state().tensors, "scalar": np.array(-0.0, np.float32), "none": np.zeros((0, 2), np.float32)})
    again = kind.from_bytes(original.to_bytes())
    assert again.hash == original.hash
    assert again.to_bytes() == original.to_bytes()
    assert original.n_bytes == 4 * (6 + 3 + 1)


def test_damaged_bytes_are_refused() -> None:
    content = state().to_bytes()
    for damaged in (b"", content[:-1], content[:20], b"\xff" * 40):
        with pytest.raises(ModelError):
            AdapterState.from_bytes(damaged)


@pytest.mark.parametrize("tensors", [{}, {"w": np.zeros(2)}, {"w": [0.0, 1.0]}, {"w": np.zeros(2, np.int32)}])
def test_only_float32_arrays_are_an_adapter(tensors: dict[str, object]) -> None:
    for kind in (AdapterState, AdapterDelta):
        with pytest.raises(ModelError):
            kind(tensors)  # type: ignore[arg-type]  # what it refuses


@pytest.mark.parametrize(
    ("tensors", "words"),
    [({"v": np.ones(3, np.float32)}, "too many"), ({"bias": np.ones((1, 3), np.float32)}, r"shape \[1, 3\]")],
)
def test_a_delta_that_does_not_fit_is_refused(tensors: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        state().plus(AdapterDelta(tensors))
    with pytest.raises(ModelError):
        AdapterState(tensors).minus(state())


def test_norm_and_scale_are_over_all_tensors() -> None:
    adapter_delta = AdapterDelta({"a": np.full(2, 2.0, np.float32), "b": np.full((2, 2), 1e30, np.float32)})
    assert adapter_delta.l2_norm == pytest.approx(2e30)
    assert adapter_delta.scaled(0.5).tensors["a"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_bad_number_is_seen(value: float) -> None:
    bad = np.zeros(3, np.float32)
    bad[1] = value
    assert not AdapterDelta({"bias": bad}).is_finite
    assert AdapterDelta({"bias": np.zeros(3, np.float32)}).is_finite
    with pytest.raises(ModelError, match="finite"):
        AdapterState({**state().tensors, "bias": bad}).check(spec())


def test_check_names_what_does_not_fit() -> None:
    state().check(spec())
    with pytest.raises(ModelError, match="first 'w'"):
        AdapterState({"bias": np.zeros(3, np.float32)}).check(spec())
    with pytest.raises(ModelError, match=r"not \[3\]"):
        AdapterState({**state().tensors, "bias": np.zeros(4, np.float32)}).check(spec())


def test_spec_is_consistent_and_knows_its_parts() -> None:
    assert spec().shapes == {"w": (2, 3), "bias": (3,)}
    assert spec().part("head") == {"w": (2, 3)}
    with pytest.raises(ModelError, match="it has all, head, prior"):
        spec().part("lora")
    wrong: list[Parts] = [{}, {"head": {}}, {"head": {"w": (2,)}, "all": {"w": (3,)}}]
    for parts in wrong:
        with pytest.raises(ModelError):
            spec(parts)


def test_repr_shows_no_numbers() -> None:
    assert repr(state()) == "AdapterState()"
    assert repr(AdapterDelta(state().tensors)) == "AdapterDelta()"
