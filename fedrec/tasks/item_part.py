"""What partners find out together about each item, as the adapter part `items`: one noised sum of surprises."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedrec.privacy.gradients import UserDPOptimizer
from fedrec.privacy.noise import NoiseSource
from fedrec.privacy.sampling import poisson_sample
from fedrec.tasks.own_rows import TasteRows
from fedrec.tasks.taste import PublicTaste
from fedrec.tasks.training import PrivateWork

ITEMS = "items"
TENSOR = "items.surprises"
_USERS_AT_A_TIME = 128
# How far items differ from what is expected of them, as a share of how far one answer does; of the variance.
_ITEM_VARIANCE = 0.1


@dataclass(frozen=True)
class ItemPart:
    """What is asked about items, and how the answer is read. Public.

    Attributes:
        n_users: of all partners together, who take part; declared.
        spread: standard deviation of one answer around its prediction.
        row_weight: of a row's count beside its surprise, in units of `spread`.
        clip: most that one user moves the sum, in units of `spread`.
        noise_std: of each number of the mean over users; 0 without privacy.
    """

    n_users: int
    spread: float
    row_weight: float = 0.5
    clip: float = 2.0
    noise_std: float = 0.0

    @property
    def l2_clip_norm(self) -> float:
        """The same in units of the sum."""
        return self.clip * self.spread

    def corrected(self, taste: PublicTaste, surprises: NDArray[np.float32]) -> PublicTaste:
        """The taste with each item's mean moved to where its surprises say, less the fewer rows and the more noise.

        Args:
            surprises: float32 `[2, items]`, the mean over users that was released.
        Privacy: reads what was released and public figures alone.
        """
        sums, counts = self.n_users * surprises.astype(np.float64)
        noise = self.n_users * self.noise_std
        # Less a standard deviation: where there are few rows, counts are noise too.
        rows = np.maximum(counts - noise, 0.0) / (self.row_weight * self.spread)
        prior = _ITEM_VARIANCE * self.spread**2
        total = prior * rows**2 + self.spread**2 * rows + noise**2
        moved = np.divide(prior * rows * sums, total, out=np.zeros_like(sums), where=total > 0)
        return replace(taste, mean=taste.mean + moved)


def plain_surprises(rows: TasteRows, part: ItemPart) -> NDArray[np.float32]:
    """The exact sum over users, `[2, items]`; no privacy whatsoever."""
    total = np.zeros((2, len(rows.taste.mean)), np.float32)
    for place in range(rows.n_users):
        total += rows.surprises(place, part.row_weight * part.spread)
    return total


def bounded_surprises(
    parameter: nn.Parameter, rows: TasteRows, part: ItemPart, work: PrivateWork, source: NoiseSource
) -> UserDPOptimizer:
    """An optimizer that holds the clipped sum over the sampled users, not yet noised: its step adds it up.

    Args:
        parameter: float32 `[2, items]`, which the step moves.
    Privacy: one sampled Gaussian mechanism over users with sensitivity `work.l2_clip_norm`, once it is noised.
    """
    users = poisson_sample(rows.n_users, work.sampling_prob, source)
    optimizer = UserDPOptimizer(
        [parameter],
        learning_rate=work.learning_rate,
        l2_clip_norm=work.l2_clip_norm,
        noise_std=work.noise_std,
        source=source,
    )
    for start in range(0, len(users), _USERS_AT_A_TIME):
        chosen = users[start : start + _USERS_AT_A_TIME]
        found = [rows.surprises(int(place), part.row_weight * part.spread) for place in chosen]
        # The gradient of minus the inner product with what the users say.
        parameter.grad_sample = -torch.from_numpy(np.stack(found))  # type: ignore[attr-defined]  # where Opacus looks
        optimizer.clip_and_accumulate()
    return optimizer
