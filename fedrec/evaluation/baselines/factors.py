"""Matrix factorisation of the library implicit, on one thread: iALS and BPR, which fold a history in.

A scorer is asked with histories, not with users: for the test they hold the validation item, which no user factor of
the training knows. So both compute the factor of the history they are shown.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Self, TypeVar

import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from implicit.cpu.bpr import BayesianPersonalizedRanking
from numpy.typing import NDArray
from scipy import linalg, sparse
from threadpoolctl import threadpool_limits

from fedrec.errors import ConfigError, ModelError
from fedrec.evaluation.baselines.linear import user_item_matrix
from fedrec.evaluation.protocol import Items

Float32s = NDArray[np.float32]
T = TypeVar("T")

# Grids, so that "tuned" has one meaning in every table.
IALS_GRID = tuple(product((32, 64, 128), (1.0, 4.0, 10.0, 20.0), (2.0, 4.0), (8, 16)))  # factors, l2, alpha, iterations
BPR_GRID = tuple(product((32, 64), (0.01, 0.02, 0.05), (0.003, 0.01, 0.03), (50, 100)))  # factors, rate, l2, iterations
FOLD_L2 = 1.0  # of the map from histories to BPR's user factors; .1, 1 and 3 differ by less than seeds do


@dataclass
class IALS:
    """Weighted least squares on who has what: the missing entries count once, the others `alpha` times.

    Args:
        factors: length of a factor.
        l2: weight of the ridge penalty, > 0.
        alpha: > 0.
        iterations: of users and items in turn.
        seed: of the first factors.
    Reference: Hu et al. 2008, doi:10.1109/ICDM.2008.22; that it must be tuned: Rendle et al. 2021, arXiv:2110.14037.
    """

    factors: int = 64
    l2: float = 4.0
    alpha: float = 2.0
    iterations: int = 16
    seed: int = field(default=0, repr=False)
    _item_factors: Float32s | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check(self, whole=("factors", "iterations"), positive=("l2", "alpha"))

    def fit(self, histories: Sequence[Items], n_items: int) -> Self:
        """Factorise; only the item factors are kept."""
        matrix = _weights(histories, n_items)
        if matrix.nnz == 0:
            self._item_factors = np.zeros((n_items, self.factors), np.float32)
            return self
        # The library wants BLAS on one thread, and says so as a warning when the environment does not.
        with threadpool_limits(1, "blas"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="OpenBLAS is configured|Intel MKL BLAS is configured")
            model = AlternatingLeastSquares(
                self.factors, self.l2, self.alpha, iterations=self.iterations, num_threads=1, random_state=self.seed
            )
            model.fit(matrix, show_progress=False)
        self._item_factors = np.array(model.item_factors)
        return self

    def score(self, histories: Sequence[Items]) -> Float32s:
        """The closed form of each history's user factor, times the item factors: float32 `[users, items]`."""
        items = _fitted(self._item_factors, self).astype(np.float64)
        shared = items.T @ items + self.l2 * np.eye(self.factors)
        scores = np.zeros((len(histories), len(items)), np.float32)
        # One user at a time: sums of another batch would differ in their last bits.
        for row, one in zip(scores, _weights(histories, len(items)), strict=True):
            had = items[one.indices]
            system = shared + (self.alpha - 1) * had.T @ had
            row[:] = items @ linalg.solve(system, self.alpha * had.sum(axis=0), assume_a="pos", check_finite=False)
        return scores


@dataclass
class BPR:
    """Factors by pairwise ranking: an item of the user above one that the user did not train on.

    The user factor of a history is a linear map of the summed vectors of its items over the root of their number,
    fitted by ridge regression to the factors that the training gave its users. On the validation items of seed 11 that
    did better than the factors themselves (NDCG@10 .071 and .063), and it reads the latest item.

    Args:
        factors: length of a factor.
        learning_rate, l2: of stochastic gradient descent.
        iterations: passes over the training items.
        seed: of the first factors and of the order.
    Reference: Rendle et al. 2009, arXiv:1205.2618.
    """

    factors: int = 32
    learning_rate: float = 0.02
    l2: float = 0.03
    iterations: int = 100
    seed: int = field(default=0, repr=False)
    _item_factors: Float32s | None = field(default=None, init=False, repr=False, compare=False)
    _fold: NDArray[np.float64] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check(self, whole=("factors", "iterations"), positive=("learning_rate", "l2"))

    def fit(self, histories: Sequence[Items], n_items: int) -> Self:
        """Train, then fit the map from histories to user factors. The item bias is the last item factor."""
        matrix = _weights(histories, n_items)
        if matrix.nnz == 0:
            self._item_factors = np.zeros((n_items, self.factors + 1), np.float32)
            self._fold = np.zeros((self.factors + 1, self.factors))
            return self
        with threadpool_limits(1, "blas"):
            model = BayesianPersonalizedRanking(
                self.factors,
                self.learning_rate,
                self.l2,
                iterations=self.iterations,
                num_threads=1,
                random_state=self.seed,
            )
            model.fit(matrix, show_progress=False)
        self._item_factors = np.array(model.item_factors)
        inputs = self._inputs(matrix)
        gram = inputs.T @ inputs + FOLD_L2 * np.eye(self.factors + 1)
        self._fold = linalg.solve(gram, inputs.T @ model.user_factors[:, :-1], assume_a="pos")
        return self

    def score(self, histories: Sequence[Items]) -> Float32s:
        """Folded-in user factor times item factors, plus the item bias: float32 `[users, items]`."""
        items = _fitted(self._item_factors, self).astype(np.float64)
        fold = _fitted(self._fold, self)
        scores = np.zeros((len(histories), len(items)), np.float32)
        for row, inputs in zip(scores, self._inputs(_weights(histories, len(items))), strict=True):
            row[:] = items[:, :-1] @ (inputs @ fold) + items[:, -1]
        return scores

    def _inputs(self, matrix: sparse.csr_matrix) -> NDArray[np.float64]:
        """Summed item vectors over the root of their number, and a one: float64 `[users, factors + 1]`."""
        sums = matrix.astype(np.float64) @ _fitted(self._item_factors, self)[:, :-1].astype(np.float64)
        roots = np.sqrt(np.maximum(np.diff(matrix.indptr), 1))[:, None]
        return np.hstack([sums / roots, np.ones((len(sums), 1))])


def _fitted(factors: T | None, scorer: object) -> T:
    if factors is None:
        raise ModelError(f"{type(scorer).__name__} is not fitted", "call fit first")
    return factors


def _weights(histories: Sequence[Items], n_items: int) -> sparse.csr_matrix:
    """`user_item_matrix` as implicit wants it: float32, 32-bit indices."""
    matrix = sparse.csr_matrix(user_item_matrix(histories, n_items).astype(np.float32))
    matrix.indptr, matrix.indices = matrix.indptr.astype(np.int32), matrix.indices.astype(np.int32)
    return matrix


def _check(model: IALS | BPR, whole: Sequence[str], positive: Sequence[str]) -> None:
    values = {name: getattr(model, name) for name in (*whole, *positive)}
    problems = [f"{name} = {values[name]}: must be >= 1" for name in whole if values[name] < 1]
    problems += [f"{name} = {values[name]}: must be > 0" for name in positive if not 0 < values[name] < np.inf]
    if problems:
        raise ConfigError.of_all(problems, "change these settings", type(model).__name__)
