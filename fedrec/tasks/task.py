"""What a task is: how scores are judged while training, what they mean, and how well they did."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Figures = dict[str, float]


class Task(Protocol):
    """One kind of question. Its losses are one number a row; who sums them takes a mean a user, never of a batch."""

    @property
    def name(self) -> str:
        """Of the task."""

    @property
    def outputs(self) -> int:
        """Numbers of a score."""

    def losses(self, scores: Tensor, targets: Tensor) -> Tensor:
        """Float32 `[..., outputs]` and `[...]` -> `[...]`: of each row alone."""

    def predictions(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """What scores `[rows, outputs]` say: a probability or a rating `[rows]`, or probabilities `[rows, classes]`."""

    def figures(
        self, targets: NDArray[np.float32], predictions: NDArray[np.float64], users: NDArray[np.int64]
    ) -> Figures:
        """How good predictions are; a figure that the rows do not define is left out.

        Args:
            targets: `[rows]`; users: int64 `[rows]`, for figures that are means over users.
        """
