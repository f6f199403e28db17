"""Who goes to training, validation and test."""

import numpy as np
import pytest

from fedrec.data.sequences import UserSequence
from fedrec.data.splits import EvaluationSplit, leave_one_out, split_7_2_1
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
