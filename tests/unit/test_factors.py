"""iALS and BPR of the library, held to what the papers' equations say of them."""

import numpy as np
import pytest

from fedrec.errors import ConfigError
from fedrec.evaluation.baselines.factors import BPR, BPR_GRID, FOLD_L2, IALS, IALS_GRID
from fedrec.evaluation.baselines.linear import user_item_matrix

N_USERS, N_ITEMS = 30, 20


def histories() -> list[np.ndarray]:
    rng = np.random.default_rng(4)
    return [
        rng.permutation(np.arange(user % 2, N_ITEMS, 2))[: rng.integers(2, 9)].astype(np.int32)
        for user in range(N_USERS)
    ]


def least_squares(wanted: np.ndarray, factors: np.ndarray, alpha: float, l2: float) -> np.ndarray:
    """Each row's factor by weighted ridge regression, one at a time."""
    rows = []
    for row in wanted:
        weights = np.where(row > 0, alpha, 1.0)
        system = factors.T @ (weights[:, None] * factors) + l2 * np.eye(factors.shape[1])
        rows.append(np.linalg.solve(system, factors.T @ (weights * row)))
    return np.array(rows)


@pytest.mark.parametrize("alpha", [1.0, 4.0])
def test_ials_is_where_both_sides_solve_their_least_squares(alpha: float) -> None:
    matrix = user_item_matrix(histories(), N_ITEMS).toarray()
    model = IALS(factors=3, l2=0.5, alpha=alpha, iterations=400, seed=1).fit(histories(), N_ITEMS)
    items = np.asarray(model._item_factors, np.float64)
    users = least_squares(matrix, items, alpha, 0.5)
    np.testing.assert_allclose(model.score(histories()), users @ items.T, atol=1e-5)
    np.testing.assert_allclose(items, least_squares(matrix.T, users, alpha, 0.5), atol=2e-3)
    assert np.abs(items).max() > 0.1


def test_ials_scores_a_history_that_no_training_user_had() -> None:
    model = IALS(factors=3, l2=0.5, iterations=10, seed=1).fit(histories(), N_ITEMS)
    new = np.array([0, 2, 4, 19], np.int32)
    row = user_item_matrix([new], N_ITEMS).toarray()
    items = np.asarray(model._item_factors, np.float64)
    np.testing.assert_allclose(model.score([new]), least_squares(row, items, 2.0, 0.5) @ items.T, atol=1e-5)


def test_bpr_folds_a_history_in_by_ridge_regression_to_the_trained_users() -> None:
    from implicit.cpu.bpr import BayesianPersonalizedRanking
    from scipy import sparse

    matrix = user_item_matrix(histories(), N_ITEMS).toarray()
    library = BayesianPersonalizedRanking(4, 0.1, 0.01, iterations=30, num_threads=1, random_state=7)
    library.fit(sparse.csr_matrix(matrix.astype(np.float32)), show_progress=False)
    inputs = np.hstack([matrix @ library.item_factors[:, :-1] / np.sqrt(matrix.sum(axis=1))[:, None], np.ones((30, 1))])
    padded = np.vstack([inputs, np.sqrt(FOLD_L2) * np.eye(5)])
    targets = np.vstack([library.user_factors[:, :-1], np.zeros((5, 4))])
    fold = np.linalg.lstsq(padded, targets, rcond=None)[0]
    expected = inputs @ fold @ library.item_factors[:, :-1].T + library.item_factors[:, -1]
    model = BPR(factors=4, learning_rate=0.1, l2=0.01, iterations=30, seed=7).fit(histories(), N_ITEMS)
    np.testing.assert_allclose(model.score(histories()), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", [IALS, BPR])
def test_a_seed_decides_and_nothing_else(kind: type[IALS] | type[BPR]) -> None:
    first, again, other = (
        kind(factors=4, iterations=5, seed=seed).fit(histories(), N_ITEMS).score(histories()) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("kind", [IALS, BPR])
def test_settings_out_of_range_are_refused_all_at_once(kind: type[IALS] | type[BPR]) -> None:
    with pytest.raises(ConfigError) as refused:
        kind(factors=0, l2=float("nan"), iterations=-1)
    for named in ("factors = 0", "l2 = nan", "iterations = -1", kind.__name__):
        assert named in str(refused.value)


def test_every_setting_of_the_grids_is_allowed_and_there_once() -> None:
    assert len({repr(IALS(*one)) for one in IALS_GRID}) == len(IALS_GRID) <= 60
    assert len({repr(BPR(*one)) for one in BPR_GRID}) == len(BPR_GRID) <= 60
