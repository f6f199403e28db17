"""The floors against slow and obvious versions of themselves."""

import numpy as np
import pytest

from fedrec.data.splits import EvaluationSplit
from fedrec.errors import ConfigError, DataError
from fedrec.evaluation.baselines.linear import EASE, EASE_GRID, ItemKNN, Popularity, item_popularity
from fedrec.evaluation.baselines.tuning import tune

SIDE = 20


def random_histories(seed: int, n_users: int = 50, n_items: int = 30) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    weight = 1 / np.arange(1, n_items + 1)
    return [
        rng.choice(n_items, rng.integers(1, 15), replace=False, p=weight / weight.sum()).astype(np.int32)
        for _ in range(n_users)
    ]


def dense(histories: list[np.ndarray], n_items: int) -> np.ndarray:
    matrix = np.zeros((len(histories), n_items))
    for row, history in zip(matrix, histories, strict=True):
        row[history] = 1
    return matrix


def checkerboard() -> list[np.ndarray]:
    """User u has every second item, as the black squares of row u, but not item u itself."""
    return [np.array([i for i in range(SIDE) if (i + u) % 2 == 0 and i != u], np.int32) for u in range(SIDE)]


@pytest.mark.parametrize("model", [ItemKNN(SIDE, 0.0), ItemKNN(5, 10.0), EASE(1.0), EASE(100.0)], ids=repr)
def test_the_withheld_square_of_a_checkerboard_is_the_best_unseen_item(model: ItemKNN | EASE) -> None:
    histories = checkerboard()
    scores = model.fit(histories, SIDE).score(histories)
    scores[dense(histories, SIDE) > 0] = -np.inf
    assert scores.argmax(axis=1).tolist() == list(range(SIDE))


def test_popularity_counts_users_not_repeats() -> None:
    histories = [np.array([2, 2, 2, 1], np.int32), np.array([1], np.int32)]
    assert item_popularity(histories, 4).tolist() == [0, 2, 1, 0]
    assert Popularity().fit(histories, 4).score(histories).tolist() == [[0, 2, 1, 0]] * 2


@pytest.mark.parametrize("l2", [0.5, 50.0])
def test_ease_equals_the_constrained_ridge_regression_of_each_item(l2: float) -> None:
    # Steck's closed form is the ridge regression of each column on all the others.
    histories, n_items = random_histories(1), 30
    matrix = dense(histories, n_items)
    weights = np.zeros((n_items, n_items))
    for item in range(n_items):
        others = np.delete(np.arange(n_items), item)
        inputs = matrix[:, others]
        gram = inputs.T @ inputs + l2 * np.eye(n_items - 1)
        weights[others, item] = np.linalg.solve(gram, inputs.T @ matrix[:, item])
    np.testing.assert_allclose(EASE(l2).fit(histories, n_items).score(histories), matrix @ weights, atol=1e-5)


@pytest.mark.parametrize(("neighbours", "shrink"), [(1, 0.0), (4, 2.0), (100, 10.0)])
def test_item_knn_equals_brute_force(neighbours: int, shrink: float) -> None:
    histories, n_items = random_histories(2), 30
    matrix = dense(histories, n_items)
    weights = np.zeros((n_items, n_items))
    for item in range(n_items):
        similar = {}
        for other in range(n_items):
            together = float(matrix[:, item] @ matrix[:, other])
            size = np.sqrt(matrix[:, item].sum()) * np.sqrt(matrix[:, other].sum())
            if other != item and together:
                similar[other] = together / (size + shrink)
        for other in sorted(similar, key=lambda o: (-similar[o], o))[:neighbours]:
            weights[other, item] = similar[other]
    scores = ItemKNN(neighbours, shrink).fit(histories, n_items).score(histories)
    np.testing.assert_allclose(scores, matrix @ weights, atol=1e-5)


def _splits() -> list[EvaluationSplit]:
    return [
        EvaluationSplit(user=str(u), train=h[:-2], validation=h[-2:-1], test=h[-1:])
        for u, h in enumerate(random_histories(3, n_users=80))
        if len(h) >= 3
    ]


def test_tuning_takes_the_best_on_validation_fitted_on_training_items() -> None:
    splits, train = _splits(), [split.train for split in _splits()]
    ease = tune((EASE(l2) for l2 in (1e6, 3.0, 30.0)), splits, 30, tie_seed=1)
    knn = tune((ItemKNN(1, 0.0), ItemKNN(20, 5.0)), splits, 30, tie_seed=1)
    for tuned, again in (
        (ease, EASE(ease.scorer.l2)),
        (knn, ItemKNN(knn.scorer.neighbours, knn.scorer.shrink)),
    ):
        best = max(reached for _, reached in tuned.tried)
        assert dict(tuned.tried)[repr(tuned.scorer)] == best > min(reached for _, reached in tuned.tried)
        assert type(tuned.scorer)(**tuned.chosen) == again  # settings only, no weights
        assert (tuned.scorer.score(train) == again.fit(train, 30).score(train)).all()


def test_the_test_items_do_not_reach_the_tuning() -> None:
    splits = _splits()
    blind = [EvaluationSplit(user=s.user, train=s.train, validation=s.validation, test=s.test[:0]) for s in splits]
    tuned = [tune(map(EASE, EASE_GRID), x, 30, tie_seed=1).tried for x in (splits, blind)]
    assert tuned[0] == tuned[1]


def test_settings_out_of_range_are_refused() -> None:
    for make in (lambda: EASE(0.0), lambda: EASE(np.nan), lambda: ItemKNN(0), lambda: ItemKNN(5, -1.0)):
        with pytest.raises(ConfigError):
            make()
    with pytest.raises(ConfigError, match="grid is empty"):
        tune((), _splits(), 30, tie_seed=1)
    with pytest.raises(DataError, match="no user"):
        tune((EASE(),), [], 30, tie_seed=1)
