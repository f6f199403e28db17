"""Order in time, and what the seed may decide."""

import numpy as np
import pytest

from fedrec.data.catalog import ItemCatalog
from fedrec.data.interactions import Interaction, InteractionTable
from fedrec.data.sequences import UserSequence, build_sequences
from fedrec.errors import ConfigError, DataError

N_ITEMS = 12
IDS = tuple(f"i{i}" for i in range(N_ITEMS))
ITEMS = ItemCatalog(IDS, IDS, IDS, ((),) * N_ITEMS, (None,) * N_ITEMS)


def table(rows: list[tuple[str, int, float]]) -> InteractionTable:
    made = (Interaction(user, f"i{item}", None, time, line) for line, (user, item, time) in enumerate(rows, 1))
    return InteractionTable.from_rows(made, ITEMS)


def test_histories_are_whole_oldest_first_in_the_order_of_user_ids() -> None:
    rows = [("b", 3, 30.0), ("a", 5, 1.0), ("b", 1, 10.0), ("b", 2, 20.0), ("b", 1, 40.0)]
    first, second = build_sequences(table(rows), seed=0)
    assert (first.user, first.items.tolist(), first.timestamps.tolist()) == ("a", [5], [1.0])
    assert (second.user, second.items.tolist()) == ("b", [1, 2, 3, 1])
    assert second.timestamps.tolist() == [10.0, 20.0, 30.0, 40.0]
    assert first.items.dtype == np.int32
    assert len(second) == 4


def test_ties_are_shuffled_fairly_by_seed_and_by_user() -> None:
    rows = [(user, item, 7.0) for user in ("a", "b") for item in range(4)]
    orders = [[s.items.tolist() for s in build_sequences(table(rows), seed)] for seed in range(400)]
    assert orders[3] == [s.items.tolist() for s in build_sequences(table(rows), 3)]
    firsts = np.array([[order[0] for order in both] for both in orders])
    # 400 draws of a quarter each: 100 give or take four standard deviations.
    for user in (0, 1):
        assert np.bincount(firsts[:, user], minlength=4) == pytest.approx(100, abs=35)
    # Two users are independent: they agree in one of 24 orders.
    agree = np.mean([both[0] == both[1] for both in orders])
    assert agree == pytest.approx(1 / 24, abs=0.04)


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64 - 1])
def test_any_whole_number_is_a_seed(seed: int) -> None:
    assert build_sequences(table([("a", 0, 1.0)]), seed)[0].items.tolist() == [0]


def test_latest_keeps_the_end() -> None:
    sequence = UserSequence("a", np.array([4, 5, 6], np.int32), np.array([1.0, 2.0, 2.0]))
    assert sequence.latest(2).items.tolist() == [5, 6]
    assert sequence.latest(2).timestamps.tolist() == [2.0, 2.0]
    assert sequence.latest(9).items.tolist() == [4, 5, 6]
    with pytest.raises(ConfigError):
        sequence.latest(0)


@pytest.mark.parametrize(
    ("items", "times"),
    [
        ([1, 2], [2.0, 1.0]),
        ([1, -1], [1.0, 2.0]),
        ([1], [1.0, 2.0]),
        ([[1]], [[1.0]]),
        ([1, 2], [1.0, np.nan]),
    ],
)
def test_sequences_that_are_none_are_refused(items: list[int], times: list[float]) -> None:
    with pytest.raises(DataError):
        UserSequence("SECRET", np.array(items, np.int32), np.array(times))


def test_no_value_is_shown() -> None:
    sequence = UserSequence("SECRET", np.array([1], np.int32), np.array([1.0]))
    assert repr(sequence) == "UserSequence(<private>)"
    with pytest.raises(DataError):
        UserSequence("a", np.array([1], np.int64), np.array([1.0]))
