"""A small click model for a bandit log: logistic, with L2, and with a weight for each row.

It predicts clicks for the direct and the doubly robust estimate, and shows what propensities do to training: rows that
the logging policy made rare get more weight, so that the model fits what would be seen if every item were shown alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from fedrec.data.open_bandit import BanditLog
from fedrec.errors import ConfigError, DataError, ModelError

Floats = NDArray[np.float64]

L2_GRID = (3.0, 10.0, 30.0, 100.0, 300.0)
FOLDS = 3
_STEPS = 50
_TOLERANCE = 1e-9
_INTERCEPT_L2 = 1e-9  # keeps the system solvable where nothing was clicked, and moves nothing else


@dataclass(frozen=True)
class ClickDesign:
    """Which columns a row becomes: item, position, user and affinity side by side, so that their effects add up.

    Attributes:
        items: float64 `[items, columns]`, opaque categories and the one number that the log has of each item.
        user_words: per user feature, the words that have a column; any other word has none.
        n_positions: one column each.
        own_effects: whether each item has a column of its own beside its features.
    """

    items: Floats = field(repr=False)
    user_words: tuple[tuple[str, ...], ...] = field(repr=False)
    n_positions: int
    own_effects: bool = True

    @classmethod
    def of(cls, log: BanditLog, *, own_effects: bool = True) -> "ClickDesign":
        """The columns that a log gives rise to."""
        number = log.item_numbers - log.item_numbers.mean()
        blocks = [(number / max(float(number.std()), 1e-12))[:, None]]
        blocks += [np.eye(int(words.max()) + 1)[words] for words in log.item_words.T]
        if own_effects:
            blocks.append(np.eye(log.n_actions))
        words = tuple(tuple(np.unique(column).tolist()) for column in log.users.T)
        return cls(np.concatenate(blocks, axis=1), words, log.n_positions, own_effects)

    @property
    def width(self) -> int:
        """Columns, with the intercept, which comes first, and the affinity, which comes last."""
        return 2 + int(self.items.shape[1]) + self.n_positions + sum(map(len, self.user_words))

    def context(self, log: BanditLog) -> Floats:
        """What is known before an item is chosen: intercept, position, user, `[rows, columns]`."""
        blocks = [np.ones((len(log), 1)), np.eye(self.n_positions)[log.positions]]
        for column, words in zip(log.users.T, self.user_words, strict=True):
            blocks.append((column[:, None] == np.array(words)[None, :]).astype(np.float64))
        return np.concatenate(blocks, axis=1)

    def rows(self, log: BanditLog) -> Floats:
        """The logged rows as columns `[rows, width]`."""
        affinity = log.affinities[np.arange(len(log)), log.actions][:, None]
        return np.concatenate([self.context(log), self.items[log.actions], affinity], axis=1)


@dataclass(frozen=True)
class ClickModel:
    """Coefficients `[width]` of a design."""

    design: ClickDesign
    coefficients: Floats = field(repr=False)

    def predict(self, log: BanditLog) -> Floats:
        """Probability of a click on the logged items, `[rows]`."""
        return np.asarray(expit(self.design.rows(log) @ self.coefficients))

    def predict_all(self, log: BanditLog) -> Floats:
        """Probability of a click on every item, had it been shown in the row's place: `[rows, items]`."""
        context = self.design.context(log)
        split = context.shape[1]
        of_context, of_items = context @ self.coefficients[:split], self.design.items @ self.coefficients[split:-1]
        return np.asarray(expit(of_context[:, None] + of_items[None, :] + self.coefficients[-1] * log.affinities))


def fit_clicks(log: BanditLog, design: ClickDesign, l2: float, weights: Floats | None = None) -> ClickModel:
    """Fit by Newton's method: the minimum of `sum(w * log loss) + l2 / 2 * |coefficients|^2`.

    Args:
        l2: > 0; the intercept pays none.
        weights: `[rows]`, >= 0; they are scaled to the mean 1, so that `l2` means the same with and without them.
    Raises: ConfigError: l2 not above 0. DataError: weights that cannot be. ModelError: it does not converge.
    Privacy: reads all rows exactly. Under differential privacy a row's gradient would be clipped after its weight was
        applied, and weights be divided by a public number, never by their own sum.
    """
    if not 0 < l2 < np.inf:
        raise ConfigError(f"l2 = {l2}", "name a number above 0")
    return ClickModel(design, _newton(design.rows(log), log.rewards, _weights(log, weights), l2))


def fit_rates(items: Floats, clicked: Floats, shown: Floats, l2: float) -> Floats:
    """Click rates `[items]` of a logistic model that knows items by their columns alone, from (weighted) counts.

    Args:
        items: `[items, columns]`, the intercept first.
        clicked, shown: `[items]`, sums of weights, `0 <= clicked <= shown`.
    """
    seen = shown > 0
    return np.asarray(expit(items @ _newton(items[seen], clicked[seen] / shown[seen], shown[seen], l2)))


def _weights(log: BanditLog, weights: Floats | None) -> Floats:
    """Weights of mean 1, all 1 where there are none. Raises DataError."""
    if weights is None:
        return np.ones(len(log))
    if weights.shape != (len(log),) or not np.isfinite(weights).all() or weights.min() < 0 or weights.sum() <= 0:
        raise DataError("weights are not one finite number >= 0 a row", "clip them, and look at the propensities")
    return np.asarray(weights / weights.mean())


def _newton(rows: Floats, rewards: Floats, weights: Floats, l2: float) -> Floats:
    """Damped steps: one that does not lower the loss is halved."""
    penalty = np.full(rows.shape[1], l2)
    penalty[0] = _INTERCEPT_L2

    def loss(at: Floats) -> float:
        scores = rows @ at
        return float(weights @ (np.logaddexp(0, scores) - rewards * scores) + penalty @ at**2 / 2)

    found, before = np.zeros(rows.shape[1]), np.inf
    for _ in range(_STEPS):
        current = loss(found)
        if before - current <= _TOLERANCE * max(abs(current), 1.0):
            return found
        chance = np.asarray(expit(rows @ found))
        gradient = rows.T @ (weights * (chance - rewards)) + penalty * found
        curvature = rows.T @ (rows * (weights * chance * (1 - chance))[:, None]) + np.diag(penalty)
        step, size, before = np.linalg.solve(curvature, gradient), 1.0, current
        while loss(found - size * step) > current and size > 1e-6:
            size /= 2
        found = found - size * step
    raise ModelError("the click model does not converge", "use a larger l2, or clip the weights")


def log_loss(predicted: Floats, rewards: Floats) -> Floats:
    """Log loss by row, nats."""
    inside = np.clip(predicted, 1e-12, 1 - 1e-12)
    return np.asarray(-(rewards * np.log(inside) + (1 - rewards) * np.log1p(-inside)))


def fold_of_rows(n_rows: int, folds: int, seed: int) -> NDArray[np.int64]:
    """Which fold each row belongs to; sizes differ by one at most."""
    return np.random.default_rng([seed, 0xF01D]).permutation(n_rows) % folds


def choose_l2(
    log: BanditLog, design: ClickDesign, seed: int, weights: Floats | None = None, grid: Sequence[float] = L2_GRID
) -> float:
    """The l2 of the grid with the least weighted log loss on held-out folds of the log itself."""
    weights, rows, folds = _weights(log, weights), design.rows(log), fold_of_rows(len(log), FOLDS, seed)
    losses = np.zeros(len(grid))
    for fold in range(FOLDS):
        held, kept = folds == fold, folds != fold
        for place, l2 in enumerate(grid):
            found = _newton(rows[kept], log.rewards[kept], weights[kept], l2)
            losses[place] += weights[held] @ log_loss(np.asarray(expit(rows[held] @ found)), log.rewards[held])
    return grid[int(np.argmin(losses))]


def cross_predict(log: BanditLog, policy: Floats, seed: int, *, own_effects: bool = True) -> tuple[Floats, Floats]:
    """Predictions for rows by models that have not seen them.

    Args:
        policy: `[items, positions]`, probabilities of the policy to be judged.
    Returns: for each row the predicted reward of the logged item, and the mean prediction under `policy`.
    """
    design = ClickDesign.of(log, own_effects=own_effects)
    folds, l2 = fold_of_rows(len(log), FOLDS, seed), choose_l2(log, design, seed)
    predicted, expected = np.empty(len(log)), np.empty(len(log))
    for fold in range(FOLDS):
        held = np.flatnonzero(folds == fold)
        model, asked = fit_clicks(log.rows(folds != fold), design, l2), log.rows(held)
        every = model.predict_all(asked)
        predicted[held] = every[np.arange(len(held)), asked.actions]
        expected[held] = (every * policy[:, asked.positions].T).sum(axis=1)
    return predicted, expected
