"""Every recommender's rank: k distinct unseen items, best first, equal to a brute-force top k."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedrec.errors import DataError
from fedrec.model.backbone import load_backbone
from fedrec.model.features import ItemFeatures
from fedrec.model.recommender import AdapterShape, build_model
from fedrec.recommend.recommender import ModelRecommender, RankedList, Recommender, top_k


@dataclass
class Fixed:
    """A recommender with one fixed score an item."""

    scores: np.ndarray

    def score(self, histories: Sequence[np.ndarray]) -> np.ndarray:
        return np.tile(self.scores, (len(histories), 1))

    def rank(self, history: np.ndarray, k: int) -> RankedList:
        return top_k(self.score([history])[0], history, k, "popularity")


@pytest.fixture(params=["fixed", "model"])
def recommender(request: pytest.FixtureRequest, tiny_llama: Path, features: ItemFeatures) -> Recommender:
    if request.param == "fixed":
        return Fixed(np.random.default_rng(3).standard_normal(40).astype(np.float32))
    shape = AdapterShape(rank=2, item_dim=2, summary_dim=4, context_dim=4, score_dim=4)
    backbone = load_backbone(tiny_llama, 2, torch.device("cpu"), torch.float32)
    model = build_model(backbone, features, shape, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)
    return ModelRecommender(model, 20)


@pytest.mark.parametrize("history", [[], [5], [5, 6, 7], list(range(30)) * 2])
def test_rank_is_the_brute_force_top_k(recommender: Recommender, history: list[int]) -> None:
    codes = np.array(history, np.int32)
    ranked = recommender.rank(codes, 8)
    scores = recommender.score([codes])[0]
    unseen = [item for item in range(40) if item not in history]
    expected = sorted(unseen, key=lambda item: (-scores[item], item))[:8]
    assert ranked.items.tolist() == expected
    np.testing.assert_allclose(ranked.scores, scores[expected], rtol=1e-5)


def test_too_many_are_refused(recommender: Recommender) -> None:
    with pytest.raises(DataError, match="38 items are unseen"):
        recommender.rank(np.array([1, 2], np.int32), 39)


def test_nothing_private_shows(recommender: Recommender) -> None:
    assert "[" not in repr(recommender.rank(np.array([1, 2], np.int32), 3))


@given(st.lists(st.integers(-3, 3), min_size=3, max_size=12), st.data())
def test_top_k_breaks_ties_by_code(values: list[int], data: st.DataObject) -> None:
    seen = data.draw(st.lists(st.integers(0, len(values) - 1), max_size=len(values) - 1, unique=True))
    k = data.draw(st.integers(1, len(values) - len(seen)))
    ranked = top_k(np.array(values, np.float32), np.array(seen, np.int32), k, "model")
    expected = sorted(set(range(len(values))) - set(seen), key=lambda item: (-values[item], item))[:k]
    assert ranked.items.tolist() == expected
