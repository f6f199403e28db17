"""New items join an adapter: with what similar texts learnt, in nobody's place."""

import numpy as np
import pytest

from fedrec.errors import ModelError
from fedrec.model.adapter import AdapterState
from fedrec.model.new_items import admit_new_items
from fedrec.model.recommender import AdapterShape

PRIOR, VECTORS, HEAD = "m.popularity.histogram", "m.item_emb.weight", "m.score_head.weight"
N_ITEMS, NEW = 60, np.array([0, 7, 59])
KNOWN = np.setdiff1d(np.arange(N_ITEMS), NEW)


def made(item_rows: int = 0) -> tuple[AdapterState, AdapterState, AdapterShape, np.ndarray]:
    """An adapter whose vectors and priors follow from the texts, an untrained one, their shape, and the texts."""
    rng = np.random.default_rng(0)
    texts = rng.normal(size=(N_ITEMS, 4)).astype(np.float32)
    texts[NEW] = 1.1 * texts[KNOWN[[5, 20, 40]]]
    rows = item_rows or N_ITEMS
    shape = AdapterShape(2, 3, 4, 4, 4, popularity_floor=0.25, item_rows=item_rows)
    everything = {
        PRIOR: (1 + np.tanh(texts[:, 0])).astype(np.float32),
        VECTORS: (texts @ rng.normal(size=(4, 3))).astype(np.float32)[:rows],
        HEAD: np.ones((2, 2), np.float32),
    }
    fresh = AdapterState({name: np.zeros_like(value) for name, value in everything.items()})
    own = {name: value[KNOWN] if len(value) == N_ITEMS else value for name, value in everything.items()}
    return AdapterState(own), fresh, shape, texts


def test_a_new_item_gets_what_its_text_predicts() -> None:
    trained, fresh, shape, texts = made()
    joined = admit_new_items(trained, fresh, shape, texts, KNOWN, 0.0).tensors
    for name in (PRIOR, VECTORS):
        np.testing.assert_array_equal(joined[name][KNOWN], trained.tensors[name])
    np.testing.assert_array_equal(joined[HEAD], trained.tensors[HEAD])
    vectors = joined[VECTORS]
    for new, like in zip(NEW, KNOWN[[5, 20, 40]], strict=True):
        distance = np.linalg.norm(vectors[KNOWN] - vectors[new], axis=1)
        assert KNOWN[np.argsort(distance)[:4]].tolist().count(like) == 1


def test_boost_is_in_nats_of_the_floored_popularity() -> None:
    trained, fresh, shape, texts = made()
    plain, boosted = (admit_new_items(trained, fresh, shape, texts, KNOWN, b).tensors[PRIOR] for b in (0.0, 0.7))
    np.testing.assert_allclose(np.log(boosted[NEW] + 0.25) - np.log(plain[NEW] + 0.25), 0.7, atol=1e-5)
    np.testing.assert_array_equal(boosted[KNOWN], plain[KNOWN])


def test_no_new_item_takes_a_vector_of_those_that_have_one() -> None:
    trained, fresh, shape, texts = made(item_rows=10)
    joined = admit_new_items(trained, fresh, shape, texts, KNOWN, 9.0).tensors
    np.testing.assert_array_equal(joined[VECTORS], trained.tensors[VECTORS])
    top = np.argsort(-np.log(np.maximum(joined[PRIOR], 0) + np.float32(0.25)), kind="stable")[:10]
    before = KNOWN[np.argsort(-trained.tensors[PRIOR], kind="stable")[:10]]
    assert top.tolist() == before.tolist()


def test_codes_of_another_catalogue_are_refused() -> None:
    trained, fresh, shape, texts = made()
    with pytest.raises(ModelError, match="known items"):
        admit_new_items(trained, fresh, shape, texts, KNOWN[1:], 0.0)


def test_vectors_of_items_without_popularity_are_refused() -> None:
    trained, fresh, shape, texts = made(item_rows=10)
    silent = AdapterState({**trained.tensors, PRIOR: np.zeros_like(trained.tensors[PRIOR])})
    with pytest.raises(ModelError, match="fewer than 10 items"):
        admit_new_items(silent, fresh, shape, texts, KNOWN, 0.0)
