"""Scorers for what training never met: floors that can score new items, and answers where a scorer has none."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from scipy import sparse

from fedrec.errors import DataError, ModelError
from fedrec.evaluation.baselines.linear import item_popularity, user_item_matrix
from fedrec.evaluation.protocol import Items, Scorer, Scores


@dataclass(frozen=True)
class Chance:
    """Ties only, which the harness breaks at random: the floor of floors."""

    n_items: int

    def score(self, histories: Sequence[Items]) -> Scores:
        """Zeros: float32 `[users, items]`."""
        return np.zeros((len(histories), self.n_items), np.float32)


@dataclass
class GenrePopularity:
    """How much one item of its genres can expect of a user: it can score items that nobody has had.

    An item's score is the mean over its genres g of `share(user, g) / size(g)`. The size counts the genre's items that
    training met, an item of two genres as half in each. The share is the user's own of the history, drawn towards that
    of all training users by as many items as `strength` says. For a user without history the score is thus the mean
    popularity of the genre's items. Items without genre are a genre of their own.

    Args:
        categories: per item of the catalogue, public.
        strength: in items, > 0.
    """

    categories: Sequence[Sequence[str]] = field(repr=False)
    strength: float = 10.0
    _genres: sparse.csr_array | None = field(default=None, init=False, repr=False, compare=False)
    _base: np.ndarray = field(default_factory=lambda: np.zeros(0), init=False, repr=False, compare=False)
    _size: np.ndarray = field(default_factory=lambda: np.zeros(0), init=False, repr=False, compare=False)

    def fit(self, histories: Sequence[Items], n_items: int) -> Self:
        """Count genres in training."""
        if len(self.categories) != n_items:
            raise DataError(f"categories of {len(self.categories)} items, not of {n_items}", "use one catalogue")
        self._genres = _genre_matrix(self.categories)
        counts = item_popularity(histories, n_items)
        mass = counts @ self._genres
        self._base = mass / max(float(mass.sum()), 1.0)
        self._size = (counts > 0).astype(np.float64) @ self._genres
        return self

    def score(self, histories: Sequence[Items]) -> Scores:
        """Expected share of the user's next item: float32 `[users, items]`."""
        if self._genres is None:
            raise ModelError("GenrePopularity is not fitted", "call fit first")
        own = user_item_matrix(histories, len(self.categories)) @ self._genres.toarray()
        shares = (own + self.strength * self._base) / (own.sum(1, keepdims=True) + self.strength)
        worth = np.divide(shares, self._size, out=np.zeros_like(shares), where=self._size > 0)
        return np.asarray(worth @ self._genres.T.toarray(), np.float32)


def _genre_matrix(categories: Sequence[Sequence[str]]) -> sparse.csr_array:
    """Each item's genres in equal parts: float64 `[items, genres]`, rows add up to 1."""
    named = [sorted(set(own)) or [""] for own in categories]
    codes = {genre: code for code, genre in enumerate(sorted({genre for own in named for genre in own}))}
    rows = np.repeat(np.arange(len(named)), [len(own) for own in named])
    columns = np.array([codes[genre] for own in named for genre in own], np.int64)
    parts = np.array([1 / len(own) for own in named for _ in own])
    return sparse.csr_array((parts, (rows, columns)), shape=(len(named), len(codes)))


@dataclass(frozen=True)
class PopularToStrangers:
    """A scorer whose users of empty history get what is popular: it would have nothing but ties for them.

    Attributes:
        scorer: for everybody else.
        popularity: float32 `[items]`.
    """

    scorer: Scorer
    popularity: np.ndarray = field(repr=False)

    def score(self, histories: Sequence[Items]) -> Scores:
        """The scorer's scores, and popularity where a history is empty."""
        scores = np.array(self.scorer.score(histories))
        scores[[len(history) == 0 for history in histories]] = self.popularity
        return scores


@dataclass(frozen=True)
class NewItemsLast:
    """A scorer of the catalogue without the new items, as one of the whole: it knows no new item and ranks them last.

    Attributes:
        scorer: of the items that `known` names, by their place there.
        known: int64 `[known items]`, codes in the whole catalogue, ascending.
        n_items: of the whole catalogue.
    """

    scorer: Scorer
    known: np.ndarray = field(repr=False)
    n_items: int

    def score(self, histories: Sequence[Items]) -> Scores:
        """The scorer's scores, and one below them all for every new item."""
        places = np.full(self.n_items, -1, np.int32)
        places[self.known] = np.arange(len(self.known), dtype=np.int32)
        own = np.array(self.scorer.score([places[history] for history in histories]), np.float64)
        scores = np.full((len(histories), self.n_items), own.min(initial=0.0) - 1.0)
        scores[:, self.known] = own
        return scores
