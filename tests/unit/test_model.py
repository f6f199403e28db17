"""The item-token model: shapes, causality, saving, and every backbone type."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel, get_peft_model_state_dict

from fedrec.errors import ModelError
from fedrec.model.adapter import AdapterState
from fedrec.model.adapter_folder import AdapterCard, read_adapter, read_card, save_adapter
from fedrec.model.backbone import load_backbone, pick_device, pick_dtype
from fedrec.model.features import ItemFeatures
from fedrec.model.methods import part_of
from fedrec.model.recommender import (
    AdapterShape,
    ItemTokenModel,
    adapter_parameters,
    build_model,
    item_token_model,
    part_names,
    read_state,
    user_losses,
    write_state,
)
from fedrec.recommend.recommender import ModelRecommender
from fedrec.training.local import item_vectors_apart

SHAPE = AdapterShape(rank=2, item_dim=3, summary_dim=4, context_dim=6, score_dim=5)


def fresh(folder: Path, features: ItemFeatures, shape: AdapterShape = SHAPE, seed: int = 0) -> PeftModel:
    return build_model(load_backbone(folder, 2, torch.device("cpu"), torch.float32), features, shape, seed)


def shaken(model: PeftModel) -> PeftModel:
    state = read_state(model)
    rng = np.random.default_rng(1)
    noise = {k: (v + 0.1 * rng.standard_normal(v.shape)).astype(np.float32) for k, v in state.tensors.items()}
    write_state(model, AdapterState(noise))
    return model


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
def test_every_backbone_type_scores_and_trains(
    kind: str, tmp_path: Path, features: ItemFeatures, make_tiny: Callable[[str, Path], Path]
) -> None:
    model = shaken(fresh(make_tiny(kind, tmp_path / kind), features))
    scores = model(torch.tensor([[1, 2, 3], [4, 5, 0]]))
    assert scores.shape == (2, 3, 40)
    user_losses(scores, torch.tensor([[2, 3, 4], [5, -100, -100]])).sum().backward()
    lora = [p for n, p in adapter_parameters(model).items() if part_of(n) == "lora"]
    assert lora
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in lora)


def test_an_untrained_head_ranks_by_likeness_to_the_history(tiny_llama: Path, features: ItemFeatures) -> None:
    shape = AdapterShape(rank=2, item_dim=0, summary_dim=4, context_dim=6, score_dim=5, head_start=15.0)
    history = np.array([7, 7, 7], np.int32)
    likeness = features.vectors[:, :4] @ features.vectors[7, :4]
    scores = ModelRecommender(fresh(tiny_llama, features, shape), 50).score([history])[0]
    np.testing.assert_allclose(scores - scores.mean(), 15 * (likeness - likeness.mean()), rtol=1e-3, atol=1e-4)
    silent = ModelRecommender(fresh(tiny_llama, features, replace(shape, head_start=0.0)), 50).score([history])[0]
    assert np.ptp(silent) == 0


def test_only_the_most_popular_items_have_a_vector(tiny_llama: Path, features: ItemFeatures) -> None:
    shape = replace(SHAPE, item_rows=4)
    model = fresh(tiny_llama, features, shape)
    tokens = item_token_model(model)
    (name,) = part_names(model, ["prior"])
    state = read_state(model)
    histogram = np.zeros(tokens.n_items, np.float32)
    histogram[[30, 7, 12, 3]] = [4, 3, 2, 1]
    write_state(model, AdapterState({**state.tensors, name: histogram}))
    assert tokens.items_with_vector().tolist() == [30, 7, 12, 3]
    assert adapter_parameters(model)["base_model.model.item_emb.weight"].shape == (4, 3)
    items = torch.tensor([[7, 5, 30]])
    learnt = tokens.item_vectors(1)
    assert learnt is not None
    seen = tokens.eval().summary(items, torch.zeros(1, 3, 6), learnt, None)[0, :, 2 * (4 + 3) :][
        :, 4:7
    ]  # the last item's
    torch.testing.assert_close(seen, torch.stack([learnt[0, 1], torch.zeros(3), learnt[0, 0]]))
    user_vectors = torch.cat([torch.zeros(1, 1, 5), torch.ones(1, 1, 3)], -1)
    scores = tokens.scores(user_vectors, learnt, None)[0, 0] - tokens.popularity(shape.popularity_floor)
    expected = torch.zeros(tokens.n_items)
    expected[[30, 7, 12, 3]] = learnt[0].sum(1)
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-5)


def test_item_vectors_apart_give_the_same_scores(tiny_llama: Path, features: ItemFeatures) -> None:
    for shape in (SHAPE, replace(SHAPE, item_rows=9, item_scale=0.3)):
        model = shaken(fresh(tiny_llama, features, shape)).train()
        items = torch.tensor([[1, 2, 3], [4, 5, 6]])
        together = model(items)
        with item_vectors_apart(item_token_model(model)):
            torch.testing.assert_close(model(items), together)


def test_items_are_masked_in_training_only(tiny_llama: Path, features: ItemFeatures) -> None:
    model = shaken(fresh(tiny_llama, features, replace(SHAPE, item_masking=0.5)))
    items = torch.tensor([[1, 2, 3, 4, 5, 6]])
    assert not torch.allclose(model.train()(items), model(items))
    torch.testing.assert_close(model.eval()(items), model(items))


def test_a_position_never_sees_later_items(tiny_llama: Path, features: ItemFeatures) -> None:
    model = shaken(fresh(tiny_llama, features)).eval()
    one, other = torch.tensor([[1, 2, 3, 4]]), torch.tensor([[1, 2, 30, 31]])
    torch.testing.assert_close(model(one)[:, :2], model(other)[:, :2])
    assert not torch.allclose(model(one)[:, 2:], model(other)[:, 2:])


def test_batch_equals_single_despite_padding(tiny_llama: Path, features: ItemFeatures) -> None:
    recommender = ModelRecommender(shaken(fresh(tiny_llama, features)), 50)
    histories = [np.array(h, np.int32) for h in ([3, 1, 4, 1, 5], [9], [], [2, 6])]
    together = recommender.score(histories)
    alone = np.concatenate([recommender.score([history]) for history in histories])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)


def test_a_remembered_reading_lasts_as_long_as_what_reads(
    tiny_llama: Path, features: ItemFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = shaken(fresh(tiny_llama, features))
    passes = []
    context = ItemTokenModel.context
    monkeypatch.setattr(ItemTokenModel, "context", lambda self, items: passes.append(1) or context(self, items))
    histories = [np.array(h, np.int32) for h in ([3, 1, 4, 1, 5], [9], [], [2, 6])]
    remembering = ModelRecommender(model, 4, remember=True)

    def moved(part: str) -> None:
        for name, parameter in adapter_parameters(model).items():
            parameter.data += 0.05 * (part_of(name) == part)

    asked = []
    for part in ("none", "head", "prior", "lora", "projection"):
        moved(part)
        before = len(passes)
        scores = remembering.score(histories)
        asked.append(len(passes) > before)
        np.testing.assert_allclose(scores, ModelRecommender(model, 4).score(histories), rtol=1e-4, atol=1e-5)
    assert asked == [True, False, False, True, True]


def test_user_losses_is_a_vector_of_means_within_users() -> None:
    scores = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[1, 2, 3], [4, -100, -100]])
    found = user_losses(scores, targets)
    log_p = scores.log_softmax(-1)
    expected = torch.stack([-(log_p[0, 0, 1] + log_p[0, 1, 2] + log_p[0, 2, 3]) / 3, -log_p[1, 0, 4]])
    torch.testing.assert_close(found, expected)


def test_names_are_those_that_peft_saves(tiny_llama: Path, features: ItemFeatures) -> None:
    model = fresh(tiny_llama, features)
    saved = get_peft_model_state_dict(model, save_embedding_layers=False)
    assert set(adapter_parameters(model)) == set(saved)


def test_same_seed_same_start_other_seed_other_start(tiny_llama: Path, features: ItemFeatures) -> None:
    states = [read_state(fresh(tiny_llama, features, seed=seed)).hash for seed in (1, 1, 2)]
    assert states[0] == states[1] != states[2]


def test_peft_itself_loads_the_saved_folder(tiny_llama: Path, features: ItemFeatures, tmp_path: Path) -> None:
    model = shaken(fresh(tiny_llama, features))
    state = read_state(model)
    card = AdapterCard("round-0001", state.hash, "tiny", "h", 2, "c", "f", SHAPE)
    save_adapter(tmp_path / "adapter", model, state, card, {"mode": "none"}, "# words\n")
    bare = ItemTokenModel(load_backbone(tiny_llama, 2, torch.device("cpu"), torch.float32), features, SHAPE)
    loaded = PeftModel.from_pretrained(bare, tmp_path / "adapter")
    items = torch.tensor([[1, 2, 3]])
    torch.testing.assert_close(loaded.eval()(items), model.eval()(items))
    assert read_card(tmp_path / "adapter") == card
    assert read_adapter(tmp_path / "adapter").hash == state.hash


def test_damaged_adapter_is_refused(tiny_llama: Path, features: ItemFeatures, tmp_path: Path) -> None:
    model = shaken(fresh(tiny_llama, features))
    state = read_state(model)
    card = AdapterCard("round-0001", "another hash", "tiny", "h", 2, "c", "f", SHAPE)
    save_adapter(tmp_path, model, state, card, {}, "")
    with pytest.raises(ModelError, match="not those of"):
        read_adapter(tmp_path)


def test_foreign_adapter_changes_nothing(tiny_llama: Path, features: ItemFeatures) -> None:
    model = fresh(tiny_llama, features)
    before = read_state(model)
    tensors = dict(before.tensors)
    tensors.pop(sorted(tensors)[0])
    with pytest.raises(ModelError, match="does not fit"):
        write_state(model, AdapterState(tensors))
    assert read_state(model).hash == before.hash


def test_a_model_that_reads_what_comes_later_is_refused(tmp_path: Path, make_tiny: Callable[[str, Path], Path]) -> None:
    with pytest.raises(ModelError, match="not a causal LM"):
        load_backbone(make_tiny("bert", tmp_path), 2, torch.device("cpu"), torch.float32)


def test_the_frozen_model_has_no_dropout_of_its_own(tmp_path: Path, make_tiny: Callable[[str, Path], Path]) -> None:
    module = load_backbone(make_tiny("gpt2", tmp_path), 2, torch.device("cpu"), torch.float32).module.train()
    tokens = torch.ones(1, 2, 32)
    torch.testing.assert_close(module(inputs_embeds=tokens)[0], module(inputs_embeds=tokens)[0], rtol=0, atol=0)


def test_wrong_folders_depths_and_devices_are_named(tiny_llama: Path, tmp_path: Path) -> None:
    cpu = torch.device("cpu")
    with pytest.raises(ModelError, match=r"no config\.json"):
        load_backbone(tmp_path, 1, cpu, torch.float32)
    with pytest.raises(ModelError, match="has 3 layers"):
        load_backbone(tiny_llama, 4, cpu, torch.float32)
    (tmp_path / "config.json").write_text('{"model_type": "no-such-type"}')
    with pytest.raises(ModelError, match="not a model"):
        load_backbone(tmp_path, 1, cpu, torch.float32)
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="cuda"):
            pick_device("cuda")
    assert pick_dtype("auto", cpu) in (torch.float32, torch.bfloat16)


def test_weights_held_in_bfloat16_are_computed_with_in_bfloat16(tiny_llama: Path, features: ItemFeatures) -> None:
    """`next(parameters()).dtype` was the stub's, so that bf16 silently ended as fp32."""
    items = torch.tensor([[1, 2, 3, 4]])
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        frozen = load_backbone(tiny_llama, 2, torch.device("cpu"), dtype)
        assert {p.dtype for p in frozen.module.parameters()} == {dtype}
        model = build_model(frozen, features, SHAPE, seed=3)
        assert {p.dtype for p in adapter_parameters(model).values()} == {torch.float32}
        seen: list[torch.dtype] = []
        first = next(m for m in frozen.module.modules() if isinstance(m, torch.nn.Linear))
        first.register_forward_hook(lambda _module, inputs, _output, seen=seen: seen.append(inputs[0].dtype))
        context = item_token_model(model).context(items)
        assert set(seen) == {dtype}
        user_losses(model(items[:, :-1]), items[:, 1:]).sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in adapter_parameters(model).values() if p.grad is not None)
        found[dtype] = context.detach()
    near, exact = found[torch.bfloat16], found[torch.float32]
    assert near.dtype == torch.float32
    assert 0 < float((near - exact).norm() / exact.norm()) < 0.05
