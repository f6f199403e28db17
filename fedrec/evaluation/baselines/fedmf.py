"""FedMF: user factors stay on the devices, the coordinator adds up gradients of item factors.

Chai et al. 2020, arXiv:1906.05108, without its encryption, which changes no figure. Theirs are ratings; here an item of
the user counts 1 and sampled negatives 0.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from torch import Tensor

from fedrec.data.splits import EvaluationSplit
from fedrec.evaluation.baselines.devices import Devices, seeded_normal
from fedrec.evaluation.protocol import Items, Scores


class Settings(Protocol):
    """Sizes and rates; `FedMFConfig` is one."""

    @property
    def factors(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def item_learning_rate(self) -> float: ...
    @property
    def l2(self) -> float: ...
    @property
    def negatives(self) -> int: ...
    @property
    def local_steps(self) -> int: ...


State = tuple[Tensor, Tensor]


class FedMF:
    """The federation, a round at a time; every device takes part in every round.

    Args:
        splits: one a user; only training items are learnt from. Private.
        n_items: size of the catalogue.
        settings: sizes and rates, public.
        seed: of first factors and negatives.
    """

    def __init__(self, splits: Sequence[EvaluationSplit], n_items: int, settings: Settings, seed: int) -> None:
        self.devices, self._settings = Devices.of(splits, n_items), settings
        self._random = np.random.default_rng(seed)
        std = settings.factors**-0.5 / 4
        self.users = seeded_normal((len(splits), settings.factors), std, self._random)
        self.items = seeded_normal((n_items, settings.factors), std, self._random)

    @property
    def bytes_up_per_round(self) -> int:
        """A device sends a gradient of every item factor: of its own items only, it would tell which they are."""
        return 4 * self.items.numel()

    def train_epoch(self) -> None:
        """One round: devices fit their factor, then send the gradient of the item factors."""
        samples = self.devices.had + self.devices.draw_negatives(self._settings.negatives, self._random)
        for _ in range(self._settings.local_steps):
            self.users = self.users - self._settings.learning_rate * self.user_gradients(samples)
        self.items = self.items - self._settings.item_learning_rate * self.summed_item_gradient(samples)

    def errors(self, samples: Tensor) -> Tensor:
        """Score minus truth where a device has a sample: `[users, items]`. Args: samples 0/1 `[users, items]`."""
        return samples * (self.users @ self.items.T - self.devices.had)

    def user_gradients(self, samples: Tensor) -> Tensor:
        """Of each device's mean squared error with its ridge penalty: `[users, factors]`; they leave no device."""
        counts = samples.sum(dim=1, keepdim=True).clamp(min=1)
        return self.errors(samples) @ self.items / counts + self._settings.l2 * self.users

    def summed_item_gradient(self, samples: Tensor) -> Tensor:
        """Sum over devices of the gradient of their squared error: `[items, factors]`, as the coordinator sees it."""
        return self.errors(samples).T @ self.users / len(self.users) + self._settings.l2 * self.items

    def score(self, histories: Sequence[Items]) -> Scores:
        """The device's factor times the item factors, float32 `[users, items]`; see `Devices` on who is asked."""
        scores: Scores = (self.users[self.devices.rows(histories)] @ self.items.T).numpy()
        return scores

    def snapshot(self) -> State:
        """User and item factors; a round replaces them, so no copy is needed."""
        return self.users, self.items

    def restore(self, state: State) -> None:
        """Take factors back."""
        self.users, self.items = state
