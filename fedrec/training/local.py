"""One partner's work in a round: plain epochs, or private steps in which each user's say is bounded."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from torch import Tensor, nn

from fedrec.errors import PrivacyError
from fedrec.model.recommender import (
    ItemTokenModel,
    adapter_parameters,
    item_token_model,
    part_names,
    tensor_parts,
    train_only,
    user_losses,
)
from fedrec.privacy.gradients import UserDPOptimizer, per_user_gradients
from fedrec.privacy.integer_code import IntegerCode
from fedrec.privacy.noise import NoiseSource
from fedrec.privacy.refusals import refuse_mixing, refuse_unprivate
from fedrec.privacy.sampling import poisson_sample
from fedrec.training.batches import UserBatch, fixed_batches, user_batches
from fedrec.training.rank_budget import RankBudget

# Padded positions a backward pass; bounds memory at about 1 GB for 100,000 items.
MAX_TOKENS = 800
# The same where no LLM is passed: the scores are all there is to hold.
_HEAD_TOKENS = 1600
# Made users, whose losses must not depend on each other.
_PROBE_USERS, _PROBE_ITEMS = 3, 6


@dataclass(frozen=True)
class PlainSettings:
    """Training without privacy: what the rows `centralised`, `local_only` and `federated` use."""

    learning_rate: float
    weight_decay: float
    batch_users: int
    max_history: int
    max_grad_norm: float = 1.0


@dataclass(frozen=True)
class PrivateStep:
    """One private step: what `PrivacyPlan` says of the round's part.

    Attributes:
        part: prior, head or lora; of RoLoRA, lora_a or lora_b.
        sampling_prob: of each user, public.
        l2_clip_norm: gradient units, public.
        noise_std: of each coordinate of the partner's clipped sum, public.
        learning_rate: multiplies the noised sum, public.
        max_history: items of a user that are read, public.
        most_users: that such a partner is expected to have, public: a device's batches need few rows; 0 if unknown.
            More of them take more batches, never a larger one.
    """

    part: str
    sampling_prob: float
    l2_clip_norm: float
    noise_std: float
    learning_rate: float
    max_history: int
    most_users: int = 0

    def rows(self, tokens: int) -> int:
        """Rows of a batch with at most `tokens` positions; from public figures alone."""
        most = max(1, tokens // self.max_history)
        return min(most, 1 << (self.most_users - 1).bit_length()) if self.most_users else most


@dataclass
class ContextCache:
    """The LLM's reading of each user, kept while LoRA stands still, so that a head step costs no LLM pass. Private."""

    key: str = ""
    contexts: dict[int, Tensor] = field(default_factory=dict, repr=False)

    def of(self, batch: UserBatch, context_dim: int) -> Tensor:
        """The contexts of a batch's users, float32 `[rows, positions, context_dim]`; nobody's rows stay zero."""
        contexts = torch.zeros(*batch.items.shape, context_dim, device=batch.items.device)
        for row, user in zip(contexts, batch.users, strict=False):
            context = self.contexts[int(user)]
            row[: len(context)] = context
        return contexts


def train_plain(
    model: PeftModel,
    names: Sequence[str],
    histories: Sequence[np.ndarray],
    settings: PlainSettings,
    *,
    epochs: int,
    rng: np.random.Generator,
    rate: Callable[[float], float] = lambda _: 1.0,
    after_epoch: Callable[[int], None] = lambda _: None,
    cache: ContextCache | None = None,
) -> float:
    """AdamW on the named adapter tensors for some epochs; no privacy whatsoever.

    Args:
        rate: factor on the learning rate at progress 0..1 of these epochs.
        after_epoch: called with the number of epochs done; may put the model into evaluation mode.
        cache: contexts of the unchanged LLM, read and used if the head alone is trained; its key is the caller's to
            set.
    Returns: mean loss over the users of the last epoch (private).
    """
    parameters = list(train_only(model, names).values())
    parts = tensor_parts(model)
    head_only = all(parts[name] == "head" for name in names)
    kept = (cache or ContextCache()) if head_only else None
    if kept is not None and not kept.contexts:
        rows = max(1, MAX_TOKENS // settings.max_history)
        _read_contexts(model, histories, settings.max_history, rows, kept)
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    batches = -(-len(histories) // settings.batch_users)
    torch.manual_seed(int(rng.integers(2**63)))  # dropout draws from torch's own generator
    total, budget = 0.0, RankBudget(model, names, epochs * batches)
    for step in range(epochs * batches):
        if step % batches == 0:
            model.train()
            order, total = rng.permutation(len(histories)), 0.0
        users = order[(step % batches) * settings.batch_users :][: settings.batch_users]
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * rate(step / (epochs * batches))
        optimizer.zero_grad()
        total += _plain_backward(model, histories, users, settings.max_history, kept)
        budget.penalise()
        nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
        optimizer.step()
        budget.after_step(step + 1)
        if (step + 1) % batches == 0:
            after_epoch((step + 1) // batches)
    return total / max(len(histories), 1)


def _plain_backward(
    model: PeftModel, histories: Sequence[np.ndarray], users: np.ndarray, max_history: int, cache: ContextCache | None
) -> float:
    """Gradient of the mean loss of `users`, in length-sorted microbatches; returns the sum of their losses."""
    total, tokens = 0.0, item_token_model(model)
    max_tokens = MAX_TOKENS if cache is None else _HEAD_TOKENS
    for batch in user_batches(histories, users, max_history, max_tokens, _device(model)):
        if cache is None:
            scores = model(batch.items)
        else:
            scores = tokens.score_summaries(batch.items, cache.of(batch, tokens.shape.context_dim))
        losses = user_losses(scores, batch.targets)
        (losses.sum() / len(users)).backward()  # type: ignore[no-untyped-call]  # torch's own
        total += float(losses.detach().sum())
    return total


def refuse_private_training(model: PeftModel, parts: Sequence[str]) -> None:
    """Before a row is read: is this a model whose parts can be trained privately, with a loss that keeps users apart?

    Args:
        parts: of the adapter, that a plan trains.
    Raises: PrivacyError: why not, all reasons at once.
    """
    adapter = adapter_parameters(model)
    refuse_unprivate(model, [adapter[name] for name in part_names(model, parts)])
    rng = np.random.default_rng(0)
    rows = torch.from_numpy(rng.integers(0, item_token_model(model).n_items, (_PROBE_USERS, _PROBE_ITEMS)))
    model.train()
    with _off_its_start(list(adapter.values())):
        refuse_mixing(lambda items: user_losses(model(items[:, :-1]), items[:, 1:]), rows.to(_device(model)))


@contextmanager
def _off_its_start(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Inside, a public change of all weights: at the start nothing of the language model reaches the loss."""
    before = [parameter.detach().clone() for parameter in parameters]
    generator = torch.Generator().manual_seed(0)
    try:
        with torch.no_grad():
            for parameter in parameters:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator).to(parameter.device))
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)


def private_step(
    model: PeftModel,
    names: Sequence[str],
    histories: Sequence[np.ndarray],
    step: PrivateStep,
    source: NoiseSource,
    cache: ContextCache,
) -> None:
    """Sample users, bound each one's say, add noise, move the model. An empty sample is a step like any other.

    Args:
        names: adapter tensors of the part.
        histories: int32 codes per user, oldest first; private.
        cache: contexts of the unchanged LLM; its key is the caller's to set.
    Privacy: one sampled Gaussian mechanism over users with sensitivity `step.l2_clip_norm`.
    """
    optimizer = _bounded_sum(model, names, histories, step, source, cache)
    optimizer.step()
    optimizer.zero_grad()


def private_integers(
    model: PeftModel,
    names: Sequence[str],
    histories: Sequence[np.ndarray],
    step: PrivateStep,
    source: NoiseSource,
    cache: ContextCache,
    code: IntegerCode,
) -> NDArray[np.int64]:
    """The same sum as noised integers, for secure aggregation; the model stays where it is.

    Returns: int64 `[numbers of the part]`, tensors in the order of names.
    Privacy: as `private_step`, with this partner's share of the noise.
    """
    optimizer = _bounded_sum(model, names, histories, step, source, cache)
    integers = optimizer.noised_integers(code)
    optimizer.zero_grad()
    return integers


def _bounded_sum(
    model: PeftModel,
    names: Sequence[str],
    histories: Sequence[np.ndarray],
    step: PrivateStep,
    source: NoiseSource,
    cache: ContextCache,
) -> UserDPOptimizer:
    """An optimizer that holds the clipped sum over the sampled users, not yet noised."""
    parameters = train_only(model, names)
    users = poisson_sample(len(histories), step.sampling_prob, source)
    optimizer = UserDPOptimizer(
        list(parameters.values()),
        learning_rate=step.learning_rate,
        l2_clip_norm=step.l2_clip_norm,
        noise_std=step.noise_std,
        source=source,
    )
    match step.part:
        case "prior":
            _count_items(optimizer, parameters, histories, users, step.max_history)
        case "head":
            _head_gradients(model, optimizer, histories, users, step, cache)
        case "lora" | "lora_a" | "lora_b":
            _lora_gradients(model, optimizer, histories, users, step)
        case _:
            raise PrivacyError(f"part {step.part!r} cannot be trained privately", "choose prior, head or lora")
    return optimizer


def _count_items(
    optimizer: UserDPOptimizer,
    parameters: dict[str, nn.Parameter],
    histories: Sequence[np.ndarray],
    users: np.ndarray,
    max_history: int,
) -> None:
    """Per-user gradients of the loss -<histogram, counts / |counts|>: minus each user's counts at L2 norm 1."""
    (histogram,) = parameters.values()
    for start in range(0, len(users), 256):
        chosen = users[start : start + 256]
        rows = torch.zeros(len(chosen), len(histogram))
        for row, user in zip(rows, chosen, strict=True):
            counts = np.bincount(histories[user][-max_history:], minlength=len(histogram))
            row -= torch.from_numpy(counts / max(float(np.linalg.norm(counts)), 1.0)).float()
        histogram.grad_sample = rows.to(histogram.device)  # type: ignore[attr-defined]  # where Opacus looks
        optimizer.clip_and_accumulate()


def _head_gradients(
    model: PeftModel,
    optimizer: UserDPOptimizer,
    histories: Sequence[np.ndarray],
    users: np.ndarray,
    step: PrivateStep,
    cache: ContextCache,
) -> None:
    tokens = item_token_model(model)
    if not cache.contexts:
        _read_contexts(model, histories, step.max_history, step.rows(MAX_TOKENS), cache)
    if not model.training:  # the walk over all modules takes as long as a device's step
        model.train()
    rows = step.rows(8 * MAX_TOKENS)
    with per_user_gradients(model), item_vectors_apart(tokens):
        for batch in fixed_batches(histories, users, step.max_history, rows, _device(model)):
            contexts = cache.of(batch, tokens.shape.context_dim)
            losses = user_losses(tokens.score_summaries(batch.items, contexts), batch.targets)
            losses.sum().backward()  # type: ignore[no-untyped-call]  # torch's own
            optimizer.clip_and_accumulate()


@contextmanager
def item_vectors_apart(tokens: ItemTokenModel) -> Iterator[None]:
    """Inside, each row of a batch has a copy of the item vectors, as a gradient per user needs it."""
    tokens.apart = True
    try:
        yield
    finally:
        tokens.apart = False


def _read_contexts(
    model: PeftModel, histories: Sequence[np.ndarray], max_history: int, rows: int, cache: ContextCache
) -> None:
    """Read every user once, whoever is sampled, in one shape, whoever else is there."""
    tokens, found = item_token_model(model), dict[int, Tensor]()
    everybody = np.arange(len(histories))
    if tokens.shape.dropout:  # nothing is dropped from what is kept; private shapes drop nothing
        model.eval()
    with torch.no_grad():
        for batch in fixed_batches(histories, everybody, max_history, rows, _device(model)):
            contexts = tokens.context(batch.items)
            for user, targets, context in zip(batch.users, batch.targets, contexts, strict=False):
                found[int(user)] = context[: int((targets >= 0).sum())].clone()
    cache.contexts = found  # whole or not at all: a failure in between must not leave some users unread


def _lora_gradients(
    model: PeftModel,
    optimizer: UserDPOptimizer,
    histories: Sequence[np.ndarray],
    users: np.ndarray,
    step: PrivateStep,
) -> None:
    model.train()
    with per_user_gradients(model):
        for batch in fixed_batches(histories, users, step.max_history, step.rows(MAX_TOKENS), _device(model)):
            losses = user_losses(model(batch.items), batch.targets)
            losses.sum().backward()  # type: ignore[no-untyped-call]  # torch's own
            optimizer.clip_and_accumulate()


def _device(model: PeftModel) -> torch.device:
    return item_token_model(model).features.device
