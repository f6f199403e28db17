"""Per-user gradients against the slow oracle: one user at a time, plain autograd."""

from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel

from fedrec.errors import PrivacyError
from fedrec.model.backbone import load_backbone
from fedrec.model.features import ItemFeatures
from fedrec.model.recommender import (
    AdapterShape,
    build_model,
    item_token_model,
    part_names,
    read_state,
    train_only,
    user_losses,
)
from fedrec.privacy.gradients import UserDPOptimizer, per_user_gradients
from fedrec.privacy.noise import NoiseSource
from fedrec.training import local
from fedrec.training.batches import user_batches
from fedrec.training.local import ContextCache, PrivateStep, item_vectors_apart, private_step, refuse_private_training

SHAPE = AdapterShape(
    rank=2, item_dim=3, summary_dim=4, context_dim=6, score_dim=5, head_start=1.0, item_rows=20, item_scale=0.5
)


@pytest.fixture
def model(tiny_llama: Path, features: ItemFeatures) -> PeftModel:
    """A model whose adapter is not at its silent start, so that every gradient is nonzero."""
    made = build_model(load_backbone(tiny_llama, 2, torch.device("cpu"), torch.float32), features, SHAPE, seed=3)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return made


def one_at_a_time(model: PeftModel, names: list[str], histories: list[np.ndarray], users: np.ndarray) -> torch.Tensor:
    """The oracle: a backward pass for each user alone, `[users, params]`, users in order."""
    parameters = train_only(model, names)
    rows = []
    for user in users:
        (batch,) = user_batches(histories, np.array([user]), 50, 10_000, torch.device("cpu"))
        grads = torch.autograd.grad(user_losses(model(batch.items), batch.targets).sum(), list(parameters.values()))
        rows.append(torch.cat([grad.flatten() for grad in grads]))
    return torch.stack(rows)


@pytest.mark.parametrize("part", ["head", "lora"])
def test_hooks_equal_one_user_at_a_time(model: PeftModel, histories: list[np.ndarray], part: str) -> None:
    names = part_names(model, [part])
    users = np.arange(12)
    expected = one_at_a_time(model, names, histories, users)
    parameters = train_only(model, names)
    model.train()
    found = torch.zeros_like(expected)
    for batch in user_batches(histories, users, 50, 60, torch.device("cpu")):
        with per_user_gradients(model), item_vectors_apart(item_token_model(model)):
            user_losses(model(batch.items), batch.targets).sum().backward()
            found[batch.users] = torch.cat([p.grad_sample.flatten(1) for p in parameters.values()], 1)
    assert expected.norm(dim=1).min() > 0
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("part", ["head", "lora"])
def test_private_step_is_the_clipped_sum_plus_noise(model: PeftModel, histories: list[np.ndarray], part: str) -> None:
    """Microbatches, clipping and the public learning rate: equal to the oracle's sum up to tiny noise."""
    names = part_names(model, [part])
    users = np.arange(len(histories))
    clip = 0.05
    grads = one_at_a_time(model, names, histories, users)
    expected = (grads * (clip / grads.norm(dim=1, keepdim=True)).clamp(max=1)).sum(0)
    before = torch.cat([p.detach().flatten().clone() for p in train_only(model, names).values()])
    step = PrivateStep(part, 1.0, clip, noise_std=1e-7, learning_rate=0.5, max_history=50)
    private_step(model, names, histories, step, NoiseSource.from_root(bytes(32), b"test"), ContextCache())
    after = torch.cat([p.detach().flatten() for p in train_only(model, names).values()])
    torch.testing.assert_close((before - after) / 0.5, expected, rtol=1e-3, atol=1e-5)


def test_prior_step_counts_each_user_at_norm_one(model: PeftModel, histories: list[np.ndarray]) -> None:
    names = part_names(model, ["prior"])
    before = next(iter(train_only(model, names).values())).detach().clone()
    step = PrivateStep("prior", 1.0, 1.0, noise_std=1e-7, learning_rate=1.0, max_history=50)
    private_step(model, names, histories, step, NoiseSource.from_root(bytes(32), b"test"), ContextCache())
    expected = sum(np.bincount(h, minlength=40) / np.sqrt(len(h)) for h in histories)
    found = next(iter(train_only(model, names).values())).detach() - before
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-4)


def test_empty_sample_still_moves_the_model_by_noise(model: PeftModel) -> None:
    names = part_names(model, ["head"])
    before = torch.cat([p.detach().flatten().clone() for p in train_only(model, names).values()])
    step = PrivateStep("head", 0.5, 1.0, noise_std=1.0, learning_rate=1.0, max_history=50)
    private_step(model, names, [], step, NoiseSource.from_root(bytes(32), b"test"), ContextCache())
    moved = torch.cat([p.detach().flatten() for p in train_only(model, names).values()]) - before
    assert 0.8 < float(moved.std()) < 1.2


def test_cached_contexts_change_nothing(model: PeftModel, histories: list[np.ndarray]) -> None:
    """A second head step with a warm cache equals the same step with a cold one."""
    names = part_names(model, ["head"])
    start = {n: p.detach().clone() for n, p in train_only(model, names).items()}
    step = PrivateStep("head", 1.0, 0.3, noise_std=1e-3, learning_rate=0.1, max_history=50)
    cache = ContextCache()
    results = []
    for _ in range(2):
        for name, parameter in train_only(model, names).items():
            parameter.data.copy_(start[name])
        private_step(model, names, histories, step, NoiseSource.from_root(bytes(32), b"same"), cache)
        results.append(torch.cat([p.detach().flatten() for p in train_only(model, names).values()]))
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-7)


def test_contexts_do_not_depend_on_who_was_sampled(model: PeftModel, histories: list[np.ndarray]) -> None:
    names = part_names(model, ["head"])
    step = PrivateStep("head", 0.3, 0.3, noise_std=1e-3, learning_rate=0.0, max_history=50)
    caches = [ContextCache(), ContextCache()]
    for cache, label in zip(caches, (b"one", b"other"), strict=True):
        private_step(model, names, histories, step, NoiseSource.from_root(bytes(32), label), cache)
    first, second = (cache.contexts for cache in caches)
    assert set(first) == set(second) == {user for user, history in enumerate(histories) if len(history) > 1}
    assert all(torch.equal(first[user], second[user]) for user in first)


def own_gradients(model: PeftModel, part: str, histories: list[np.ndarray]) -> dict[int, torch.Tensor]:
    """Each user's gradient as a private step takes it, before clipping: seen by an optimizer that looks."""
    found = dict[int, torch.Tensor]()

    class Looking(UserDPOptimizer):
        def clip_and_accumulate(self) -> None:
            rows = torch.cat([sample.flatten(1) for sample in self.grad_samples], 1)
            for row in rows[: len(histories) - len(found)]:
                found[len(found)] = row.clone()
            super().clip_and_accumulate()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "UserDPOptimizer", Looking)
        step = PrivateStep(part, 1.0, 1.0, noise_std=1e-3, learning_rate=1e-9, max_history=20)
        source = NoiseSource.from_root(bytes(32), b"x")
        private_step(model, part_names(model, [part]), histories, step, source, ContextCache())
    return found


@pytest.mark.parametrize("part", ["head", "lora"])
def test_a_users_gradient_is_the_same_to_the_last_bit_whoever_else_is_there(
    model: PeftModel, histories: list[np.ndarray], part: str
) -> None:
    """One user more, longer than all, and everybody in another place: an adapter could blow up a bit that differs."""
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    before = own_gradients(model, part, histories)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(start[name])
    after = own_gradients(model, part, [np.arange(20, dtype=np.int32), *histories])
    assert (len(before), len(after)) == (60, 61)
    assert all(torch.equal(before[user], after[user + 1]) for user in before)
    assert min(float(gradient.norm()) for gradient in before.values()) > 0


def test_layers_that_mix_users_are_refused() -> None:
    mixing = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    with pytest.raises(PrivacyError, match="mix users"), per_user_gradients(mixing):
        pass


def test_other_parts_stand_still(model: PeftModel, histories: list[np.ndarray]) -> None:
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    names = part_names(model, ["lora"])
    step = PrivateStep("lora", 1.0, 0.3, noise_std=0.1, learning_rate=0.1, max_history=50)
    private_step(model, names, histories, step, NoiseSource.from_root(bytes(32), b"x"), ContextCache())
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed
    assert all(".lora_" in name for name in changed)


def test_parameters_without_gradients_are_refused() -> None:
    """Opacus's own guard stays in place: no per-user gradient, no step."""
    parameter = torch.nn.Parameter(torch.zeros(3))
    source = NoiseSource.from_root(bytes(32), b"x")
    optimizer = UserDPOptimizer([parameter], learning_rate=1.0, l2_clip_norm=1.0, noise_std=1.0, source=source)
    with pytest.raises(ValueError, match=r"[Pp]er sample gradient"):
        optimizer.clip_and_accumulate()


def test_every_part_can_be_trained_privately_on_weights_held_in_bfloat16(
    tiny_llama: Path, features: ItemFeatures, histories: list[np.ndarray]
) -> None:
    model = build_model(load_backbone(tiny_llama, 2, torch.device("cpu"), torch.bfloat16), features, SHAPE, seed=3)
    parts = ("prior", "head", "lora")
    refuse_private_training(model, parts)
    for part in parts:
        before, source = read_state(model), NoiseSource.from_root(bytes(32), part.encode())
        step = PrivateStep(part, 1.0, 0.1, noise_std=0.01, learning_rate=0.1, max_history=20)
        private_step(model, part_names(model, [part]), histories[:8], step, source, ContextCache())
        after = read_state(model)
        assert after.is_finite
        assert after.hash != before.hash
