"""Users as padded rows, grouped by length so that little is computed on padding."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

IGNORED = -100


@dataclass(frozen=True)
class UserBatch:
    """Some users' histories as rows. Private.

    Attributes:
        users: positions of the users in the caller's list.
        items: int64 `[users, positions]`, right-padded with item 0.
        targets: int64 `[users, positions]`, the next item, `IGNORED` on padding.
    """

    users: np.ndarray = field(repr=False)
    items: Tensor = field(repr=False)
    targets: Tensor = field(repr=False)


def user_batches(
    histories: Sequence[np.ndarray],
    users: np.ndarray,
    max_history: int,
    max_tokens: int,
    device: torch.device,
) -> Iterator[UserBatch]:
    """Split `users` into batches of similar length with at most `max_tokens` padded positions each.

    Args:
        histories: int32 item codes of every user, oldest first; private. Fewer than two items give nothing to predict.
        users: which of them, each once.
        max_history: inputs kept, the latest.
    """
    lengths = np.array([min(len(histories[u]) - 1, max_history) for u in users], dtype=np.int64)
    order = np.argsort(lengths, kind="stable")
    group: list[int] = []
    for position in order[lengths[order] > 0]:
        if group and (len(group) + 1) * int(lengths[position]) > max_tokens:
            yield _pad(histories, users[group], max_history, device)
            group = []
        group.append(int(position))
    if group:
        yield _pad(histories, users[group], max_history, device)


def fixed_batches(
    histories: Sequence[np.ndarray], users: np.ndarray, max_history: int, rows: int, device: torch.device
) -> Iterator[UserBatch]:
    """Split `users` into batches of one public shape, `[rows, max_history]`, whoever they are; nobody fills the rest.

    For private steps. Matrix products of other shapes differ in their last bits, which an adapter chosen for it can
    blow up. Were the shape that of the longest user, one user more could change everybody's gradient, and no clipping
    would bound that.

    Args:
        histories, users, max_history: as in `user_batches`.
        rows: of each batch, public.
    Reference: Mironov 2012, doi:10.1145/2382196.2382264, on what last bits give away.
    """
    kept = np.array([user for user in users if len(histories[user]) > 1], dtype=np.int64)
    for start in range(0, len(kept), rows):
        yield _pad(histories, kept[start : start + rows], max_history, device, shape=(rows, max_history))


def _pad(
    histories: Sequence[np.ndarray],
    users: np.ndarray,
    max_history: int,
    device: torch.device,
    shape: tuple[int, int] | None = None,
) -> UserBatch:
    rows = [np.asarray(histories[u][-(max_history + 1) :], dtype=np.int64) for u in users]
    shape = shape or (len(rows), max(len(row) for row in rows) - 1)
    items = np.zeros(shape, np.int64)
    targets = np.full(shape, IGNORED, np.int64)
    for index, row in enumerate(rows):
        items[index, : len(row) - 1] = row[:-1]
        targets[index, : len(row) - 1] = row[1:]
    return UserBatch(users, torch.from_numpy(items).to(device), torch.from_numpy(targets).to(device))
