"""What is known without a trained head: the floors that a task must beat, in the same run."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedrec.tasks.own_rows import UserRows, Windows
from fedrec.tasks.task import Figures
from fedrec_sim.tasks.trial import Answered

_ITEM_ROWS, _USER_ROWS = 5.0, 5.0


def window_floors(train: Sequence[UserRows], asked: Sequence[UserRows], n_items: int) -> dict[str, Figures]:
    """Protocol E, AUC: the share of likes in the window, an item's like-rate in training, and a regression on both."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    items, likes = _rows(train)
    level = float(likes.mean())
    counts, sums = np.bincount(items, minlength=n_items), np.bincount(items, likes, n_items)
    rate = (sums + _ITEM_ROWS * level) / (counts + _ITEM_ROWS)
    shares = [np.concatenate([u.targets.mean(1) for u in users if isinstance(u, Windows)]) for users in (train, asked)]
    asked_items, truth = _rows(asked)
    # Of a training row without the row itself, or the rate would know the answer.
    left_out = (sums[items] - likes + _ITEM_ROWS * level) / (counts[items] - 1 + _ITEM_ROWS)
    both = LogisticRegression().fit(np.column_stack([shares[0], left_out]), likes)
    scores = {
        "share_of_likes": shares[1],
        "item_like_rate": rate[asked_items],
        "both": both.decision_function(np.column_stack([shares[1], rate[asked_items]])),
    }
    return {name: {"auc": float(roc_auc_score(truth, score))} for name, score in scores.items()}


def bias_floor(train: Sequence[UserRows], answered: Answered, asked: Sequence[UserRows], n_items: int) -> Figures:
    """Ratings as everybody's mean and what item and user add to it, fitted in turn; all rows in one place."""
    items, stars = _rows(train)
    users = np.repeat(np.arange(len(train)), [len(user.asked) for user in train])
    mean, of_item, of_user = float(stars.mean()), np.zeros(n_items), np.zeros(len(train))
    counts, rows = np.bincount(items, minlength=n_items), np.bincount(users, minlength=len(train))
    for _ in range(10):
        of_item = np.bincount(items, stars - mean - of_user[users], n_items) / (counts + _ITEM_ROWS)
        of_user = np.bincount(users, stars - mean - of_item[items], len(train)) / (rows + _USER_ROWS)
    said = []
    for user in asked:  # each asked user's own level from what is known of the user
        level = np.sum(user.targets - mean - of_item[user.items]) / (len(user.items) + _USER_ROWS)  # type: ignore[attr-defined]
        said.append(np.clip(mean + of_item[user.asked] + level, 1, 5))
    error = np.concatenate(said) - answered.targets
    return {"rmse": float(np.sqrt(np.mean(error**2))), "mae": float(np.abs(error).mean())}


def _rows(users: Sequence[UserRows]) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    return np.concatenate([user.asked for user in users]), np.concatenate([user.answers for user in users])
