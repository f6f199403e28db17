"""Will they like it: one score through a sigmoid, binary cross-entropy."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fedrec.tasks.task import Figures

_THRESHOLD = 0.5
_EPS = 1e-7


@dataclass(frozen=True)
class Click:
    """Targets are 0 or 1."""

    name: str = "click"
    outputs: int = 1

    def losses(self, scores: Tensor, targets: Tensor) -> Tensor:
        """See `Task`."""
        return F.binary_cross_entropy_with_logits(scores.squeeze(-1), targets, reduction="none")

    def predictions(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """The probability of a like, `[rows]`."""
        return 0.5 * (1.0 + np.tanh(0.5 * scores[:, 0]))

    def figures(
        self, targets: NDArray[np.float32], predictions: NDArray[np.float64], users: NDArray[np.int64]
    ) -> Figures:
        """`auc` over all rows, `user_auc` as mean over users who have both, `log_loss`, and those of a yes at .5."""
        from sklearn.metrics import accuracy_score, f1_score, log_loss, precision_score, recall_score, roc_auc_score

        truth, said = targets.astype(int), (predictions >= _THRESHOLD).astype(int)
        figures = {
            "log_loss": log_loss(truth, np.clip(predictions, _EPS, 1 - _EPS), labels=[0, 1]),
            "accuracy": accuracy_score(truth, said),
            "precision": precision_score(truth, said, zero_division=0),
            "recall": recall_score(truth, said, zero_division=0),
            "f1": f1_score(truth, said, zero_division=0),
        }
        if 0 < truth.sum() < len(truth):
            figures["auc"] = roc_auc_score(truth, predictions)
        of_users = [
            roc_auc_score(truth[rows], predictions[rows])
            for rows in (users == user for user in np.unique(users))
            if 0 < truth[rows].sum() < rows.sum()
        ]
        if of_users:
            figures["user_auc"] = np.mean(of_users)
        return {name: float(value) for name, value in sorted(figures.items())}
