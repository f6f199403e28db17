"""One adapter version made ready to serve: LoRA merged, items as rows of plain matrices that new items join."""

import math
from collections.abc import Sequence
from copy import copy, deepcopy
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel

from fedrec.model.new_items import boosted, popularity_regression, vector_regression
from fedrec.model.recommender import ItemTokenModel, read_state, reading_hash

Floats = NDArray[np.float32]
# Items that join at a time, so that what is worked out on the way stays small.
_TOGETHER = 8192


class GrowingRows:
    """A float32 matrix that rows are appended to, in amortised constant time; readers may hold older views."""

    def __init__(self, rows: Floats) -> None:
        self._n, self._space = len(rows), np.ascontiguousarray(rows, dtype=np.float32)

    @property
    def rows(self) -> Floats:
        """All of them, `[rows, width]`: a view."""
        return self._space[: self._n]

    def append(self, rows: Floats) -> None:
        """Add some at the end."""
        needed = self._n + len(rows)
        if needed > len(self._space):
            space = np.empty((max(needed, 2 * len(self._space)), self._space.shape[1]), np.float32)
            space[: self._n] = self.rows
            self._space = space
        self._space[self._n : needed] = rows
        self._n = needed


@dataclass(frozen=True)
class UserWindow:
    """What the head reads of a person. Private.

    Attributes:
        codes: int64 `[positions]`, oldest first, one at least.
        weights: float32 `[positions]`, how much each counts in the means; 1 is as in training.
        context: float32 `[context_dim]`, the LLM's reading of `codes`.
    """

    codes: NDArray[np.int64] = field(repr=False)
    weights: Floats = field(repr=False)
    context: Floats = field(repr=False)


class LiveModel:
    """An adapter version over the federation's catalogue and items that came later. Rows are added by one thread.

    Args:
        model: with its adapter loaded; it is copied, and the copy's LoRA merged.
        version: of the adapter, "round-0031", say.
        max_history: latest items that were read in training.
        new_item_boost: nats on the popularity that a new item's text predicts, see `admit_new_items`.
    Attributes:
        reading: hash of all that the LLM's reading of a history hangs on.
        revision: goes up when items get other texts.
    """

    def __init__(self, model: PeftModel, version: str, max_history: int, new_item_boost: float = 0.0) -> None:
        self.version, self.max_history, self._boost = version, max_history, new_item_boost
        self.reading, self.revision = reading_hash(read_state(model)), 0
        merged = deepcopy(model).merge_and_unload()
        self.tokens: ItemTokenModel = merged.eval().requires_grad_(False)
        with torch.no_grad():
            self._fill()

    def _fill(self) -> None:
        tokens, shape = self.tokens, self.tokens.shape
        known, texts = tokens.known, tokens.features.cpu().numpy()
        self.n_catalog, self._public_dim = tokens.n_items, shape.public_dim
        self.item_dim, self.context_dim = shape.item_dim, shape.context_dim
        self._n_summary, self._n_score = tokens.n_summary, tokens.n_score
        histogram = tokens.popularity.histogram.clamp(min=0).cpu().numpy()
        self._total = float(np.sum(histogram + shape.popularity_floor))
        learnt, self._vectors = np.zeros((tokens.n_items, shape.item_dim), np.float32), None
        if (vectors := tokens.item_vectors(1)) is not None:
            learnt[tokens.items_with_vector().cpu().numpy()] = vectors[0].cpu().numpy()
            if tokens.n_rows == tokens.n_items:  # where only popular items have a vector, new ones have none
                self._vectors = vector_regression(learnt, histogram, texts)
        self._popularity = popularity_regression(histogram, texts)
        self.head: Floats = tokens.score_head.weight.cpu().numpy().astype(np.float32)
        self._texts = GrowingRows(texts)
        summary, score = (tokens.gated(known, n).cpu().numpy() for n in (self._n_summary, self._n_score))
        self._summary_rows = GrowingRows(np.concatenate([summary, learnt], 1))
        self._score_rows = GrowingRows(np.concatenate([score, learnt, self._log_share(histogram)[:, None]], 1))

    def _log_share(self, histogram: NDArray[np.floating]) -> Floats:
        share: Floats = np.log((histogram + self.tokens.shape.popularity_floor) / self._total).astype(np.float32)
        return share

    @property
    def n_items(self) -> int:
        """Of the catalogue and later ones."""
        return len(self._score_rows.rows)

    @property
    def texts(self) -> Floats:
        """Text features, `[items, feature_dim]`: what items are alike by."""
        return self._texts.rows

    @property
    def score_rows(self) -> Floats:
        """What a user's vector is multiplied with, `[items, width]`; the last column is the popularity prior."""
        return self._score_rows.rows

    @property
    def item_rows(self) -> Floats:
        """What the head reads of an item, `[items, width]`: what the public did with it, its text, what was trained."""
        return self._summary_rows.rows

    @property
    def prior(self) -> Floats:
        """Log popularity, `[items]`."""
        return self._score_rows.rows[:, -1]

    def branch(self) -> "LiveModel":
        """The same with item rows of its own: for a tenant, whose later items are nobody else's."""
        other = copy(self)
        other._texts, other._summary_rows, other._score_rows = (
            GrowingRows(rows.rows) for rows in (self._texts, self._summary_rows, self._score_rows)
        )
        return other

    def add_items(self, texts: Floats) -> None:
        """Let items join, from the text features `[new, feature_dim]` alone: they get the codes that follow."""
        for start in range(0, len(texts), _TOGETHER):
            for rows, more in zip(self._every, self._rows_of(texts[start : start + _TOGETHER]), strict=True):
                rows.append(more)

    def change_items(self, codes: Sequence[int], texts: Floats) -> None:
        """Let items that joined later have other texts. Raises ValueError: one is of the catalogue, and trained."""
        if min(codes, default=self.n_catalog) < self.n_catalog:
            raise ValueError("the catalogue's items keep what was trained")
        for rows, other in zip(self._every, self._rows_of(texts), strict=True):
            rows.rows[list(codes)] = other
        self.revision += 1

    @property
    def _every(self) -> tuple[GrowingRows, GrowingRows, GrowingRows]:
        return self._texts, self._summary_rows, self._score_rows

    def _rows_of(self, texts: Floats) -> tuple[Floats, Floats, Floats]:
        known = torch.from_numpy(np.concatenate([np.zeros((len(texts), self._public_dim), np.float32), texts], 1))
        known = known.to(self.tokens.known.device)
        summary, score = (self.tokens.gated(known, n).cpu().numpy() for n in (self._n_summary, self._n_score))
        learnt = np.zeros((len(texts), self.item_dim), np.float32)
        if self._vectors is not None:
            learnt = self._vectors.predict(texts).astype(np.float32)
        histogram = boosted(self._popularity.predict(texts)[:, 0], self.tokens.shape, self._boost)
        prior = self._log_share(histogram)[:, None]
        return texts, np.concatenate([summary, learnt], 1), np.concatenate([score, learnt, prior], 1)

    def item_tokens(self, codes: NDArray[np.int64]) -> torch.Tensor:
        """What the LLM reads: int64 `[...]` -> `[..., hidden]`, in the backbone's dtype."""
        weight = self.tokens.item_in.weight
        features = torch.from_numpy(self._texts.rows[codes]).to(weight.device)
        return self.tokens.item_in(features).to(next(self.tokens.backbone.parameters()).dtype)  # type: ignore[no-any-return]

    def user_vector(self, window: UserWindow) -> Floats:
        """The head's vector of a person and 1 for the prior, `[width]`: its product with `score_rows` scores items."""
        rows = self._summary_rows.rows[window.codes]
        kernels = self._kernels(window.weights)
        means = kernels @ rows / np.maximum(kernels.sum(1, keepdims=True), 1e-9)
        return self._head_of(np.concatenate([means[0], means[1], rows[-1], window.context]))

    def scores(self, vectors: Floats) -> Floats:
        """`[users, width]` -> `[users, items]`."""
        scores: Floats = (self._score_rows.rows @ vectors.T).T
        return scores

    def without_each(self, window: UserWindow) -> Floats:
        """The head's vectors as if one item had not been there, `[positions, width]`; the LLM's reading is kept.

        For a window of two items at least. What a score loses when a history item is left out says what it owes to it;
        the reading's part, which would take a pass of the LLM for each item, is left to `leave_one_out`.
        """
        rows, decay = self._summary_rows.rows[window.codes], self.tokens.shape.decay
        decayed, flat = self._kernels(window.weights)
        # Those before the gap are one item less old.
        means = [
            _sums_without(decayed, rows, 1 / decay),
            _sums_without(flat, rows, 1.0),
        ]
        last = np.repeat(rows[-1:], len(rows), 0)
        last[-1] = rows[-2]
        context = np.repeat(window.context[None], len(rows), 0)
        summaries = np.concatenate([*means, last, context], 1)
        ones = np.ones((len(rows), 1), np.float32)
        return np.concatenate([summaries @ self.head.T, ones], 1).astype(np.float32)

    def with_each(self, window: UserWindow | None, codes: NDArray[np.int64]) -> Floats:
        """The head's vectors as if each of these items had come next, `[codes, width]`; the LLM's reading is kept.

        Args:
            window: None: of somebody without a history, whom the LLM has read nothing of.
        """
        rows, shape = self._summary_rows.rows, self.tokens.shape
        if window is None:
            window = as_window([], [], np.zeros(shape.context_dim, np.float32))
        weights = np.append(window.weights, np.float32(1.0))
        kernels = self._kernels(weights)
        sums = kernels[:, :-1] @ rows[window.codes]
        means = (sums[:, None] + rows[codes]) / kernels.sum(1)[:, None, None]
        context = np.repeat(window.context[None], len(codes), 0)
        summaries = np.concatenate([means[0], means[1], rows[codes], context], 1)
        ones = np.ones((len(codes), 1), np.float32)
        return np.concatenate([summaries @ self.head.T, ones], 1).astype(np.float32)

    def _kernels(self, weights: Floats) -> Floats:
        """Of the decayed and the plain mean, `[2, positions]`."""
        ages = np.arange(len(weights) - 1, -1, -1, dtype=np.float32)
        return np.stack([self.tokens.shape.decay**ages * weights, weights]).astype(np.float32)

    def _head_of(self, summary: Floats) -> Floats:
        return np.append(self.head @ summary, np.float32(1.0)).astype(np.float32)

    def prior_vector(self) -> Floats:
        """For somebody without a history: popularity alone."""
        vector = np.zeros(self._score_rows.rows.shape[1], np.float32)
        vector[-1] = 1.0
        return vector


def _sums_without(kernel: Floats, rows: Floats, before: float) -> Floats:
    """The kernel's mean of the rows without each in turn, `[positions, width]`; the weight of those before it grows."""
    both = np.concatenate([kernel[:, None] * rows, kernel[:, None]], 1).astype(np.float64)
    upto = np.cumsum(both, 0)
    without = (upto - both) * before + (upto[-1] - upto)
    mean: Floats = (without[:, :-1] / np.maximum(without[:, -1:], 1e-9)).astype(np.float32)
    return mean


def window_start(length: int, max_history: int, slack: int, phase: int = 0) -> int:
    """Where the history that is read begins, so that it stays for a while and a new item only extends it.

    `max_history` to `max_history + slack` items are read: the start moves on by `slack` at a time. A function of the
    length alone, so what was forgotten can be made anew.

    Args:
        phase: 0 to `slack - 1`, another for each person: where all had the same, those with equally long histories
            would have to be read anew at the same moment.

    >>> [window_start(n, 100, 50) for n in (0, 100, 150, 151, 200, 201)]
    [0, 0, 0, 50, 50, 100]
    >>> [window_start(n, 100, 50, 10) for n in (110, 111, 160, 161)]
    [0, 10, 10, 60]
    """
    beyond = length - max_history - phase
    return 0 if beyond <= 0 else phase + (math.ceil(beyond / slack) - 1) * slack


def as_window(
    codes: Sequence[int] | NDArray[np.int64], weights: Sequence[float] | Floats, context: Floats
) -> UserWindow:
    """From plain sequences."""
    return UserWindow(np.asarray(codes, np.int64), np.asarray(weights, np.float32), context)
