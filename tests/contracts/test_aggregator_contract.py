"""What every aggregator must do, whatever it does with honest updates, and what the robust ones do with others."""

import random

import numpy as np
import pytest

from fedrec.aggregation.mean import Aggregator, PartnerUpdate, PublicWeights, UniformMean
from fedrec.aggregation.nested import NestedMean
from fedrec.aggregation.robust import RobustAggregator, aggregator_of
from fedrec.defence import AggregatorName, Defence
from fedrec.errors import ConfigError, ProtocolError
from fedrec.model.adapter import AdapterDelta

NAMES = ("anna", "bert", "carl", "dora", "emil", "fred", "gina")
ROBUST: tuple[AggregatorName, ...] = ("median", "trimmed-mean", "geometric-median", "multi-krum", "norm-clipping")
WEIGHTS = dict(zip(NAMES, (1.0, 2.5, 0.1, 7.0, 0.3, 4.0, 1.0), strict=True))


def robust(name: AggregatorName, hostile: int, clip_norm: float = 0.0) -> RobustAggregator:
    return RobustAggregator(Defence(aggregator=name, hostile=hostile, clip_norm=clip_norm))


AGGREGATORS = [
    pytest.param(UniformMean(), id="uniform"),
    pytest.param(PublicWeights(WEIGHTS), id="public-weights"),
    pytest.param(NestedMean(dict.fromkeys(NAMES, 2)), id="nested"),
    *(pytest.param(robust(name, 1), id=name) for name in ROBUST),
    pytest.param(robust("norm-clipping", 1, 1e31), id="norm-clipping-fixed"),
]
BEARING_NOBODY = [pytest.param(robust(name, 0), id=f"{name}-0") for name in ROBUST]
every_aggregator = pytest.mark.parametrize("aggregator", AGGREGATORS)
every_robust_one = pytest.mark.parametrize("name", ROBUST)


def update(partner: str, *values: float, name: str = "w") -> PartnerUpdate:
    return PartnerUpdate(partner, AdapterDelta({name: np.array(values, np.float32)}))


def honest() -> list[PartnerUpdate]:
    """Numbers whose float32 sum depends on the order."""
    values = [(1e8, 0.1), (1.0, 0.2), (-1e8, 0.3), (3.0, -0.7), (1e8, 0.7), (-3e7, 0.11), (5.0, 0.13)]
    return [update(name, *pair) for name, pair in zip(NAMES, values, strict=True)]


def ones(names: tuple[str, ...]) -> list[PartnerUpdate]:
    return [update(name, 1.0) for name in names]


@every_aggregator
def test_order_does_not_matter_to_the_last_bit(aggregator: Aggregator) -> None:
    orders = [random.Random(number).sample(honest(), len(NAMES)) for number in range(40)]
    assert len({aggregator.aggregate(order).hash for order in orders}) == 1


@every_aggregator
def test_adding_them_up_as_they_come_gives_the_same_bits(aggregator: Aggregator) -> None:
    for updates in (honest(), honest()[1:6], [update(name, -0.0) for name in NAMES]):
        running = aggregator.running()
        for one in updates:
            running.add(one)
        assert running.result().hash == aggregator.aggregate(updates).hash


@every_aggregator
@pytest.mark.parametrize(
    ("late", "words"),
    [
        (update("anna", 1.0), "comes after a later name"),
        (update("fred", 1.0), "stands here twice"),
        (update("gina", 1.0, 2.0), "'w' has shape"),
        (update("gina", float("nan")), "not finite"),
    ],
)
def test_what_does_not_follow_is_refused_and_changes_nothing(
    aggregator: Aggregator, late: PartnerUpdate, words: str
) -> None:
    running = aggregator.running()
    for one in ones(NAMES[1:6]):
        running.add(one)
    with pytest.raises(ProtocolError, match=words):
        running.add(late)
    assert running.result().tensors["w"].tolist() == [1.0]
    with pytest.raises(ProtocolError, match="no updates"):
        aggregator.running().result()


@every_aggregator
def test_identical_updates_are_their_own_aggregate(aggregator: Aggregator) -> None:
    values = [0.1, -3.3e-20, 1e30]
    same = aggregator.aggregate([update(name, *values) for name in NAMES])
    assert same.tensors["w"].tolist() == np.array(values, np.float32).tolist()
    assert same.tensors["w"].dtype == np.float32


@pytest.mark.parametrize("aggregator", [*AGGREGATORS, *BEARING_NOBODY])
def test_one_partner_is_its_own_aggregate_or_too_few(aggregator: Aggregator) -> None:
    one = update("carl", 0.1, -2.0)
    if aggregator.least_answers == 1:
        assert aggregator.aggregate([one]).hash == one.adapter_delta.hash
    else:
        with pytest.raises(ProtocolError, match=f"needs {aggregator.least_answers} answers, there are 1"):
            aggregator.aggregate([one])


@every_aggregator
def test_as_many_answers_as_it_needs_are_enough_and_one_fewer_is_refused(aggregator: Aggregator) -> None:
    least = aggregator.least_answers
    assert aggregator.aggregate(ones(NAMES[:least])).tensors["w"].tolist() == [1.0]
    with pytest.raises(ProtocolError, match="no updates" if least == 1 else f"there are {least - 1}"):
        aggregator.aggregate(ones(NAMES[: least - 1]))


@every_aggregator
def test_the_aggregate_lies_between_the_updates(aggregator: Aggregator) -> None:
    updates = [update(name, -1.0 + place, 5.0 * place) for place, name in enumerate(NAMES)]
    result = aggregator.aggregate(updates).tensors["w"]
    assert -1 < result[0] < 5
    assert 0 < result[1] < 30


@every_aggregator
def test_tensors_come_back_in_their_shapes(aggregator: Aggregator) -> None:
    tensors = {
        "b": np.arange(6, dtype=np.float32).reshape(2, 3),
        "a": np.float32([[9.0]]),
        "c": np.zeros(0, np.float32),
    }
    same = aggregator.aggregate([PartnerUpdate(name, AdapterDelta(tensors)) for name in NAMES])
    assert {name: tensor.tolist() for name, tensor in same.tensors.items()} == {
        name: tensor.tolist() for name, tensor in tensors.items()
    }


@every_aggregator
def test_updates_are_left_as_they_were(aggregator: Aggregator) -> None:
    updates = honest()
    aggregator.aggregate(updates)
    assert [u.adapter_delta.hash for u in updates] == [u.adapter_delta.hash for u in honest()]


@every_aggregator
@pytest.mark.parametrize(
    ("updates", "words"),
    [
        ([], "no updates"),
        ([update("anna", 1.0), update("bert", 1.0, 2.0)], "partner bert: 'w' has shape"),
        ([update("anna", 1.0), update("bert", 1.0, name="v")], "partner bert: 1 tensors missing"),
        ([update("anna", 1.0), update("bert", float("nan"))], "partner bert: not finite"),
        ([update("anna", float("inf")), update("bert", 1.0)], "partner anna: not finite"),
        ([update("bert", 1.0), update("anna", 1.0), update("bert", 1.0)], "partner bert: stands here twice"),
    ],
)
def test_what_cannot_be_added_is_refused_by_name(
    aggregator: Aggregator, updates: list[PartnerUpdate], words: str
) -> None:
    with pytest.raises(ProtocolError, match=words):
        aggregator.aggregate(updates)


def around_one(n: int) -> np.ndarray:
    """Honest answers: 0.9 to 1.1 in each of five numbers."""
    return np.random.default_rng(3).uniform(0.9, 1.1, (n, 5)).astype(np.float32)


def with_hostile(bad: np.ndarray, hostile: int, place: int) -> list[PartnerUpdate]:
    """Seven answers, of which those from `place` on, around the end, are hostile and alike."""
    rows = around_one(len(NAMES))
    rows[[(place + k) % len(NAMES) for k in range(hostile)]] = bad
    return [update(name, *row) for name, row in zip(NAMES, rows, strict=True)]


@every_robust_one
@pytest.mark.parametrize("hostile", [1, 2])
@pytest.mark.parametrize("place", [0, 3, 6])
@pytest.mark.parametrize(
    "bad",
    [
        np.float32([3e38, -3e38, 3e38, 3e38, -3e38]),
        np.float32([-1e6] * 5),
        np.float32([0, 0, 1e12, 0, 0]),
        np.float32([-1, -1, -1, -1, -1]),
    ],
    ids=["huge", "opposed", "one number", "turned round"],
)
def test_what_the_hostile_send_moves_the_result_little(
    name: AggregatorName, hostile: int, place: int, bad: np.ndarray
) -> None:
    """The honest lie within 0.1 of 1; a mean follows the hostile as far as they like."""
    updates = with_hostile(bad, hostile, place)
    moved = np.abs(robust(name, hostile).aggregate(updates).tensors["w"] - 1).max()
    # Clipping leaves the hostile their direction, at the honest ones' length: each takes 2 of 7 parts from the mean.
    assert moved < (0.1 if name != "norm-clipping" else 0.1 + 0.5 * hostile)
    if np.abs(bad).max() > 1:
        assert np.abs(UniformMean().aggregate(updates).tensors["w"] - 1).max() > 1e4


@every_robust_one
def test_more_hostile_than_it_bears_may_do_as_they_like(name: AggregatorName) -> None:
    """So that the bound above says something: four of seven alike decide."""
    updates = with_hostile(np.float32([-1e6] * 5), 4, 0)
    moved = robust(name, 1).aggregate(updates).tensors["w"]
    assert np.abs(moved - 1).max() > 1e3


def test_a_choice_makes_its_aggregator() -> None:
    assert isinstance(aggregator_of(Defence()), UniformMean)
    assert aggregator_of(Defence(aggregator="median", hostile=2)).least_answers == 5
    assert aggregator_of(Defence(aggregator="multi-krum", hostile=2)).least_answers == 7
    with pytest.raises(ConfigError, match="no robust aggregator"):
        RobustAggregator(Defence())


def test_the_uniform_mean_is_the_mean() -> None:
    expected = np.mean([u.adapter_delta.tensors["w"].astype(np.float64) for u in honest()], axis=0)
    result = UniformMean().aggregate(honest()).tensors["w"]
    np.testing.assert_array_equal(result, expected.astype(np.float32))


def test_public_weights_are_relative_to_those_who_answered() -> None:
    weights = PublicWeights({"anna": 3.0, "bert": 1.0, "carl": 100.0})
    result = weights.aggregate([update("anna", 1.0), update("bert", 5.0)])
    assert result.tensors["w"].tolist() == [2.0]
    with pytest.raises(ProtocolError, match="dora: has no weight"):
        weights.aggregate([update("dora", 1.0)])


@pytest.mark.parametrize("weights", [{}, {"anna": 0.0}, {"anna": -1.0}, {"anna": float("nan")}])
def test_weights_that_are_none_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        PublicWeights(weights)
