"""Rank the catalogue for a history: the item-token model, with popularity where there is no history."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import torch
from peft import PeftModel

from fedrec.errors import DataError
from fedrec.model.recommender import ItemTokenModel, item_token_model, read_state, reading_hash


@dataclass(frozen=True)
class RankedList:
    """Recommendations, best first. Private: it tells of its history.

    Attributes:
        items: int32 `[k]` catalogue codes, distinct, none of them seen.
        scores: float32 `[k]`, not increasing.
        source: which recommender made it.
    """

    items: np.ndarray = field(repr=False)
    scores: np.ndarray = field(repr=False)
    source: Literal["model", "popularity"]


class Recommender(Protocol):
    """What serving needs of a model."""

    def score(self, histories: Sequence[np.ndarray]) -> np.ndarray:
        """Score the whole catalogue for each history: float32 `[users, items]`."""

    def rank(self, history: np.ndarray, k: int) -> RankedList:
        """The k best unseen items. Raises DataError if fewer than k are unseen."""


class ModelRecommender:
    """The item-token model behind a Recommender's two methods.

    Args:
        model: with its adapter loaded.
        max_history: latest items that are read.
        remember: keep the LLM's reading of every history in memory, `context_dim` floats each, until the adapter's
            LoRA or projections change: for asking the same histories of several heads. Private, as histories are.
    """

    def __init__(self, model: PeftModel, max_history: int, *, remember: bool = False) -> None:
        self._model = model
        self._max_history = max_history
        self._remember = remember
        self._remembered: dict[bytes, torch.Tensor] = {}
        self._reading = ""

    @property
    def max_history(self) -> int:
        """Latest items that are read."""
        return self._max_history

    @property
    def model(self) -> PeftModel:
        """The model, with its adapter."""
        return self._model

    def over(self, model: PeftModel) -> "ModelRecommender":
        """The same for another model; what is remembered is shared as long as both read alike."""
        other = ModelRecommender(model, self._max_history, remember=self._remember)
        other._reading, other._remembered = self._reading, self._remembered
        return other

    @torch.no_grad()
    def score(self, histories: Sequence[np.ndarray]) -> np.ndarray:
        """Score the whole catalogue for each history (oldest first; may be empty): float32 `[users, items]`."""
        tokens = item_token_model(self._model)
        self._model.eval()
        learnt, factors = tokens.item_vectors(1), tokens.modality_factors(tokens.features)
        prior = tokens.popularity(tokens.shape.popularity_floor).cpu().numpy()
        scores = np.tile(prior, (len(histories), 1)).astype(np.float32)
        self._forget_stale()
        lengths = np.array([min(len(h), self._max_history) for h in histories], dtype=np.int64)
        order = np.argsort(lengths, kind="stable")
        for group in _groups(order[lengths[order] > 0], lengths, max_tokens=3200):
            rows = np.zeros((len(group), int(lengths[group].max())), np.int64)
            for row, user in zip(rows, group, strict=True):
                row[: lengths[user]] = histories[user][-self._max_history :]
            items = torch.from_numpy(rows).to(tokens.features.device)
            last = torch.from_numpy(lengths[group] - 1).to(items.device)
            context = self._context(tokens, items, lengths[group])
            summary = tokens.summary(items, context, learnt, factors)[torch.arange(len(group)), last]
            scores[group] = tokens.scores(tokens.user_vectors(summary), learnt, factors).float().cpu().numpy()
        return scores

    def _forget_stale(self) -> None:
        if self._remember and self._reading != (now := reading_hash(read_state(self._model))):
            self._reading, self._remembered = now, {}

    def _context(self, tokens: ItemTokenModel, items: torch.Tensor, lengths: np.ndarray) -> torch.Tensor:
        """The LLM's reading of each row, right at its last item at least: `[users, positions, context_dim]`."""
        if not self._remember:
            return tokens.context(items)
        keys = [row[:length].tobytes() for row, length in zip(items.cpu().numpy(), lengths, strict=True)]
        last = torch.from_numpy(lengths - 1).to(items.device)
        if any(key not in self._remembered for key in keys):
            read = tokens.context(items)[torch.arange(len(items)), last]
            self._remembered |= dict(zip(keys, read, strict=True))
        context = torch.zeros(*items.shape, tokens.shape.context_dim, device=items.device)
        context[torch.arange(len(items)), last] = torch.stack([self._remembered[key] for key in keys])
        return context

    def rank(self, history: np.ndarray, k: int) -> RankedList:
        """The k best items that are not in the history."""
        scores = self.score([history])[0]
        return top_k(scores, history, k, "model" if len(history) else "popularity")


def top_k(scores: np.ndarray, seen: np.ndarray, k: int, source: Literal["model", "popularity"]) -> RankedList:
    """The k highest-scored unseen items; equal scores by lower code.

    Raises: DataError: fewer than k items are unseen.
    """
    open_scores = np.array(scores, dtype=np.float32)
    open_scores[np.asarray(seen, dtype=np.int64)] = -np.inf
    left = len(scores) - len(np.unique(seen))
    if not 1 <= k <= left:
        raise DataError(f"k = {k}, but {left} items are unseen", "ask for fewer")
    best = np.argsort(-open_scores, kind="stable")[:k]
    return RankedList(best.astype(np.int32), open_scores[best], source)


def _groups(order: np.ndarray, lengths: np.ndarray, max_tokens: int) -> list[np.ndarray]:
    """Consecutive users of `order` whose padded block stays within `max_tokens`."""
    groups: list[list[int]] = []
    for user in order:
        if groups and (len(groups[-1]) + 1) * int(lengths[user]) <= max_tokens:
            groups[-1].append(int(user))
        else:
            groups.append([int(user)])
    return [np.array(group) for group in groups]
