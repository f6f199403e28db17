"""Every way to tune the language model: its tensors, its per-user gradients against the slow oracle, its file."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from peft import PeftModel, get_peft_model_state_dict

from fedrec.errors import ModelError
from fedrec.model.adapter import AdapterState
from fedrec.model.adapter_folder import AdapterCard, read_adapter, read_card, save_adapter
from fedrec.model.backbone import load_backbone
from fedrec.model.features import ItemFeatures
from fedrec.model.recommender import (
    AdapterShape,
    ItemTokenModel,
    adapter_parameters,
    build_model,
    item_token_model,
    part_names,
    read_state,
    tensor_parts,
    train_only,
    user_losses,
    write_state,
)
from fedrec.privacy.gradients import per_user_gradients
from fedrec.privacy.noise import NoiseSource
from fedrec.recommend.live_model import LiveModel, as_window
from fedrec.recommend.readings import HistoryReader, Wanted
from fedrec.recommend.recommender import ModelRecommender
from fedrec.sections.training import MethodName
from fedrec.training.batches import user_batches
from fedrec.training.local import (
    ContextCache,
    PlainSettings,
    PrivateStep,
    item_vectors_apart,
    private_step,
    refuse_private_training,
    train_plain,
)

METHODS: tuple[MethodName, ...] = get_args(MethodName)
PRIVATE = tuple(method for method in METHODS if method not in ("adalora", "dora"))
SHAPE = AdapterShape(rank=2, item_dim=3, summary_dim=4, context_dim=6, score_dim=5, head_start=1.0)


def fresh(folder: Path, features: ItemFeatures, method: MethodName, dtype: torch.dtype = torch.float32) -> PeftModel:
    shape = replace(SHAPE, method=method)
    return build_model(load_backbone(folder, 2, torch.device("cpu"), dtype), features, shape, seed=3)


def shaken(model: PeftModel) -> PeftModel:
    """Not at its silent start, so that every gradient is nonzero."""
    rng = np.random.default_rng(1)
    tensors = read_state(model).tensors
    noise = {k: (v + 0.1 * rng.standard_normal(v.shape)).astype(np.float32) for k, v in tensors.items()}
    write_state(model, AdapterState(noise))
    return model


def one_at_a_time(model: PeftModel, names: list[str], histories: list[np.ndarray]) -> torch.Tensor:
    """The oracle: a plain backward pass for each user alone, `[users, params]`."""
    parameters = train_only(model, names)
    rows = []
    for user in range(len(histories)):
        (batch,) = user_batches(histories, np.array([user]), 50, 10_000, torch.device("cpu"))
        grads = torch.autograd.grad(user_losses(model(batch.items), batch.targets).sum(), list(parameters.values()))
        rows.append(torch.cat([grad.flatten() for grad in grads]))
    return torch.stack(rows)


@pytest.mark.parametrize("method", PRIVATE)
def test_hooks_equal_one_user_at_a_time(
    method: MethodName, tiny_llama: Path, features: ItemFeatures, histories: list[np.ndarray]
) -> None:
    model = shaken(fresh(tiny_llama, features, method))
    names, few = part_names(model, ["lora"]), histories[:12]
    expected = one_at_a_time(model, names, few)
    parameters = train_only(model, names)
    model.train()
    found = torch.zeros_like(expected)
    for batch in user_batches(few, np.arange(12), 50, 60, torch.device("cpu")):
        with per_user_gradients(model), item_vectors_apart(item_token_model(model)):
            user_losses(model(batch.items), batch.targets).sum().backward()
            found[batch.users] = torch.cat([p.grad_sample.flatten(1) for p in parameters.values()], 1)
    assert expected.norm(dim=1).min() > 0
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", PRIVATE)
def test_private_step_is_the_clipped_sum_plus_noise(
    method: MethodName, tiny_llama: Path, features: ItemFeatures, histories: list[np.ndarray]
) -> None:
    model = shaken(fresh(tiny_llama, features, method))
    refuse_private_training(model, ["prior", "head", "lora"])
    clip, few = 0.05, histories[:15]
    for part in ("lora_a", "lora_b") if method == "rolora" else ("lora",):
        names = part_names(model, [part])
        grads = one_at_a_time(model, names, few)
        expected = (grads * (clip / grads.norm(dim=1, keepdim=True)).clamp(max=1)).sum(0)
        before = read_state(model)
        step = PrivateStep(part, 1.0, clip, noise_std=1e-7, learning_rate=0.5, max_history=50)
        private_step(model, names, few, step, NoiseSource.from_root(bytes(32), b"test"), ContextCache())
        after = read_state(model)
        moved = np.concatenate([(before.tensors[n] - after.tensors[n]).ravel() for n in names])
        np.testing.assert_allclose(moved / 0.5, expected.numpy(), rtol=1e-3, atol=2e-5)
        assert all(np.array_equal(before.tensors[n], after.tensors[n]) for n in before.tensors if n not in names)


@pytest.mark.parametrize("method", METHODS)
def test_peft_saves_the_same_tensors_under_the_same_names(
    method: MethodName, tiny_llama: Path, features: ItemFeatures
) -> None:
    model = shaken(fresh(tiny_llama, features, method))
    ours, theirs = read_state(model).tensors, get_peft_model_state_dict(model, save_embedding_layers=False)
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name].float().numpy()) for name in ours)


@pytest.mark.parametrize("method", METHODS)
def test_an_adapter_is_read_back_by_us_and_by_peft(
    method: MethodName, tiny_llama: Path, features: ItemFeatures, tmp_path: Path
) -> None:
    model = shaken(fresh(tiny_llama, features, method))
    state, shape = read_state(model), replace(SHAPE, method=method)
    card = AdapterCard("round-0001", state.hash, "tiny", "h", 2, "c", "f", shape)
    save_adapter(tmp_path, model, state, card, {}, "")
    items, card = torch.tensor([[1, 2, 3]]), read_card(tmp_path)
    expected = model.eval()(items)
    backbones = [load_backbone(tiny_llama, 2, torch.device("cpu"), torch.float32) for _ in range(2)]
    again = build_model(backbones[0], features, card.shape, seed=8)
    write_state(again, read_adapter(tmp_path))
    torch.testing.assert_close(again.eval()(items), expected)
    loaded = PeftModel.from_pretrained(ItemTokenModel(backbones[1], features, card.shape), tmp_path)
    torch.testing.assert_close(loaded.eval()(items), expected)


def test_an_unknown_method_is_refused_in_words(tiny_llama: Path, features: ItemFeatures, tmp_path: Path) -> None:
    model = fresh(tiny_llama, features, "lora")
    state = read_state(model)
    save_adapter(tmp_path, model, state, AdapterCard("v", state.hash, "tiny", "h", 2, "c", "f", SHAPE), {}, "")
    path = tmp_path / "fedrec.json"
    path.write_text(path.read_text().replace('"method": "lora"', '"method": "telepathy"'))
    with pytest.raises(ModelError, match="tuned by 'telepathy'"):
        read_card(tmp_path)


@pytest.mark.parametrize("method", METHODS)
def test_what_serves_scores_as_the_offline_model_does(
    method: MethodName, tiny_llama: Path, features: ItemFeatures
) -> None:
    """Whole, one item more, several more, and many people of different lengths at once."""
    model = shaken(fresh(tiny_llama, features, method))
    with torch.no_grad():
        for name, weight in item_token_model(model).backbone.named_parameters():
            if re.search(r"[qk]_proj\.(base_layer\.)?weight", name):
                weight *= 30  # random attention is flat, and would not tell where an item stands
    live, slow = LiveModel(model, "v", 30), ModelRecommender(model, 30)
    reader = HistoryReader(live, 1 << 24)
    longest = [np.random.default_rng(user).integers(0, 40, 12 + 3 * user) for user in range(3)]
    for cut in (6, 5, 0):
        some = [codes[: len(codes) - cut] for codes in longest]
        contexts = reader.read([Wanted(user, codes) for user, codes in enumerate(some)])
        windows = [as_window(codes, [1.0] * len(codes), c) for codes, c in zip(some, contexts, strict=True)]
        found = live.scores(np.stack([live.user_vector(window) for window in windows]))
        np.testing.assert_allclose(found, slow.score(some), rtol=5e-4, atol=5e-4)
    assert (reader.n_read, reader.n_extended) == (3, 6)


@pytest.mark.parametrize("kind", ["qwen2", "gpt2"])
@pytest.mark.parametrize("method", METHODS)
def test_every_backbone_type_is_tuned_by_every_method(
    method: MethodName, kind: str, tmp_path: Path, features: ItemFeatures, make_tiny: Callable[[str, Path], Path]
) -> None:
    model = shaken(fresh(make_tiny(kind, tmp_path / kind), features, method))
    user_losses(model(torch.tensor([[1, 2, 3]])), torch.tensor([[2, 3, 4]])).sum().backward()
    tuned = [adapter_parameters(model)[name] for name in part_names(model, ["lora"])]
    assert tuned
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in tuned)


def test_of_ffa_lora_only_b_moves_and_rolora_has_two_halves(tiny_llama: Path, features: ItemFeatures) -> None:
    parts = {method: tensor_parts(fresh(tiny_llama, features, method)) for method in ("lora", "ffa-lora", "rolora")}
    lora = {name for name, part in parts["lora"].items() if part == "lora"}
    assert {parts["ffa-lora"][name] for name in lora if ".lora_A." in name} == {"fixed"}
    assert {parts["ffa-lora"][name] for name in lora if ".lora_B." in name} == {"lora"}
    assert {parts["rolora"][name] for name in lora} == {"lora_a", "lora_b"}
    assert set(part_names(fresh(tiny_llama, features, "rolora"), ["lora"])) == lora


def test_prompt_vectors_start_like_public_words_and_bottlenecks_silent(
    tiny_llama: Path, features: ItemFeatures
) -> None:
    prompt = adapter_parameters(fresh(tiny_llama, features, "prompt"))["base_model.model.prompt.weight"]
    distances = np.abs(features.word_tokens[:, None] - prompt.detach().numpy()[None]).max(-1)
    assert (distances.min(0) == 0).all()
    models = [fresh(tiny_llama, features, method).eval() for method in ("lora", "bottleneck")]
    items = torch.tensor([[1, 2, 3]])
    torch.testing.assert_close(models[0](items), models[1](items))


def test_adalora_ends_a_round_at_its_budget_and_forgets_whose_gradients_it_saw(
    tiny_llama: Path, features: ItemFeatures, histories: list[np.ndarray]
) -> None:
    model = fresh(tiny_llama, features, "adalora")
    names = part_names(model, ["lora"])
    values = [p for name, p in adapter_parameters(model).items() if name.endswith(".lora_E")]
    assert {tuple(p.shape) for p in values} == {(3, 1)}, "one and a half times the rank of 2"
    settings, start = PlainSettings(1e-2, 0.0, 8, 20), read_state(shaken(model))
    ends = []
    for others in (histories[:30], histories[30:]):
        write_state(model, start)
        train_plain(model, names, others, settings, epochs=2, rng=np.random.default_rng(0))
        assert sum(int((p != 0).sum()) for p in values) == 2 * len(values)
        ends.append(read_state(model).hash)
    allocator = model.base_model.rankallocator  # as a round that was broken off leaves it
    allocator.update_ipt(model.base_model.model)
    for seen in allocator.exp_avg_ipt.values():
        seen.copy_(1e6 * torch.rand(seen.shape, generator=torch.Generator().manual_seed(0)))
    write_state(model, start)
    train_plain(model, names, histories[30:], settings, epochs=2, rng=np.random.default_rng(0))
    assert read_state(model).hash == ends[1] != ends[0]
    assert model.peft_config["default"].rank_pattern is None
    train_plain(model, names, histories[:3], settings, epochs=1, rng=np.random.default_rng(0))
    assert sum(int((p != 0).sum()) for p in values) == 2 * len(values), "after one step as well"
