"""The task of partners' requests: which item somebody took who asked in these words."""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fedrec.query.attributes import Floats
from fedrec.tasks.task import Figures


@dataclass(frozen=True, eq=False)
class TakenItem:
    """Scores are weights of categories; targets are places of the items that were taken. Public.

    Attributes:
        has: float32 `[items, categories]`.
        log_prior: float32 `[items]`: what is taken whatever was asked. It stands beside the words' score, so that the
            head learns what words say and not what everybody takes.
    """

    has: Floats = field(repr=False)
    log_prior: Floats = field(repr=False)
    name: str = "taken"

    @property
    def outputs(self) -> int:
        """One weight a category."""
        return int(self.has.shape[1])

    def losses(self, scores: Tensor, targets: Tensor) -> Tensor:
        """See `Task`: cross-entropy of the item over the whole catalogue, so that no other row is read."""
        logits = scores @ torch.from_numpy(self.has).T.to(scores.dtype) + torch.from_numpy(self.log_prior)
        flat = F.cross_entropy(logits.reshape(-1, len(self.has)), targets.reshape(-1).long(), reduction="none")
        return flat.reshape(targets.shape)

    def predictions(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log-probabilities, `[rows, items]`."""
        logits = scores @ self.has.T.astype(np.float64) + self.log_prior
        return np.asarray(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))

    def figures(
        self,
        targets: NDArray[np.float32],
        predictions: NDArray[np.float64],
        users: NDArray[np.int64],  # noqa: ARG002  # others have figures a user
    ) -> Figures:
        """`log_loss` of the items that were taken."""
        return {"log_loss": float(-predictions[np.arange(len(targets)), targets.astype(int)].mean())}
