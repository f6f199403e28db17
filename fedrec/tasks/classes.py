"""Which of several: one score a class through a softmax, cross-entropy."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fedrec.errors import ConfigError
from fedrec.tasks.task import Figures

_EPS = 1e-7


@dataclass(frozen=True)
class Classes:
    """Targets are places in `labels`.

    Attributes:
        labels: of the classes, public.
    Raises: ConfigError: fewer than two, or one twice.
    """

    labels: tuple[str, ...]
    name: str = "classes"

    def __post_init__(self) -> None:
        if len(self.labels) < 2 or len(set(self.labels)) != len(self.labels):
            raise ConfigError("a task of classes needs two labels or more, each once", "mend the labels")

    @property
    def outputs(self) -> int:
        """One score a class."""
        return len(self.labels)

    def losses(self, scores: Tensor, targets: Tensor) -> Tensor:
        """See `Task`."""
        flat = F.cross_entropy(scores.reshape(-1, self.outputs), targets.reshape(-1).long(), reduction="none")
        return flat.reshape(targets.shape)

    def predictions(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities, `[rows, classes]`."""
        powers = np.exp(scores - scores.max(1, keepdims=True))
        return np.asarray(powers / powers.sum(1, keepdims=True))

    def figures(
        self,
        targets: NDArray[np.float32],
        predictions: NDArray[np.float64],
        users: NDArray[np.int64],  # noqa: ARG002  # others have figures a user
    ) -> Figures:
        """`accuracy`, `log_loss`, and precision, recall and F1 as means over the classes (`f1` is macro F1)."""
        from sklearn.metrics import accuracy_score, log_loss, precision_recall_fscore_support

        truth, every = targets.astype(int), list(range(self.outputs))
        said = predictions.argmax(1)
        precision, recall, f1, _ = precision_recall_fscore_support(
            truth, said, labels=every, average="macro", zero_division=0
        )
        clipped = np.clip(predictions, _EPS, 1.0)
        figures = {
            "accuracy": accuracy_score(truth, said),
            "f1": f1,
            "log_loss": log_loss(truth, clipped / clipped.sum(1, keepdims=True), labels=every),
            "precision": precision,
            "recall": recall,
        }
        return {name: float(value) for name, value in figures.items()}

    def report(self, targets: NDArray[np.float32], predictions: NDArray[np.float64]) -> str:
        """scikit-learn's classification report, a line a class."""
        from sklearn.metrics import classification_report

        every = list(range(self.outputs))
        said = predictions.argmax(1)
        return str(
            classification_report(
                targets.astype(int), said, labels=every, target_names=self.labels, zero_division=0, digits=3
            )
        )
