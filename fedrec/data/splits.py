"""Each user's history cut in time into training, validation and test."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedrec.data.sequences import UserSequence
from fedrec.errors import ConfigError, DataError


@dataclass(frozen=True, eq=False, repr=False)
class EvaluationSplit:
    """One user's items by what they are for, each part oldest first. Private.

    Attributes:
        user: id.
        train, validation, test: int32 catalogue codes, each may be empty.
    Raises: DataError: a part that is no row of whole numbers.
    """

    user: str
    train: NDArray[np.int32]
    validation: NDArray[np.int32]
    test: NDArray[np.int32]

    def __post_init__(self) -> None:
        for name in ("train", "validation", "test"):
            part = getattr(self, name)
            if part.ndim != 1 or part.dtype != np.int32:
                raise DataError(f"split: {name} is not int32 [n]", "cut a UserSequence")

    def __repr__(self) -> str:
        return "EvaluationSplit(<private>)"

    def history(self, which: Literal["validation", "test"]) -> NDArray[np.int32]:
        """What comes before a part: training for validation, training and validation for the test.

        Raises: ConfigError: any other part.
        """
        match which:
            case "validation":
                return self.train
            case "test":
                return np.concatenate([self.train, self.validation])
            case _:
                raise ConfigError(f"no history before {which!r}", "name validation or test")


def leave_one_out(sequences: Sequence[UserSequence]) -> list[EvaluationSplit]:
    """Protocol B: the latest item is the test, the one before it the validation, in the order of `sequences`.

    Users with fewer than three items go wholly to training.
    """
    return [_cut(sequence, *((1, 1) if len(sequence) >= 3 else (0, 0))) for sequence in sequences]


def split_7_2_1(sequences: Sequence[UserSequence]) -> list[EvaluationSplit]:
    """Protocol split721: 70% training, 20% validation, 10% test, per user by time, rounded towards training.

    Of three items or more, one at least is for validation and one for the test; fewer go wholly to training.
    """
    lengths = [len(sequence) for sequence in sequences]
    sizes = [(max(1, n * 2 // 10), max(1, n // 10)) if n >= 3 else (0, 0) for n in lengths]
    return [_cut(sequence, *size) for sequence, size in zip(sequences, sizes, strict=True)]


def _cut(sequence: UserSequence, n_validation: int, n_test: int) -> EvaluationSplit:
    end = len(sequence) - n_test
    start = end - n_validation
    items = sequence.items
    return EvaluationSplit(sequence.user, items[:start], items[start:end], items[end:])
