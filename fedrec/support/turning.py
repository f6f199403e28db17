"""A small turn of requests towards answers: a task head whose scores are judged against published answers.

The head is a matrix of few directions of the answers' vectors, so that few numbers are noised. It is trained by the
machinery of every task head; one past request with the answer that it got is one unit.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fedrec.model.adapter import AdapterState
from fedrec.model.sentences import Vectors
from fedrec.tasks.head import PART, HeadShape, TaskHead, head_state
from fedrec.tasks.task import Figures


def directions(answers: Vectors, n: int) -> Vectors:
    """The `n` directions in which published answers differ most, `[n, width]`. Public."""
    _, _, rows = np.linalg.svd(answers, full_matrices=False)
    kept: Vectors = rows[:n].astype(np.float32)
    return kept


@dataclass(frozen=True, eq=False)
class MatchTask:
    """Scores are a request's place among `answers`; targets are places of the answers that they got.

    Attributes:
        answers: published, float32 `[answers, directions]`. Public.
        sharpness: multiplies the products before the softmax.
    """

    answers: Vectors = field(repr=False)
    sharpness: float = 20.0
    name: str = "match"

    @property
    def outputs(self) -> int:
        """Directions."""
        return int(self.answers.shape[1])

    def losses(self, scores: Tensor, targets: Tensor) -> Tensor:
        """See `Task`: cross-entropy over every published answer, so that no other private row is read."""
        logits = self.sharpness * scores @ torch.from_numpy(self.answers).T.to(scores.dtype)
        flat = F.cross_entropy(logits.reshape(-1, len(self.answers)), targets.reshape(-1).long(), reduction="none")
        return flat.reshape(targets.shape)

    def predictions(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Products with the answers, `[rows, answers]`."""
        return np.asarray(scores @ self.answers.T)

    def figures(
        self,
        targets: NDArray[np.float32],
        predictions: NDArray[np.float64],
        users: NDArray[np.int64],  # noqa: ARG002  # others have figures a user
    ) -> Figures:
        """`recall@1`."""
        return {"recall@1": float(np.mean(predictions.argmax(1) == targets.astype(int)))}


def untrained(n: int) -> tuple[HeadShape, AdapterState]:
    """A head that turns nothing: the identity."""
    head = TaskHead(HeadShape(n, n))
    with torch.no_grad():
        head.outer.weight.copy_(torch.eye(n))
    return head.shape, head_state(head)


def turn_of(state: AdapterState, basis: Vectors) -> tuple[Vectors, Vectors]:
    """A trained head as `Matching.turn` and `Matching.shift`.

    Args:
        basis: of `directions`.
    """
    weight, bias = state.tensors[f"{PART}.outer.weight"], state.tensors[f"{PART}.outer.bias"]
    turn: Vectors = (basis.T @ (weight - np.eye(len(basis), dtype=np.float32)) @ basis).astype(np.float32)
    shift: Vectors = (bias @ basis).astype(np.float32)
    return turn, shift
