"""PFedRec: a score function of each user's own, and item vectors that are shared, then fitted to the user.

Zhang et al., IJCAI 2023, arXiv:2301.08143. Their sampler knew the test item; ours knows the training items only.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from fedrec.data.splits import EvaluationSplit
from fedrec.evaluation.baselines.devices import Devices, seeded_normal
from fedrec.evaluation.protocol import Items, Scores

Move = tuple[Tensor, Tensor]  # each device's items by these multiples `[users, items]` of the function it had then


class Settings(Protocol):
    """Sizes and rates; `PFedRecConfig` is one."""

    @property
    def factors(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def item_learning_rate(self) -> float: ...
    @property
    def negatives(self) -> int: ...
    @property
    def local_steps(self) -> int: ...


class Learnt(NamedTuple):
    """The state of a federation.

    Attributes:
        items: `[items, factors]`, the coordinator's.
        functions: `[users, factors]`, the weights of each device's score function.
        biases: `[users, 1]`.
        logits: `[users, items]`, each device's scores by its own function and its own item vectors.
    """

    items: Tensor
    functions: Tensor
    biases: Tensor
    logits: Tensor


class PFedRec:
    """The federation, a round at a time; every device takes part in every round.

    A device's item vectors differ from the shared ones by a multiple of its function for each sample and step, so those
    multiples are kept instead of a table for each device.

    Args:
        splits: one a user; only training items are learnt from. Private.
        n_items: size of the catalogue.
        settings: sizes and rates, public.
        seed: of first vectors and negatives.
    """

    def __init__(self, splits: Sequence[EvaluationSplit], n_items: int, settings: Settings, seed: int) -> None:
        self.devices, self._settings = Devices.of(splits, n_items), settings
        self._random = np.random.default_rng(seed)
        items = seeded_normal((n_items, settings.factors), 1.0, self._random)
        # As published, all begin with one function.
        functions = seeded_normal((1, settings.factors), settings.factors**-0.5 / 2, self._random)
        functions = functions.repeat(len(splits), 1)
        self.learnt = Learnt(items, functions, torch.zeros(len(splits), 1), functions @ items.T)

    @property
    def bytes_up_per_round(self) -> int:
        """A device sends its item vectors; the score function stays."""
        return 4 * self.learnt.items.numel()

    def train_epoch(self) -> None:
        """One round: each device takes the shared vectors, fits its function, then the vectors; these are averaged."""
        samples = self.devices.had + self.devices.draw_negatives(self._settings.negatives, self._random)
        self.learnt = self.round_of(samples)

    def round_of(self, samples: Tensor) -> Learnt:
        """What a round with these samples, 0/1 `[users, items]`, leads to; each local step reads all of them."""
        items, functions, biases, _ = self.learnt
        rate, item_rate = self._settings.learning_rate, self._settings.item_learning_rate
        moves: list[Move] = []
        for _ in range(self._settings.local_steps):
            wrong = self._errors(self._logits(functions, biases, moves), samples)
            gradient = wrong @ items
            for by, of in moves:
                gradient = gradient + (wrong * by).sum(dim=1, keepdim=True) * of
            functions, biases = functions - rate * gradient, biases - rate * wrong.sum(dim=1, keepdim=True)
            wrong = self._errors(self._logits(functions, biases, moves), samples)
            moves.append((-item_rate * wrong, functions))
        for by, of in moves:
            items = items + by.T @ of / len(functions)
        # The device goes on scoring with its own vectors, not with the average.
        return Learnt(items, functions, biases, self._logits(functions, biases, moves))

    def _logits(self, functions: Tensor, biases: Tensor, moves: Sequence[Move]) -> Tensor:
        """`[users, items]`, by the shared vectors as the round began and what each device has moved them since."""
        logits = functions @ self.learnt.items.T + biases
        for by, of in moves:
            logits = logits + by * (functions * of).sum(dim=1, keepdim=True)
        return logits

    def _errors(self, logits: Tensor, samples: Tensor) -> Tensor:
        """Gradient by the logits of each device's mean binary cross-entropy, `[users, items]`."""
        return samples * (logits.sigmoid() - self.devices.had) / samples.sum(dim=1, keepdim=True).clamp(min=1)

    def score(self, histories: Sequence[Items]) -> Scores:
        """The devices' own logits, float32 `[users, items]`; see `Devices` on who is asked."""
        scores: Scores = self.learnt.logits[self.devices.rows(histories)].numpy()
        return scores

    def snapshot(self) -> Learnt:
        """What has been learnt; a round replaces it, so no copy is needed."""
        return self.learnt

    def restore(self, state: Learnt) -> None:
        """Take it back."""
        self.learnt = state
