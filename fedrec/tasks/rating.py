"""How many stars: one score above or below the middle of the scale, squared error."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedrec.errors import ConfigError
from fedrec.tasks.task import Figures


@dataclass(frozen=True)
class Rating:
    """Targets are ratings.

    Attributes:
        low, high: of the scale, public; predictions are held within it.
    Raises: ConfigError: low is not below high.
    """

    low: float = 1.0
    high: float = 5.0
    name: str = "rating"
    outputs: int = 1

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ConfigError(f"a scale from {self.low:g} to {self.high:g}", "let low be below high")

    @property
    def middle(self) -> float:
        """What a score of zero stands for."""
        return (self.low + self.high) / 2

    def losses(self, scores: Tensor, targets: Tensor) -> Tensor:
        """See `Task`."""
        return (scores.squeeze(-1) + self.middle - targets).square() / 2

    def predictions(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Ratings, `[rows]`."""
        return np.asarray(np.clip(scores[:, 0] + self.middle, self.low, self.high))

    def figures(
        self,
        targets: NDArray[np.float32],
        predictions: NDArray[np.float64],
        users: NDArray[np.int64],  # noqa: ARG002  # others have figures a user
    ) -> Figures:
        """`rmse`, `mae` and `r2` over all rows."""
        from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

        figures = {
            "mae": mean_absolute_error(targets, predictions),
            "rmse": root_mean_squared_error(targets, predictions),
        }
        if len(targets) > 1:
            figures["r2"] = r2_score(targets, predictions)
        return {name: float(value) for name, value in figures.items()}
