"""The live model against the offline one: the same scores, whatever was kept, added or forgotten between."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel

from fedrec.data.catalog import ItemCatalog
from fedrec.model.adapter import AdapterState
from fedrec.model.backbone import load_backbone
from fedrec.model.features import ItemFeatures, TextEncoder, item_features
from fedrec.model.recommender import AdapterShape, build_model, read_state, write_state
from fedrec.recommend.live_model import GrowingRows, LiveModel, as_window, window_start
from fedrec.recommend.readings import HistoryReader, Wanted
from fedrec.recommend.recommender import ModelRecommender

SHAPE = AdapterShape(rank=2, item_dim=3, summary_dim=4, context_dim=6, score_dim=5, popularity_floor=0.5)


def trained(folder: Path, features: ItemFeatures, shape: AdapterShape = SHAPE) -> PeftModel:
    model = build_model(load_backbone(folder, 2, torch.device("cpu"), torch.float32), features, shape, 0)
    rng = np.random.default_rng(1)
    state = read_state(model).tensors
    noise = {k: (v + 0.2 * rng.standard_normal(v.shape)).astype(np.float32) for k, v in state.items()}
    write_state(model, AdapterState(noise))
    return model


@pytest.fixture(scope="module", params=[0, 7])
def model(request: pytest.FixtureRequest, tiny_llama: Path, features: ItemFeatures) -> PeftModel:
    """With a trained vector for every item, or for some."""
    shape = AdapterShape(**{**vars(SHAPE), "item_rows": request.param})
    return trained(tiny_llama, features, shape)


def live_scores(live: LiveModel, reader: HistoryReader, codes: list[int], key: object = "somebody") -> np.ndarray:
    array = np.array(codes, np.int64)
    context = reader.read([Wanted(key, array)])[0]
    return live.scores(live.user_vector(as_window(codes, [1.0] * len(codes), context))[None])[0]


def test_scores_are_those_of_the_offline_model_as_a_history_grows(model: PeftModel) -> None:
    live = LiveModel(model, "round-0001", 20)
    reader, slow = HistoryReader(live, 1 << 20), ModelRecommender(model, 20)
    for n in range(1, 12):
        codes = [(7 * place) % 40 for place in range(n)]
        np.testing.assert_allclose(
            live_scores(live, reader, codes), slow.score([np.array(codes)])[0], rtol=2e-4, atol=2e-4
        )
    assert (reader.n_read, reader.n_extended) == (1, 10)
    np.testing.assert_allclose(live.scores(live.prior_vector()[None])[0], slow.score([np.array([])])[0], atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
def test_many_at_once_are_read_as_one_by_one(
    kind: str, tmp_path: Path, features: ItemFeatures, make_tiny: Callable[[str, Path], Path]
) -> None:
    live = LiveModel(trained(make_tiny(kind, tmp_path / kind), features), "v", 20)
    rng = np.random.default_rng(0)
    histories = [rng.integers(0, 40, n) for n in (1, 7, 33, 9, 8, 40)]
    together = HistoryReader(live, 1 << 24, batch_users=4)
    for cut in (6, 5, 4, 0):  # whole, then one token more, twice, then several
        wanted = [Wanted(i, h[: len(h) - cut]) for i, h in enumerate(histories) if len(h) > cut]
        found = together.read(wanted)
        alone = np.concatenate([HistoryReader(live, 0).read([Wanted(None, one.codes)]) for one in wanted])
        np.testing.assert_allclose(found, alone, rtol=1e-4, atol=1e-4)
    assert (together.n_extended, together.n_read) == (3 * 5, 5 + 1)  # the shortest began last


def test_who_was_asked_for_longest_ago_is_forgotten_first(model: PeftModel) -> None:
    live = LiveModel(model, "v", 20)
    one = HistoryReader(live, 1 << 30)
    one.read([Wanted(0, np.array([1, 2]))])
    reader = HistoryReader(live, 2 * one.n_bytes)
    for user in (0, 1, 0, 2):
        reader.read([Wanted(user, np.array([1, 2, 3][: 2 + (user == 0 and reader.n_kept == 2)]))])
    assert reader.n_kept == 2
    assert reader.n_bytes <= 2 * one.n_bytes
    reader.read([Wanted(0, np.array([1, 2, 3, 4]))])
    assert reader.n_extended == 2, "user 0 was kept, 1 went"
    reader.forget(0)
    reader.forget(2)
    assert (reader.n_kept, reader.n_bytes) == (0, 0)


def test_a_history_that_changed_before_its_end_is_read_anew(model: PeftModel) -> None:
    live = LiveModel(model, "v", 20)
    reader, slow = HistoryReader(live, 1 << 20), ModelRecommender(model, 20)
    live_scores(live, reader, [1, 2, 3])
    for codes in ([1, 9, 3, 4], [5], [6, 5, 7], [6, 5]):
        np.testing.assert_allclose(
            live_scores(live, reader, codes), slow.score([np.array(codes)])[0], rtol=2e-4, atol=2e-4
        )
    assert reader.n_extended == 0


def test_an_item_with_the_text_of_another_is_scored_like_it_but_for_the_boost(
    tiny_llama: Path, features: ItemFeatures, catalog: ItemCatalog, tmp_path: Path
) -> None:
    made = item_features(catalog, tiny_llama, None, layer=2, dim=8, cache=tmp_path)
    np.testing.assert_allclose(made.vectors, features.vectors)
    encoder = TextEncoder(catalog, tiny_llama, None, layer=2, dim=8, cache=tmp_path)
    texts = encoder.encode(catalog.texts)
    np.testing.assert_allclose(texts, features.vectors, atol=1e-3)
    model = trained(tiny_llama, features)
    plain, high = LiveModel(model, "v", 20), LiveModel(model, "v", 20, new_item_boost=1.0)
    for live in (plain, high):
        live.add_items(texts[[3, 4]])
        assert live.n_items == 42
    np.testing.assert_allclose(plain.texts[40], plain.texts[3], atol=1e-3)
    np.testing.assert_allclose(high.prior[40:] - plain.prior[40:], 1.0, atol=1e-4)
    np.testing.assert_allclose(plain.score_rows[40, :-1][:5], plain.score_rows[3, :-1][:5], atol=1e-3)
    live_scores(plain, HistoryReader(plain, 1 << 20), [40, 3, 41])  # and can be read


@given(st.integers(1, 400), st.integers(1, 60), st.integers(1, 60))
def test_the_window_reads_at_least_the_trained_length_and_moves_seldom(n: int, most: int, slack: int) -> None:
    start = window_start(n, most, slack)
    assert 0 <= start < n
    assert n - start <= most + slack
    assert start == 0 or n - start >= most
    assert start % slack == 0
    assert window_start(n + 1, most, slack) - start in (0, slack)


def test_rows_grow_and_older_views_stay() -> None:
    rows = GrowingRows(np.zeros((2, 3), np.float32))
    before = rows.rows
    for value in range(1, 6):
        rows.append(np.full((2, 3), value, np.float32))
    assert before.shape == (2, 3)
    assert rows.rows[:, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_leaving_each_out_is_what_a_window_without_it_gives(model: PeftModel) -> None:
    live = LiveModel(model, "v", 20)
    codes, weights = [1, 5, 9, 12], [1.0, 2.0, 1.0, 0.5]
    context = HistoryReader(live, 0).read([Wanted(None, np.array(codes))])[0]
    found = live.without_each(as_window(codes, weights, context))
    for place in range(4):
        fewer = as_window(np.delete(codes, place), np.delete(weights, place), context)
        np.testing.assert_allclose(found[place], live.user_vector(fewer), rtol=1e-4, atol=1e-5)


def test_weights_of_one_are_as_in_training_and_others_are_not(model: PeftModel) -> None:
    live = LiveModel(model, "v", 20)
    context = HistoryReader(live, 0).read([Wanted(None, np.array([1, 2]))])[0]
    ones, doubled = (live.user_vector(as_window([1, 2], w, context)) for w in ([1.0, 1.0], [2.0, 1.0]))
    assert not np.allclose(ones, doubled)
    tenfold = live.user_vector(as_window([1, 2], [10.0, 10.0], context))
    np.testing.assert_allclose(ones, tenfold, rtol=1e-5)
