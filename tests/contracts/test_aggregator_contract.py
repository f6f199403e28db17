"""What every aggregator must do, whatever it does with honest updates."""

from itertools import permutations

import numpy as np
import pytest

from fedrec.aggregation.mean import Aggregator, PartnerUpdate, PublicWeights, UniformMean
from fedrec.errors import ConfigError, ProtocolError
from fedrec.model.adapter import AdapterDelta

NAMES = ("anna", "bert", "carl", "dora")
AGGREGATORS = [
    pytest.param(UniformMean(), id="uniform"),
    pytest.param(PublicWeights({"anna": 1.0, "bert": 2.5, "carl": 0.1, "dora": 7.0}), id="public-weights"),
]
every_aggregator = pytest.mark.parametrize("aggregator", AGGREGATORS)


def update(partner: str, *values: float, name: str = "w") -> PartnerUpdate:
    return PartnerUpdate(partner, AdapterDelta({name: np.array(values, np.float32)}))


def honest() -> list[PartnerUpdate]:
    """Numbers whose float32 sum depends on the order."""
    values = [(1e8, 0.1), (1.0, 0.2), (-1e8, 0.3), (3.0, -0.7)]
    return [update(name, *pair) for name, pair in zip(NAMES, values, strict=True)]


@every_aggregator
def test_order_does_not_matter_to_the_last_bit(aggregator: Aggregator) -> None:
    hashes = {aggregator.aggregate(order).hash for order in permutations(honest())}
    assert len(hashes) == 1


@every_aggregator
def test_adding_them_up_as_they_come_gives_the_same_bits(aggregator: Aggregator) -> None:
    for updates in (honest(), honest()[1:3], [update("anna", -0.0)]):
        running = aggregator.running()
        for one in updates:
            running.add(one)
        assert running.result().hash == aggregator.aggregate(updates).hash


@every_aggregator
@pytest.mark.parametrize(
    ("late", "words"),
    [
        (update("anna", 1.0), "comes after a later name"),
        (update("bert", 1.0), "stands here twice"),
        (update("carl", 1.0, 2.0), "'w' has shape"),
        (update("carl", float("nan")), "not finite"),
    ],
)
def test_what_does_not_follow_is_refused_and_changes_nothing(
    aggregator: Aggregator, late: PartnerUpdate, words: str
) -> None:
    running = aggregator.running()
    running.add(update("bert", 1.0))
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


@every_aggregator
def test_one_partner_is_its_own_aggregate(aggregator: Aggregator) -> None:
    one = update("carl", 0.1, -2.0)
    assert aggregator.aggregate([one]).hash == one.adapter_delta.hash


@every_aggregator
def test_the_aggregate_lies_between_the_updates(aggregator: Aggregator) -> None:
    result = aggregator.aggregate([update("anna", -1.0, 0.0), update("bert", 2.0, 5.0)]).tensors["w"]
    assert -1 < result[0] < 2
    assert 0 < result[1] < 5


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
