"""Who goes to training, validation and test."""

import numpy as np
import pytest

from fedrec.config import ProtocolName
from fedrec.data.sequences import UserSequence
from fedrec.data.splits import (
    EvaluationSplit,
    global_time,
    leave_one_out,
    random_8_1_1,
    split_7_2_1,
    split_by,
    stratified_by_item,
)
from fedrec.errors import ConfigError, DataError


def sequence(n: int) -> UserSequence:
    return UserSequence(f"u{n}", np.arange(10, 10 + n, dtype=np.int32), np.arange(n, dtype=np.float64))


def parts(split: EvaluationSplit) -> list[list[int]]:
    return [split.train.tolist(), split.validation.tolist(), split.test.tolist()]


def test_leave_one_out_takes_the_two_latest_of_three_or_more() -> None:
    found = leave_one_out([sequence(n) for n in (4, 1, 3, 2)])
    assert [split.user for split in found] == ["u4", "u1", "u3", "u2"]
    assert parts(found[0]) == [[10, 11], [12], [13]]
    assert parts(found[1]) == [[10], [], []]
    assert parts(found[2]) == [[10], [11], [12]]
    assert parts(found[3]) == [[10, 11], [], []]


@pytest.mark.parametrize(
    ("n", "sizes"),
    [
        (1, (1, 0, 0)),
        (2, (2, 0, 0)),
        (3, (1, 1, 1)),
        (9, (7, 1, 1)),
        (10, (7, 2, 1)),
        (19, (15, 3, 1)),
        (20, (14, 4, 2)),
    ],
)
def test_seven_two_one_by_time(n: int, sizes: tuple[int, int, int]) -> None:
    (found,) = split_7_2_1([sequence(n)])
    assert tuple(map(len, parts(found))) == sizes
    assert [item for part in parts(found) for item in part] == sequence(n).items.tolist()


def test_what_comes_before_a_part() -> None:
    (found,) = leave_one_out([sequence(4)])
    assert found.history("validation").tolist() == [10, 11]
    assert found.history("test").tolist() == [10, 11, 12]
    assert found.history("test").dtype == np.int32
    with pytest.raises(ConfigError):
        found.history("train")  # type: ignore[arg-type]


def test_parts_are_codes_and_not_shown() -> None:
    codes = np.array([1], np.int32)
    assert repr(EvaluationSplit("SECRET", codes, codes, codes)) == "EvaluationSplit(<private>)"
    for wrong in (np.array([1.0]), np.array([[1]], np.int32), np.array(1, np.int32)):
        with pytest.raises(DataError, match="test is not int32"):
            EvaluationSplit("u", codes, codes, wrong)


def test_a_history_is_of_training_and_validation_items() -> None:
    codes = {name: np.array([code], np.int32) for code, name in enumerate(("train", "validation", "test"))}
    assert EvaluationSplit("u", **codes, before_test=np.array([1, 0], np.int32)).history("test").tolist() == [1, 0]
    for wrong in (np.array([0, 2], np.int32), np.array([0], np.int32), np.array([0, 1])):
        with pytest.raises(DataError, match="before_test is not training and validation"):
            EvaluationSplit("u", **codes, before_test=wrong)


@pytest.mark.parametrize(
    ("n", "sizes"),
    [(0, (0, 0, 0)), (2, (2, 0, 0)), (3, (1, 1, 1)), (19, (17, 1, 1)), (20, (16, 2, 2)), (59, (49, 5, 5))],
)
def test_random_eight_one_one(n: int, sizes: tuple[int, int, int]) -> None:
    (found,) = random_8_1_1([sequence(n)], seed=1)
    assert tuple(map(len, parts(found))) == sizes


def test_each_place_is_as_often_asked_for_under_a() -> None:
    users = [UserSequence(f"u{u}", np.arange(20, dtype=np.int32), np.arange(20.0)) for u in range(600)]
    for part in ("validation", "test"):
        drawn = np.concatenate([getattr(split, part) for split in random_8_1_1(users, seed=1)])
        # 60 expected of each; the standard deviation is 7.3.
        assert abs(np.bincount(drawn, minlength=20) - 60).max() < 30
    first, second = ([parts(split) for split in random_8_1_1(users, seed)] for seed in (1, 2))
    assert first != second


@pytest.mark.parametrize(
    ("n_users", "sizes"), [(1, (1, 0, 0)), (2, (2, 0, 0)), (3, (2, 0, 1)), (10, (7, 1, 2)), (100, (67, 8, 25))]
)
def test_by_item_each_items_users_are_divided(n_users: int, sizes: tuple[int, int, int]) -> None:
    users = [UserSequence(f"u{u}", np.array([3, 5], np.int32), np.arange(2.0)) for u in range(n_users)]
    found = stratified_by_item(users, seed=1)
    for item in (3, 5):
        assert tuple(sum(item in getattr(s, part) for s in found) for part in ("train", "validation", "test")) == sizes
    if n_users == 100:  # two items are drawn independently
        both = sum(len(split.test) == 2 for split in found)
        assert 0 < both < 20


def test_two_moments_for_everybody() -> None:
    early = UserSequence("early", np.arange(5, dtype=np.int32), np.arange(5.0))
    late = UserSequence("late", np.arange(5, dtype=np.int32), np.arange(5.0, 10.0))
    found = global_time([late, early])
    assert parts(found[0]) == [[0, 1, 2], [3], [4]]
    assert parts(found[1]) == [[0, 1, 2, 3, 4], [], []]
    # Rows of one moment stay together: here the last two, and nothing is left for validation.
    tied = UserSequence("tied", np.arange(10, dtype=np.int32), np.array([*range(8), 8.0, 8.0]))
    assert parts(global_time([tied])[0]) == [list(range(8)), [8, 9], []]
    assert global_time([]) == []


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown protocol 'C'"):
        split_by("C", [sequence(4)], seed=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("protocol", ["A", "D"])
def test_drawn_parts_tell_nothing_of_time(protocol: ProtocolName) -> None:
    users = [UserSequence(f"u{n}", np.arange(40, dtype=np.int32), np.arange(40.0)) for n in range(30)]
    found = split_by(protocol, users, seed=3)
    assert [s.train.tolist() for s in found] == [s.train.tolist() for s in split_by(protocol, users, seed=3)]
    for one in found:
        for part in (one.train, one.history("test")):
            assert not np.array_equal(part, np.sort(part))
    # The last item of a history is as old as any other.
    assert 10 < np.mean([one.history("test")[-1] for one in found]) < 30
