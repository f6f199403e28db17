"""The final ranking: what a weight does, and weights learnt from clicks whose answer is known."""

import numpy as np
import pytest

from fedrec.errors import DataError
from fedrec.recommend.final import (
    FinalWeights,
    ShownFeatures,
    feature_columns,
    final_scores,
    learn_weights,
    propensities,
    standardised,
)
from fedrec.recommend.popularity import Popularity
from fedrec.recommend.shelf import Item, Shelf


def clicks(n: int, truth: np.ndarray, seed: int, *, ranked_by: int = 0) -> list[ShownFeatures]:
    """Lists of ten ordered by one feature; a place is looked at as `propensities` say, and clicked by the truth."""
    random = np.random.default_rng(seed)
    shown = []
    for _ in range(n):
        features = random.normal(size=(10, len(truth)))
        features = features[np.argsort(-features[:, ranked_by])]
        likely = 1 / (1 + np.exp(-(features @ truth - 1)))
        shown.append(ShownFeatures(features, (random.random(10) < likely) & (random.random(10) < propensities(10))))
    return shown


def test_with_the_models_weight_alone_it_is_the_models_score() -> None:
    scores = np.array([3.0, -1.0, 2.5])
    features = np.stack([scores, [1, 2, 3], [0, 0, 0]], 1)
    assert final_scores(features, FinalWeights()) == pytest.approx(scores)
    assert final_scores(np.zeros((0, 3)), FinalWeights()).shape == (0,)
    assert final_scores(np.full((2, 3), np.nan), FinalWeights()).tolist() == [0, 0]


def test_features_are_what_the_shelf_says() -> None:
    shelf = Shelf([Item("a", timestamp=1000.0, fields={"price": 5}), Item("b", timestamp=87400.0), Item("c")])
    weights = FinalWeights(fields={"price": -1.0})
    found = feature_columns(weights, shelf, np.arange(3), np.zeros(3), Popularity.of(np.array([0, 1, 3])), 87400.0)
    assert weights.names == ("model", "recency", "popularity", "price")
    np.testing.assert_allclose(
        found, [[0, -np.log(2), 0, 5], [0, 0, np.log(2), np.nan], [0, np.nan, np.log(4), np.nan]]
    )
    order = np.argsort(-final_scores(found, FinalWeights(0.0, 1.0, fields={"price": 0.0})))
    assert order[0] == 1


def test_standardised_columns_have_no_mean_and_unit_spread() -> None:
    columns = standardised(np.array([[1.0, 7, np.inf], [2, 7, 1], [6, 7, 3]]))
    assert columns.mean(0) == pytest.approx([0, 0, 0])
    assert columns[:, 0].std() == pytest.approx(1)
    assert columns[:, 1].tolist() == [0, 0, 0]
    assert columns[0, 2] == 0


def test_weights_are_learnt_from_clicks() -> None:
    truth = np.array([0.5, 0.0, 1.0])
    learnt = learn_weights(clicks(3000, truth, 1), FinalWeights()).row
    cosine = learnt @ truth / (np.linalg.norm(learnt) * np.linalg.norm(truth))
    naive = learn_weights(clicks(3000, truth, 1), FinalWeights(), eta=0.0).row
    naive_cosine = naive @ truth / (np.linalg.norm(naive) * np.linalg.norm(truth))
    assert cosine > 0.97
    assert cosine > naive_cosine + 0.02  # which takes the place of what was shown first for what is liked


def test_few_data_stay_near_the_prior() -> None:
    prior = FinalWeights(1.0, 0.2, -0.1)
    assert learn_weights([], prior) == prior
    truth = np.array([0.0, 0.0, 3.0])
    few, many = (learn_weights(clicks(n, truth, 2), prior).row for n in (3, 2000))
    assert np.linalg.norm(few - prior.row) < 0.3 < np.linalg.norm(many - prior.row)
    nothing = [ShownFeatures(np.ones((4, 3)), np.full(4, is_clicked)) for is_clicked in (True, False)]
    assert learn_weights(nothing, prior) == prior


def test_lists_that_do_not_fit_are_named() -> None:
    with pytest.raises(DataError, match="different lengths"):
        ShownFeatures(np.ones((4, 3)), np.ones(3, bool))
    with pytest.raises(DataError, match="other features"):
        learn_weights([ShownFeatures(np.ones((4, 2)), np.ones(4, bool))], FinalWeights())
