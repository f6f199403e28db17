"""The floors: popularity, ItemKNN and EASE. All deterministic."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from fedrec.errors import ConfigError, DataError, ModelError
from fedrec.evaluation.protocol import Items

Float32s = NDArray[np.float32]

# Grids are stated beside what they tune, so that "tuned" has one meaning in every table.
EASE_GRID = (10.0, 30.0, 100.0, 200.0, 300.0, 500.0, 1000.0, 3000.0)  # l2
ITEM_KNN_GRID = tuple((n, s) for n in (5, 10, 20, 50, 100, 200, 400) for s in (0.0, 10.0))  # neighbours, shrink


def user_item_matrix(histories: Sequence[Items], n_items: int) -> sparse.csr_array:
    """Who has what: 0/1 float64 `[users, items]`, repeats count once; private.

    Raises: DataError: an item code outside the catalogue.
    """
    lengths = [len(history) for history in histories]
    columns = np.concatenate([np.zeros(0, np.int32), *histories]).astype(np.int64)
    if columns.size and (columns.min() < 0 or columns.max() >= n_items):
        raise DataError(f"an item code lies outside the catalogue of {n_items} items", "use one catalogue")
    rows = np.repeat(np.arange(len(histories)), lengths)
    matrix = sparse.csr_array((np.ones(len(columns)), (rows, columns)), shape=(len(histories), n_items))
    # The conversion has sorted each row and added up repeats, so a history's order does not matter.
    matrix.data[:] = 1.0
    return matrix


def item_popularity(histories: Sequence[Items], n_items: int) -> NDArray[np.int64]:
    """Users per item, int64 `[items]`. Privacy: exact counts; one user changes each by at most one."""
    return np.asarray(user_item_matrix(histories, n_items).sum(axis=0)).astype(np.int64)


@dataclass
class Popularity:
    """Every user gets what most users have."""

    _counts: Float32s | None = field(default=None, init=False, repr=False, compare=False)

    def fit(self, histories: Sequence[Items], n_items: int) -> Self:
        """Count users per item."""
        self._counts = item_popularity(histories, n_items).astype(np.float32)
        return self

    def score(self, histories: Sequence[Items]) -> Float32s:
        """Users per item, the same row for all: float32 `[users, items]`."""
        return np.tile(_fitted(self._counts, self), (len(histories), 1))


@dataclass
class ItemKNN:
    """Sum of cosine similarities from the user's items to each item's nearest neighbours.

    Args:
        neighbours: kept per scored item, the most similar; ties go to the lower item code.
        shrink: added to the denominator, so that similarities from few users count less; in users, >= 0.
    Reference: Deshpande and Karypis 2004, doi:10.1145/963770.963776.
    """

    neighbours: int = 50
    shrink: float = 10.0
    _weights: sparse.csr_array | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.neighbours < 1 or not 0 <= self.shrink < np.inf:
            raise ConfigError(
                f"ItemKNN: neighbours={self.neighbours}, shrink={self.shrink}", "neighbours >= 1, shrink >= 0"
            )

    def fit(self, histories: Sequence[Items], n_items: int) -> Self:
        """Compute item-item similarities and keep the `neighbours` largest of each scored item."""
        matrix = user_item_matrix(histories, n_items)
        norms = np.sqrt(np.asarray(matrix.sum(axis=0)))
        gram = (matrix.T @ matrix).tocsr()
        gram.sort_indices()
        pairs = gram.tocoo()  # by scored item, then by neighbour, as the tie-break wants it
        scored, near = pairs.coords
        cosines = pairs.data / (norms[scored] * norms[near] + self.shrink)
        cosines[scored == near] = 0.0
        order = np.lexsort((-cosines, scored))
        place = np.arange(len(order)) - gram.indptr[scored]  # 0 for an item's most similar
        kept = order[(place < self.neighbours) & (cosines[order] > 0)]
        entries = (cosines[kept].astype(np.float32), (near[kept], scored[kept]))
        self._weights = sparse.csr_array(entries, shape=(n_items, n_items))
        return self

    def score(self, histories: Sequence[Items]) -> Float32s:
        """Similarity of each item to the history: float32 `[users, items]`."""
        return _weigh(histories, _fitted(self._weights, self))


@dataclass
class EASE:
    """A linear item-item autoencoder in closed form.

    Args:
        l2: weight of the ridge penalty, > 0.
    Reference: Steck 2019, arXiv:1905.03375, equation 8. Needs memory for items x items float64 matrices.
    """

    l2: float = 300.0
    _weights: Float32s | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 < self.l2 < np.inf:
            raise ConfigError(f"EASE: l2={self.l2}", "l2 must be > 0 and finite")

    def fit(self, histories: Sequence[Items], n_items: int) -> Self:
        """Solve B = I - P diag(1 / diag P) with P = (X'X + l2 I)^-1."""
        matrix = user_item_matrix(histories, n_items)
        gram = (matrix.T @ matrix).toarray()
        gram[np.diag_indices(n_items)] += self.l2
        inverse = linalg.inv(gram, overwrite_a=True, check_finite=False)
        weights = -inverse / np.diag(inverse)
        np.fill_diagonal(weights, 0.0)
        self._weights = weights.astype(np.float32)
        return self

    def score(self, histories: Sequence[Items]) -> Float32s:
        """Sum of the weights from the history's items: float32 `[users, items]`."""
        return _weigh(histories, _fitted(self._weights, self))


T = TypeVar("T")


def _fitted(weights: T | None, scorer: object) -> T:
    if weights is None:
        raise ModelError(f"{type(scorer).__name__} is not fitted", "call fit first")
    return weights


def _weigh(histories: Sequence[Items], weights: Float32s | sparse.csr_array) -> Float32s:
    """Add up the rows of a history's items; sparse, so that a user's sum is the same alone and in a batch."""
    users = user_item_matrix(histories, weights.shape[0]).astype(np.float32)
    scores: Float32s = users @ weights if isinstance(weights, np.ndarray) else (users @ weights).toarray()
    return scores
