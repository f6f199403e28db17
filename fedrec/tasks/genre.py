"""Inputs of the next-genre head: what a user had so far, and what the public would have next. Computed beside the rows.

Public people say which items go together and which are had most; a user's own items, weighted by how late they came,
give each item that the user had not a chance, and the chances of a genre's items add up. A head that knows nothing else
says just that; partners then learn together how to correct it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedrec.data.catalog import ItemCatalog
from fedrec.errors import DataError
from fedrec.model.features import ItemFeatures
from fedrec.tasks.examples import TaskExamples

Array = NDArray[np.float64]
# Changes when the recipe changes, so that no head is read with other inputs than it was trained on.
_RECIPE = "genre/1"
# Per item of a history; chosen on validation rows of seed 1, as are sharpness and the weight of texts, of three each.
_DECAY, _SHARPNESS, _TEXT_WEIGHT = 0.8, 8.0, 0.5
_TEXT_DIM, _VECTOR_DIM, _LEAST_CHANCE = 64, 16, 0.002


@dataclass(frozen=True, eq=False)
class GenreReader:
    """Reads histories, by the catalogue and by what the public had. Public.

    Attributes:
        labels: of the genres, from the rarest.
        genre: int64 `[items]`: the rarest of an item's genres, which says most of it; -1 for an item without any.
        shares: float64 `[items, genres]`: one over the number of an item's genres, at each of them.
        vectors: float64 `[items, dim]`: of behaviour, then of texts, at length 1 each before texts are weighted.
        log_prior: float64 `[items]`: how much the public had each.
        hash: identity of catalogue, features, public rows and recipe.
    """

    labels: tuple[str, ...]
    genre: NDArray[np.int64] = field(repr=False)
    shares: Array = field(repr=False)
    vectors: Array = field(repr=False)
    log_prior: Array = field(repr=False)
    hash: str

    @classmethod
    def of(
        cls, catalog: ItemCatalog, features: ItemFeatures, public_counts: NDArray[np.int64], public_hash: str
    ) -> "GenreReader":
        """From public things.

        Args:
            public_counts: `[items]`, rows that the public has of each; public_hash: their identity.
        Raises: DataError: a catalogue with fewer than two genres.
        """
        names = sorted({name for genres in catalog.categories for name in genres})
        if len(names) < 2:
            raise DataError("a catalogue with fewer than two genres has no next one", "give items categories")
        flags = np.array([[name in genres for name in names] for genres in catalog.categories], bool)
        order = np.argsort(flags.sum(0), kind="stable")
        flags = flags[:, order]
        behaviour, texts = _unit(features.behaviour), _unit(features.vectors[:, :_TEXT_DIM])
        told = f"{_RECIPE}|{catalog.hash}|{features.hash}|{public_hash}"
        return cls(
            tuple(names[place] for place in order),
            np.where(flags.any(1), flags.argmax(1), -1),
            flags / np.maximum(flags.sum(1, keepdims=True), 1),
            np.column_stack([behaviour, _TEXT_WEIGHT * texts]),
            np.log((public_counts + 1) / (public_counts + 1).sum()),
            hashlib.sha256(told.encode()).hexdigest(),
        )

    @property
    def width(self) -> int:
        """Numbers of an input: log chances, late and all shares of genres, those of the last item, a late vector."""
        return 4 * len(self.labels) + min(_VECTOR_DIM, int(self.vectors.shape[1]))

    def inputs(self, items: NDArray[np.int32], first: int = 0) -> NDArray[np.float32]:
        """What is known after each item of a history from place `first` on, `[items - first, width]`; private.

        Args:
            items: oldest first.
        """
        shares = self.shares[items]
        late = _late_mean(np.column_stack([shares, self.vectors[items]]))[first:]
        every = np.cumsum(shares, 0) / np.arange(1, len(items) + 1)[:, None]
        n_genres = len(self.labels)
        chances = self._chances(late[:, n_genres:], items, first)
        parts = [np.log(chances + _LEAST_CHANCE), late[:, :n_genres], every[first:], shares[first:]]
        return np.column_stack([*parts, late[:, n_genres:][:, :_VECTOR_DIM]]).astype(np.float32)

    def _chances(self, late: Array, items: NDArray[np.int32], first: int) -> Array:
        """Of each genre to be the next one, `[places, genres]`, from public likeness and popularity of unseen items."""
        scores = _SHARPNESS * late @ self.vectors.T + self.log_prior
        for place, item in enumerate(items):
            scores[max(place - first, 0) :, item] = -np.inf
        powers = np.exp(scores - scores.max(1, keepdims=True))
        there = self.genre >= 0
        of_genre = np.zeros((len(self.genre), len(self.labels)))
        of_genre[np.flatnonzero(there), self.genre[there]] = 1
        return np.asarray(powers @ of_genre / powers.sum(1, keepdims=True))

    def examples(self, users: Sequence["GenreRows"]) -> TaskExamples:
        """One example for each item asked for; its target is the item's genre. Private."""
        inputs = [np.zeros((0, self.width), np.float32), *(self._asked(user) for user in users)]
        answers = np.concatenate([np.zeros(0, np.int64), *(self.genre[user.asked] for user in users)])
        owners = np.repeat(np.arange(len(users)), [user.n_asked for user in users])
        kept = answers >= 0
        return TaskExamples.of(np.concatenate(inputs)[kept], answers[kept], owners[kept])

    def _asked(self, user: "GenreRows") -> NDArray[np.float32]:
        if not user.n_asked:
            return np.zeros((0, self.width), np.float32)
        return self.inputs(user.items[:-1], len(user.items) - user.n_asked - 1)


@dataclass(frozen=True, eq=False, repr=False)
class GenreRows:
    """One user's history, of which the last items are asked for, each from all before it. Private.

    Attributes:
        items: int32 `[n]`, oldest first.
        n_asked: of them, at most n - 1, since the first has nothing before it.
    Raises: DataError: more.
    """

    items: NDArray[np.int32]
    n_asked: int

    def __post_init__(self) -> None:
        if not 0 <= self.n_asked < max(len(self.items), 1):
            raise DataError("genre rows: the first item has nothing before it", "ask for fewer")

    @property
    def asked(self) -> NDArray[np.int32]:
        """Items whose genre is asked for, `[n_asked]`."""
        return self.items[len(self.items) - self.n_asked :]


def _late_mean(rows: Array) -> Array:
    """Of all rows up to each, weighted the less the earlier they came."""
    found, total, weight = np.empty_like(rows), np.zeros(rows.shape[1]), 0.0
    for place, row in enumerate(rows):
        total, weight = _DECAY * total + row, _DECAY * weight + 1
        found[place] = total / weight
    return found


def _unit(vectors: NDArray[np.float32]) -> Array:
    wide = vectors.astype(np.float64)
    return np.asarray(wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-9))
