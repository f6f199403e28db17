"""What a shadow training tells an attacker who has the users' rows: every user's match with what left the partner."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from fedrec.model.adapter import AdapterState
from fedrec.model.recommender import ItemTokenModel, item_token_model, part_names, train_only, user_losses, write_state
from fedrec.privacy.clipping import clip_factors
from fedrec.privacy.gradients import per_user_gradients
from fedrec.training.batches import user_batches
from fedrec.training.local import item_vectors_apart
from fedrec_sim.audit.shadows import Answer, Stage, shadow_training

_MAX_TOKENS = 800  # of one batch of users: small enough for the scores to stay in cache
_READ_AT_ONCE = 16


@dataclass(frozen=True)
class Matches:
    """Of some rounds: inner products with what left, in units of the noise's variance.

    Attributes:
        scores: `[users]`, of each user's own clipped contribution with the released sum: the matched filter.
        gram: `[users, users]`, of the contributions with each other.
    """

    scores: np.ndarray = field(repr=False)
    gram: np.ndarray = field(repr=False)

    def __add__(self, other: "Matches") -> "Matches":
        return Matches(self.scores + other.scores, self.gram + other.gram)


@dataclass(frozen=True)
class Leans:
    """How far head gradients, summed over the rounds, point towards raising each item's score: `[users, items]`.

    Attributes:
        left: of the released sum less every other member's share, with each user in turn as the target.
        own: of each candidate's exact share: what the attacker learns from what it knows.
        noise_std: on each of `left`.
    """

    left: np.ndarray = field(repr=False)
    own: np.ndarray = field(repr=False)
    noise_std: float


@dataclass(frozen=True)
class Evidence:
    """Of one shadow training.

    Attributes:
        present: bool `[users]`, who was there: what the attacker is to find out.
        counts: matches of the prior round.
        head: matches of all head rounds; without privacy of the first round that trains the head.
        released_counts: `[items]`, the noised sum of the users' normalised item counts; their mean without privacy.
        leans: of the head rounds; None without privacy, where the counts tell all.
        loss_drop: `[users]`, loss before minus loss after training; None under privacy, where it tells nothing more.
    """

    present: np.ndarray = field(repr=False)
    counts: Matches = field(repr=False)
    head: Matches = field(repr=False)
    released_counts: np.ndarray = field(repr=False)
    leans: Leans | None = field(repr=False)
    loss_drop: np.ndarray | None = field(repr=False)


@dataclass(frozen=True)
class HeadInputs:
    """Some users' items with the LLM's reading of them, which stays while LoRA stands still, and what came next."""

    users: np.ndarray = field(repr=False)
    items: Tensor = field(repr=False)
    context: Tensor = field(repr=False)
    targets: Tensor = field(repr=False)


def collect(stage: Stage, inputs: Sequence[HeadInputs], present: np.ndarray, root: bytes) -> Evidence:
    """Run one shadow training and keep what an attacker makes of it.

    The LoRA rounds are run and not matched: each draws a tenth of the users in secret, for a twentieth of the budget.
    Without privacy the head's difference is matched in the first round that moves it.

    Args:
        inputs: of the whole pool at the initial adapter, from `head_inputs`.
        present: bool `[users]` of the pool.
    """
    answers = shadow_training(stage, [h for h, there in zip(stage.pool, present, strict=True) if there], root)
    prior = next(answers)
    released = -prior.noised_sum(part_names(stage.model, ["prior"]))
    head = _HeadRounds(stage, inputs)
    first = last = next(answers)
    head.take(first)
    for last in answers:
        if last.asked.part == "head":
            head.take(last)
    drop = None
    if stage.plan is None:
        drop = losses(stage, first.start) - losses(stage, last.start.plus(last.difference))
    return Evidence(
        present=present,
        counts=match(count_rows(stage), released, stage.noise_std("prior")),
        head=head.matches,
        released_counts=released,
        leans=None if stage.plan is None else head.leans(present),
        loss_drop=drop,
    )


class _HeadRounds:
    """Adds up over the rounds that train the head what left, and what each candidate would have added."""

    def __init__(self, stage: Stage, inputs: Sequence[HeadInputs]) -> None:
        self._stage, self._inputs, self._rounds = stage, inputs, 0
        self._names = part_names(stage.model, ["head"])
        self.matches = Matches(np.zeros(len(stage.pool)), np.zeros((len(stage.pool), len(stage.pool))))
        self._released, self._rows = torch.zeros(()), torch.zeros(())

    def take(self, answer: Answer) -> None:
        """One more round."""
        released = answer.noised_sum(self._names)
        rows = head_gradients(self._stage, self._inputs, answer.start)
        self.matches += match(rows, released, self._stage.noise_std("head"))
        self._released = self._released + torch.from_numpy(released).float()
        self._rows, self._rounds = self._rows + rows, self._rounds + 1

    def leans(self, present: np.ndarray) -> Leans:
        """Minus the gradient of an item's score is the item's vector times what the head sees, here on average."""
        tokens = item_token_model(self._stage.model).eval()
        # With the item vectors of the start: the part of the head that reads and scores features is what is used.
        write_state(self._stage.model, self._stage.initial)
        with torch.no_grad():
            learnt, factors = tokens.item_vectors(1), tokens.modality_factors(tokens.features)
            summaries = [tokens.summary(batch.items, batch.context, learnt, factors) for batch in self._inputs]
        there = [batch.targets >= 0 for batch in self._inputs]
        seen = torch.cat([rows[kept] for rows, kept in zip(summaries, there, strict=True)]).mean(0)
        items = nn.functional.normalize(tokens.known[:, : tokens.n_score], dim=1)
        share = self._rows * torch.from_numpy(present).float().unsqueeze(1)
        left = self._released - share.sum(0) + share  # the target's own share stays in

        def towards_items(rows: Tensor) -> np.ndarray:
            weight = rows[:, -tokens.score_head.weight.numel() :]  # the last of the part's tensors by name
            seen_of = weight.view(len(rows), -1, len(seen)) @ (seen / seen.norm())
            return np.asarray(-(seen_of[:, : tokens.n_score] @ items.T).double().numpy())

        noise_std = self._stage.noise_std("head") * self._rounds**0.5
        return Leans(towards_items(left), towards_items(self._rows), noise_std)


def match(rows: Tensor, released: np.ndarray, noise_std: float) -> Matches:
    """Each user's row against what was released: `[users, params]`, `[params]`."""
    scores = rows @ torch.from_numpy(released).to(rows.dtype)
    return Matches(scores.double().numpy() / noise_std**2, (rows @ rows.T).double().numpy() / noise_std**2)


def count_rows(stage: Stage) -> Tensor:
    """What each user adds to the prior round's sum, float64 `[users, items]`: item counts at L2 norm 1.

    With privacy of the latest items alone, as the private step reads them; without of all.
    """
    n_items = item_token_model(stage.model).n_items
    clip = _clip_norm(stage, "prior")
    read = [items_read(stage, user) for user in range(len(stage.pool))]
    counts = np.stack([np.bincount(items, minlength=n_items) for items in read]).astype(np.float64)
    rows = torch.from_numpy(counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1.0))
    return rows if clip is None else _clipped(rows, clip)


def items_read(stage: Stage, user: int) -> np.ndarray:
    """The user's items that the prior round counts."""
    return stage.pool[user] if stage.plan is None else stage.pool[user][-stage.plain.max_history :]


def head_inputs(stage: Stage) -> list[HeadInputs]:
    """Read every user of the pool once with the initial adapter."""
    write_state(stage.model, stage.initial)
    tokens = item_token_model(stage.model).eval()
    everybody, device = np.arange(len(stage.pool)), tokens.features.device
    inputs = []
    with torch.no_grad():
        for batch in user_batches(stage.pool, everybody, stage.plain.max_history, _MAX_TOKENS, device):
            context = torch.cat([tokens.context(rows) for rows in torch.split(batch.items, _READ_AT_ONCE)])
            inputs.append(HeadInputs(batch.users, batch.items, context, batch.targets))
    return inputs


def head_gradients(stage: Stage, inputs: Sequence[HeadInputs], start: AdapterState) -> Tensor:
    """Every user's clipped head gradient at an adapter, float32 `[users, params]`; by the capture that workers use."""
    write_state(stage.model, start)
    tokens = item_token_model(stage.model).train()
    tokens.dropout.eval()  # an attacker cannot know what was dropped
    trained = list(train_only(stage.model, part_names(stage.model, ["head"])).values())
    gradients = torch.zeros(len(stage.pool), sum(tensor.numel() for tensor in trained))
    with per_user_gradients(stage.model), item_vectors_apart(tokens):
        for batch in inputs:
            _losses_of(tokens, batch).sum().backward()  # type: ignore[no-untyped-call]  # torch's own
            of_users = [tensor.grad_sample.flatten(1) for tensor in trained]  # type: ignore[attr-defined]
            gradients[torch.from_numpy(batch.users)] = torch.cat(of_users, 1)
            for tensor in trained:
                tensor.grad_sample = tensor.grad = None  # type: ignore[attr-defined]
    clip = _clip_norm(stage, "head")
    return gradients if clip is None else _clipped(gradients, clip)


def losses(stage: Stage, state: AdapterState) -> np.ndarray:
    """Every user's loss under an adapter, float64 `[users]`."""
    write_state(stage.model, state)
    model = stage.model.eval()
    everybody, device = np.arange(len(stage.pool)), item_token_model(model).features.device
    result = np.zeros(len(stage.pool))
    with torch.no_grad():
        for batch in user_batches(stage.pool, everybody, stage.plain.max_history, _MAX_TOKENS, device):
            result[batch.users] = user_losses(model(batch.items), batch.targets).double().cpu().numpy()
    return result


def _losses_of(tokens: ItemTokenModel, batch: HeadInputs) -> Tensor:
    return user_losses(tokens.score_summaries(batch.items, batch.context), batch.targets)


def _clip_norm(stage: Stage, part: str) -> float | None:
    if stage.plan is None:
        return None
    return next(p.l2_clip_norm for p in stage.plan.parts if p.part == part)


def _clipped(rows: Tensor, l2_clip_norm: float) -> Tensor:
    return rows * clip_factors([rows.float()], l2_clip_norm).to(rows.dtype).unsqueeze(1)
