"""What a task head learns from: rows of frozen inputs with their targets, grouped by user. Private."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedrec.errors import DataError

_REMEDY = "build them with TaskExamples.of"


@dataclass(frozen=True, eq=False, repr=False)
class TaskExamples:
    """Examples of some users. Private.

    Attributes:
        inputs: float32 `[rows, width]`, finite: made by a frozen model, public data or the user's own rows.
        targets: float32 `[rows]`, finite; a class is its number.
        user_of_row: int64 `[rows]`, 0 to `n_users - 1`, rising: a user's rows stand together, and each has one.
        weights: float32 `[rows]`, how much each row counts in its user's mean; 0: not at all, since nobody said its
            target.
    Raises: DataError: arrays that do not fit each other, or a number that is not finite.
    """

    inputs: NDArray[np.float32]
    targets: NDArray[np.float32]
    user_of_row: NDArray[np.int64]
    weights: NDArray[np.float32]

    def __post_init__(self) -> None:
        if problems := _problems(self.inputs, self.targets, self.user_of_row, self.weights):
            raise DataError.of_all(problems, _REMEDY, "task examples")

    def __repr__(self) -> str:
        return "TaskExamples(<private>)"

    @classmethod
    def of(
        cls, inputs: NDArray[Any], targets: NDArray[Any], users: NDArray[Any], weights: NDArray[Any] | None = None
    ) -> "TaskExamples":
        """Group rows by user; a user's rows stay in their order.

        Args:
            inputs: `[rows, width]`; targets, users: `[rows]`, users by any id that can be sorted.
            weights: `[rows]`; None: all rows count alike.
        Raises: DataError: lengths that differ, or a number that is not finite in float32.
        """
        weights = np.ones(len(targets)) if weights is None else weights
        if not len(inputs) == len(targets) == len(users) == len(weights):
            raise DataError("task examples: inputs, targets and users have different lengths", _REMEDY)
        _, places = np.unique(users, return_inverse=True)
        order = np.argsort(places, kind="stable")
        kept = np.asarray(inputs, np.float32)[order], np.asarray(targets, np.float32)[order]
        return cls(*kept, places[order].astype(np.int64), np.asarray(weights, np.float32)[order])

    @property
    def n_users(self) -> int:
        """Users, each with a row or more."""
        return int(self.user_of_row[-1]) + 1 if len(self.user_of_row) else 0

    @property
    def n_rows(self) -> int:
        """Rows of all users."""
        return len(self.targets)

    @property
    def width(self) -> int:
        """Numbers of an input."""
        return int(self.inputs.shape[1])

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Where each user's rows begin, and the end, int64 `[users + 1]`."""
        return np.searchsorted(self.user_of_row, np.arange(self.n_users + 1)).astype(np.int64)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over everything; keys a partner's noise and never leaves it."""
        digest = hashlib.sha256(repr(self.inputs.shape).encode())
        for array in (self.inputs, self.targets, self.user_of_row, self.weights):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def of_users(self, places: Sequence[int] | NDArray[np.int64]) -> "TaskExamples":
        """The rows of some users, in rising order of their places."""
        return self.of_rows(np.isin(self.user_of_row, places))

    def of_rows(self, chosen: NDArray[Any]) -> "TaskExamples":
        """Some of the rows, by a mask or by places; users without any are gone."""
        return TaskExamples.of(
            self.inputs[chosen], self.targets[chosen], self.user_of_row[chosen], self.weights[chosen]
        )


@dataclass(frozen=True, eq=False, repr=False)
class TaskBatch:
    """Some users' rows, padded. Private.

    Attributes:
        inputs: float32 `[users, rows, width]`, zero on padding.
        targets: float32 `[users, rows]`.
        weights: float32 `[users, rows]`: each row's share of its user's mean, zero on padding, so that sums are means
            a user.
    """

    inputs: Tensor = field(repr=False)
    targets: Tensor = field(repr=False)
    weights: Tensor = field(repr=False)


def batches_of(
    examples: TaskExamples, users: NDArray[np.int64], *, most_rows: int, batch_users: int, fixed: bool
) -> Iterator[TaskBatch]:
    """Split `users` into batches.

    Args:
        most_rows: of a user that are read, the last ones.
        fixed: every batch has the public shape `[batch_users, most_rows]`, whoever is in it, as private steps need:
            other shapes move last bits, which no clipping bounds (see `fedrec.training.batches.fixed_batches`).
    """
    for start in range(0, len(users), batch_users):
        chosen = users[start : start + batch_users]
        lengths = np.minimum(examples.starts[chosen + 1] - examples.starts[chosen], most_rows)
        shape = (batch_users, most_rows) if fixed else (len(chosen), int(lengths.max(initial=1)))
        yield _padded(examples, chosen, lengths, shape)


def _padded(
    examples: TaskExamples, users: NDArray[np.int64], lengths: NDArray[np.int64], shape: tuple[int, int]
) -> TaskBatch:
    inputs = np.zeros((*shape, examples.width), np.float32)
    targets, weights = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    place = np.arange(shape[1])[None, :] < lengths[:, None]
    rows = (examples.starts[users + 1] - lengths)[:, None] + np.arange(shape[1])[None, :]
    inputs[: len(users)][place] = examples.inputs[rows[place]]
    targets[: len(users)][place] = examples.targets[rows[place]]
    weights[: len(users)][place] = examples.weights[rows[place]]
    # Whose rows have no target costs nothing, and says nothing.
    weights /= np.maximum(weights.sum(1, keepdims=True), np.float32(1e-9))
    return TaskBatch(*map(torch.from_numpy, (inputs, targets, weights)))


def _problems(
    inputs: NDArray[Any], targets: NDArray[Any], user_of_row: NDArray[Any], weights: NDArray[Any]
) -> list[str]:
    """What is wrong, in words without values."""
    wrong = [
        (inputs.ndim != 2 or inputs.dtype != np.float32, "inputs are not float32 [rows, width]"),
        (targets.ndim != 1 or targets.dtype != np.float32, "targets are not float32 [rows]"),
        (user_of_row.ndim != 1 or user_of_row.dtype != np.int64, "user_of_row is not int64 [rows]"),
        (weights.ndim != 1 or weights.dtype != np.float32, "weights are not float32 [rows]"),
        (not len(inputs) == len(targets) == len(user_of_row) == len(weights), "their lengths differ"),
    ]
    if problems := [words for is_wrong, words in wrong if is_wrong]:
        return problems
    places = np.unique(user_of_row)
    if not np.array_equal(places, np.arange(len(places))) or (np.diff(user_of_row) < 0).any():
        problems.append("user_of_row does not rise from 0 without a gap")
    if not (np.isfinite(inputs).all() and np.isfinite(targets).all() and np.isfinite(weights).all()):
        problems.append("a number is not finite")
    if (weights < 0).any():
        problems.append("a weight is negative")
    return problems
