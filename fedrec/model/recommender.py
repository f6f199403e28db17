"""The item-token model: a frozen LLM reads item vectors as tokens; the PEFT adapter is all that is trained.

A user's history becomes item tokens (`item_in`), the LLM's first layers with LoRA read them, and the score head
turns the summary of the history into a vector that is compared with every item: one pass scores the catalogue.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from peft import PeftModel, get_peft_model
from torch import Tensor, nn
from torch.nn import functional as F

from fedrec.errors import ModelError
from fedrec.model.adapter import AdapterState
from fedrec.model.backbone import Backbone
from fedrec.model.features import ItemFeatures
from fedrec.model.gates import Gating
from fedrec.model.methods import insert_bottlenecks, part_of, prompt_vectors, tuner_config
from fedrec.sections.training import MethodName

# Of a trained vector's coordinates at the start: public random numbers, small beside the features' norm of 1.
_ITEM_STD = 0.02
_KNOWN = "_fedrec_adapter_parameters"
_SAVED_MODULES = ("item_in", "item_emb", "context_in", "score_head", "popularity", "modality_gate", "prompt")


@dataclass(frozen=True)
class AdapterShape:
    """The sizes that decide what is trained; public, part of the adapter.

    Attributes:
        rank: of LoRA on every linear layer; width of a bottleneck; number of prompt vectors.
        item_dim: width of the trained per-item vectors, which the head reads and scores with; 0 for none.
        summary_dim: leading feature components of which the head sees decayed mean, mean and last item.
        context_dim: width of the LLM's state as the head sees it.
        score_dim: leading feature components that scores are made with.
        context_scale: root mean square of a coordinate of the context; item vectors have a norm of about 1 in all.
        decay: of the decayed mean, per item.
        dropout: on item tokens and on the summary.
        item_rows: so many items, the most popular by the prior, have a trained vector; 0: all. Under DP every vector
            costs noise, and those of items that few users have would hold nothing else.
        item_scale: of the trained vectors where they are used, so that one clip norm and rate fit them and the head.
        item_masking: share of a history's items that are left out of its means in training.
        popularity_floor: added to the popularity histogram before its logarithm becomes the prior.
        head_start: weight of the decayed mean's likeness to an item in the untrained head's score; 0 leaves it silent.
        public_dim: leading components of the public behaviour vectors that the head reads and scores with, beside those
            of the text.
        gate_dim: leading components of each modality that decide how much it counts for an item; 0: all count alike.
        modality_masking: share of users whose items are seen without one of the modalities in training; needs a gate.
        method: how the LLM is tuned; see `fedrec.model.methods`.
    """

    rank: int
    item_dim: int
    summary_dim: int
    context_dim: int
    score_dim: int
    context_scale: float = 1.0
    decay: float = 0.8
    dropout: float = 0.0
    popularity_floor: float = 1.0
    head_start: float = 0.0
    item_rows: int = 0
    item_scale: float = 1.0
    item_masking: float = 0.0
    public_dim: int = 0
    gate_dim: int = 0
    modality_masking: float = 0.0
    method: MethodName = "lora"


class Popularity(nn.Module):
    """The popularity prior: a histogram `[items]`, zero at first (no prior)."""

    def __init__(self, n_items: int) -> None:
        super().__init__()
        self.histogram = nn.Parameter(torch.zeros(n_items))

    def forward(self, floor: float) -> Tensor:
        """Log of the floored share of each item, `[items]`."""
        counts = self.histogram.clamp(min=0) + floor
        return (counts / counts.sum()).log()


class ItemTokenModel(nn.Module):
    """Scores the whole catalogue after every item of a history. Wrapped by PEFT, which adds LoRA.

    Attributes:
        apart: each row of a batch reads a copy of the item vectors of its own, so that their gradient can be told
            apart by row; for private steps, which need it, since it costs time.
    """

    known: Tensor
    apart: bool = False

    def __init__(self, backbone: Backbone, features: ItemFeatures, shape: AdapterShape) -> None:
        super().__init__()
        if max(shape.summary_dim, shape.score_dim) > features.dim:
            raise ModelError(
                f"summary_dim {shape.summary_dim} or score_dim {shape.score_dim} exceeds feature_dim {features.dim}"
            )
        if shape.public_dim > features.behaviour.shape[1]:
            raise ModelError(
                f"public_dim {shape.public_dim} exceeds the {features.behaviour.shape[1]} public behaviour components",
                "name public data in model.public_data, or set the shape's public_dim to 0",
            )
        n_items = len(features.vectors)
        self.shape = shape
        self.n_items = n_items
        self.n_rows = min(shape.item_rows, n_items) or n_items
        self.backbone = backbone.module
        # What the head reads of an item without training: what the public did with it, then its text.
        known = np.concatenate([features.behaviour[:, : shape.public_dim], features.vectors], 1)
        self.register_buffer("known", torch.from_numpy(known), persistent=False)
        self.n_summary, self.n_score = shape.public_dim + shape.summary_dim, shape.public_dim + shape.score_dim
        self.item_in = nn.Linear(features.dim, backbone.hidden_size)
        self.item_emb = nn.Embedding(self.n_rows, shape.item_dim) if shape.item_dim else None
        self.context_in = nn.Linear(backbone.hidden_size, shape.context_dim, bias=False)
        # No bias: what it could learn is the same for all users, as the prior is, and it would share their clipped
        # gradients (its part of the mean gradient was about as large as that of all weights together).
        width = 3 * (self.n_summary + shape.item_dim) + shape.context_dim
        self.score_head = nn.Linear(width, self.n_score + shape.item_dim, bias=False)
        self.popularity = Popularity(n_items)
        self.dropout = nn.Dropout(shape.dropout)
        self._initialise(features)
        # Last, so that the other first weights are the same with it and without.
        self.gating = Gating(features, shape.gate_dim, shape.public_dim) if shape.gate_dim else None
        self.modality_gate = self.gating.fresh_gate() if self.gating else None
        words = torch.from_numpy(features.word_tokens.astype(np.float32))
        self.prompt = prompt_vectors(words, shape.rank) if shape.method == "prompt" else None
        if shape.method == "bottleneck":
            insert_bottlenecks(self.backbone, backbone.hidden_size, shape.rank)

    @property
    def features(self) -> Tensor:
        """What texts and other modalities give, `[items, feature_dim]`: all that the LLM reads."""
        return self.known[:, self.shape.public_dim :]

    def _initialise(self, features: ItemFeatures) -> None:
        """Public first weights: item tokens imitate the LLM's own words; the head knows likeness at most."""
        tokens, vectors = features.word_tokens, features.vectors
        gram = vectors.T @ vectors + 1e-2 * len(vectors) / vectors.shape[1] * np.eye(vectors.shape[1], dtype=np.float32)
        weights = np.linalg.solve(gram, vectors.T @ (tokens - tokens.mean(0)))
        shape = self.shape
        with torch.no_grad():
            self.item_in.weight.copy_(torch.from_numpy(weights.T.astype(np.float32)))
            self.item_in.bias.copy_(torch.from_numpy(tokens.mean(0).astype(np.float32)))
            nn.init.orthogonal_(self.context_in.weight)
            self.score_head.weight.zero_()
            both = min(self.n_summary, self.n_score)
            self.score_head.weight[:both, :both].fill_diagonal_(shape.head_start)
            if self.item_emb is not None:
                # The trained vectors come after the features, in the decayed mean (first block) and in the scores.
                learnt = self.score_head.weight[self.n_score :, self.n_summary : self.n_summary + shape.item_dim]
                learnt.fill_diagonal_(shape.head_start)
                nn.init.normal_(self.item_emb.weight, std=_ITEM_STD / shape.item_scale)

    def item_vectors(self, rows: int) -> Tensor | None:
        """The trained vectors, `[rows or 1, item_rows, item_dim]`, a copy for each row if `apart`; None without any."""
        if self.item_emb is None:
            return None
        every = torch.arange(self.n_rows, device=self.features.device).expand(rows if self.apart else 1, -1)
        return self.item_emb(every) * self.shape.item_scale  # type: ignore[no-any-return]

    def modality_factors(self, features: Tensor, rows: int = 1) -> Tensor | None:
        """How much each modality counts, `[rows or 1, items, modalities]`, each row its own if `apart` or masked.

        Args:
            features: `[items, feature_dim]`, of the catalogue or of later items.
        """
        if self.gating is None or self.modality_gate is None:
            return None
        read = self.gating.inputs(features).expand(rows if self.apart else 1, -1, -1)
        masking = self.shape.modality_masking if self.training else 0.0
        seen = self.gating.draw_seen(rows, masking) if masking else None
        return self.gating.factors(self.modality_gate(read), features, seen)

    def items_with_vector(self) -> Tensor:
        """Codes of the items that have a trained vector, in the order of its rows: int64 `[item_rows]`."""
        if self.n_rows == self.n_items:
            return torch.arange(self.n_items, device=self.features.device)
        prior = self.popularity(self.shape.popularity_floor).detach()
        return torch.argsort(prior, descending=True, stable=True)[: self.n_rows]

    def context(self, items: Tensor) -> Tensor:
        """The LLM's reading of each prefix, from text alone: `[users, positions]` -> `[users, positions, context_dim]`.

        Trained item vectors are left to the head: so the reading stays while only the head is trained.
        """
        tokens = self.item_in(self.dropout(self.features[items]))
        if (before := self.prompt_tokens(len(items))) is not None:
            tokens = torch.cat([before, tokens], 1)
        dtype = next(self.backbone.parameters()).dtype
        hidden = self.backbone(inputs_embeds=tokens.to(dtype), use_cache=False).last_hidden_state.float()
        return self.context_of(hidden[:, -items.shape[1] :])

    def prompt_tokens(self, users: int) -> Tensor | None:
        """What the LLM reads before any history, `[users, rank, hidden]`, a copy for each user; None without."""
        if self.prompt is None:
            return None
        return self.prompt(torch.arange(self.shape.rank, device=self.features.device).expand(users, -1))  # type: ignore[no-any-return]

    def context_of(self, hidden: Tensor) -> Tensor:
        """The backbone's last state as the head sees it: `[..., hidden]` -> `[..., context_dim]`."""
        # One scale whatever the backbone's own norms are, so that one learning rate and clip norm fit every backbone.
        normed = F.layer_norm(hidden, hidden.shape[-1:]) * self.shape.context_scale
        return self.context_in(normed)  # type: ignore[no-any-return]

    def summary(self, items: Tensor, context: Tensor, item_vectors: Tensor | None, factors: Tensor | None) -> Tensor:
        """What the head sees after each item: decayed mean, mean and last item vector, and the context.

        Args:
            items: int64 `[users, positions]`.
            context: `[users, positions, context_dim]`.
            item_vectors: as `item_vectors` gives them.
            factors: as `modality_factors` gives them.
        """
        vectors = self.known[items][..., : self.n_summary]
        if self.gating is not None and factors is not None:
            users = torch.arange(len(items), device=items.device)[:, None] if len(factors) > 1 else 0
            vectors = vectors * self.gating.by_column(factors[users, items], self.n_summary)
        if item_vectors is not None:
            vectors = torch.cat([vectors, self._look_up(items, item_vectors)], -1)
        positions = torch.arange(items.shape[1], device=items.device)
        age = positions[:, None] - positions[None, :]
        decayed = torch.where(age >= 0, self.shape.decay ** age.clamp(min=0).float(), 0.0)
        flat = (age >= 0).float()
        kernels = (decayed, flat)
        if self.training and self.shape.item_masking:
            kept = torch.rand(len(items), 1, items.shape[1], device=items.device) >= self.shape.item_masking
            kernels = (decayed * kept, flat * kept)
        means = [(k / k.sum(-1, keepdim=True).clamp(min=1e-9)) @ vectors for k in kernels]
        return torch.cat([*means, vectors, context], -1)

    def _look_up(self, items: Tensor, item_vectors: Tensor) -> Tensor:
        """`[users, positions]` and `[users or 1, item_rows, item_dim]` -> `[users, positions, item_dim]`, 0 if none."""
        if self.n_rows == self.n_items:
            places, there = items, torch.ones_like(items, dtype=torch.bool)
        else:
            row_of = torch.full((self.n_items,), -1, device=items.device)
            row_of[self.items_with_vector()] = torch.arange(self.n_rows, device=items.device)
            places, there = row_of[items].clamp(min=0), row_of[items] >= 0
        users = torch.arange(len(items), device=items.device)[:, None] if len(item_vectors) > 1 else 0
        return item_vectors[users, places] * there[..., None]

    def user_vectors(self, summary: Tensor) -> Tensor:
        """`[users, positions, summary]` -> `[users, positions, public_dim + score_dim + item_dim]`."""
        return self.score_head(self.dropout(summary))  # type: ignore[no-any-return]

    def scores(self, user_vectors: Tensor, item_vectors: Tensor | None, factors: Tensor | None) -> Tensor:
        """Compare user vectors, as `user_vectors` gives them, with every item: `[users, ..., items]`."""
        known, of_users = self.known[:, : self.n_score], user_vectors[..., : self.n_score]
        if self.gating is None or factors is None:
            scores = of_users @ known.T
        else:
            scores = self.gating.scores(of_users, known, factors)
        scores = scores + self.popularity(self.shape.popularity_floor)
        if item_vectors is None:
            return scores  # type: ignore[no-any-return]
        learnt = item_vectors if len(item_vectors) > 1 else item_vectors[0]
        of_rows = user_vectors[..., self.n_score :] @ learnt.transpose(-1, -2)
        if self.n_rows == self.n_items:
            return scores + of_rows  # type: ignore[no-any-return]
        return scores.index_add(-1, self.items_with_vector(), of_rows)  # type: ignore[no-any-return]

    def gated(self, known: Tensor, n_columns: int) -> Tensor:
        """The leading columns of items' rows as the head reads and scores with them: `[items, n_columns]`.

        Args:
            known: `[items, public_dim + feature_dim]`, of the catalogue or of later items.
        """
        factors = self.modality_factors(known[:, self.shape.public_dim :])
        if self.gating is None or factors is None:
            return known[:, :n_columns]
        return known[:, :n_columns] * self.gating.by_column(factors[0], n_columns)

    def score_summaries(self, items: Tensor, context: Tensor) -> Tensor:
        """`forward` for a context that is known: float32 `[users, positions, items]`."""
        learnt = self.item_vectors(len(items))
        # One draw for what a user has and for what is to be found: who lacks pictures lacks them on both sides.
        factors = self.modality_factors(self.features, len(items))
        return self.scores(self.user_vectors(self.summary(items, context, learnt, factors)), learnt, factors)

    def forward(self, items: Tensor) -> Tensor:
        """Scores after every item: int64 `[users, positions]` -> float32 `[users, positions, items]`."""
        return self.score_summaries(items, self.context(items))


def user_losses(scores: Tensor, targets: Tensor) -> Tensor:
    """Full-softmax loss over the catalogue, averaged within each user: a vector, never a batch mean.

    Args:
        scores: float32 `[users, positions, items]`.
        targets: int64 `[users, positions]`, the next item; -100 where there is none.
    Returns: float32 `[users]`; a user without targets costs zero.
    """
    losses = F.cross_entropy(scores.flatten(0, 1), targets.flatten(), reduction="none", ignore_index=-100)
    counted = (targets >= 0).sum(1).clamp(min=1)
    return losses.view_as(targets).sum(1) / counted


def build_model(backbone: Backbone, features: ItemFeatures, shape: AdapterShape, seed: int) -> PeftModel:
    """The item-token model under PEFT: the shape's method on the backbone, our modules in `modules_to_save`.

    Args:
        seed: of the first weights; public, set by the coordinator, never from private data.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ItemTokenModel(backbone, features, shape)
        saved = [name for name in _SAVED_MODULES if getattr(model, name) is not None]
        saved += ["bottleneck"] if shape.method == "bottleneck" else []
        wrapped: PeftModel = get_peft_model(model, tuner_config(shape.method, shape.rank, model.backbone, saved))
        wrapped.peft_config["default"].base_model_name_or_path = backbone.name
        wrapped.__dict__[_KNOWN] = _adapter_parameters(wrapped)
        return wrapped


def item_token_model(model: PeftModel) -> ItemTokenModel:
    """The item-token model inside the PEFT wrapper."""
    inner: ItemTokenModel = model.base_model.model
    return inner


def adapter_parameters(model: PeftModel) -> dict[str, nn.Parameter]:
    """Every adapter tensor under the name by which PEFT saves it."""
    # Walking all modules takes longer than a device's step, and nothing is added to a model once it is built.
    known: dict[str, nn.Parameter] | None = model.__dict__.get(_KNOWN)
    return dict(known) if known is not None else _adapter_parameters(model)


def _adapter_parameters(model: PeftModel) -> dict[str, nn.Parameter]:
    parameters = {}
    for name, parameter in model.named_parameters():
        if ".lora_" in name or ".modules_to_save." in name:
            plain = re.sub(r"\.modules_to_save\.default|\.default", "", name)
            parameters[plain.replace("magnitude_vector.weight", "magnitude_vector")] = parameter  # as PEFT saves it
    return parameters


def read_state(model: PeftModel) -> AdapterState:
    """A copy of the adapter's tensors, fp32 on the CPU."""
    return AdapterState({k: p.detach().float().cpu().numpy().copy() for k, p in adapter_parameters(model).items()})


def write_state(model: PeftModel, state: AdapterState) -> None:
    """Load an adapter into the model. Raises ModelError, changing nothing, if its tensors are not this model's."""
    parameters = adapter_parameters(model)
    wrong = sorted(set(parameters) ^ set(state.tensors)) or sorted(
        k for k, p in parameters.items() if tuple(p.shape) != state.tensors[k].shape
    )
    if wrong:
        raise ModelError(f"adapter does not fit the model at {len(wrong)} tensors, first {wrong[0]!r}")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(state.tensors[name])))


def tensor_parts(model: PeftModel) -> dict[str, str]:
    """Name of every adapter tensor -> the part that it belongs to under the model's method."""
    method = item_token_model(model).shape.method
    return {name: part_of(name, method) for name in adapter_parameters(model)}


def reading_hash(state: AdapterState) -> str:
    """SHA-256, hex, of what the LLM's reading of a history hangs on, LoRA and projections: it stays while this does."""
    digest = hashlib.sha256()
    for name in sorted(state.tensors):
        if part_of(name) in ("lora", "projection"):
            digest.update(state.tensors[name].tobytes())
    return digest.hexdigest()


def part_names(model: PeftModel, parts: Iterable[str]) -> list[str]:
    """Names of the adapter tensors of these parts, sorted; `lora` is both parts where it has two."""
    wanted = set(parts)
    wanted |= {"lora_a", "lora_b"} if "lora" in wanted else set()
    return sorted(name for name, part in tensor_parts(model).items() if part in wanted)


def train_only(model: PeftModel, names: Iterable[str]) -> dict[str, nn.Parameter]:
    """Let gradients reach these adapter tensors and no others; returns them in name order."""
    chosen = set(names)
    parameters = adapter_parameters(model)
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in chosen)
    return {name: parameters[name] for name in sorted(chosen)}
