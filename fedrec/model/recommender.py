"""The item-token model: a frozen LLM reads item vectors as tokens; the PEFT adapter is all that is trained.

A user's history becomes item tokens (`item_in`), the LLM's first layers with LoRA read them, and the score head
turns the summary of the history into a vector that is compared with every item: one pass scores the catalogue.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from torch.nn import functional as F

from fedrec.errors import ModelError
from fedrec.model.adapter import AdapterState
from fedrec.model.backbone import Backbone
from fedrec.model.features import ItemFeatures

_KNOWN = "_fedrec_adapter_parameters"
_SAVED_MODULES = ("item_in", "item_emb", "context_in", "score_head", "popularity")


@dataclass(frozen=True)
class AdapterShape:
    """The sizes that decide what is trained; public, part of the adapter.

    Attributes:
        rank: of LoRA on every linear layer.
        item_dim: width of the trained per-item vectors; 0 for none (under DP each costs noise).
        summary_dim: leading feature components of which the head sees decayed mean, mean and last item.
        context_dim: width of the LLM's state as the head sees it.
        score_dim: leading feature components that scores are made with.
        context_scale: root mean square of a coordinate of the context; item vectors have a norm of about 1 in all.
        decay: of the decayed mean, per item.
        dropout: on item tokens and on the summary.
        popularity_floor: added to the popularity histogram before its logarithm becomes the prior.
        head_start: weight of the decayed mean's likeness to an item in the untrained head's score; 0 leaves it silent.
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
    """Scores the whole catalogue after every item of a history. Wrapped by PEFT, which adds LoRA."""

    features: Tensor

    def __init__(self, backbone: Backbone, features: ItemFeatures, shape: AdapterShape) -> None:
        super().__init__()
        if max(shape.summary_dim, shape.score_dim) > features.dim:
            raise ModelError(
                f"summary_dim {shape.summary_dim} or score_dim {shape.score_dim} exceeds feature_dim {features.dim}"
            )
        n_items = len(features.vectors)
        self.shape = shape
        self.n_items = n_items
        self.backbone = backbone.module
        self.register_buffer("features", torch.from_numpy(features.vectors.copy()), persistent=False)
        self.item_in = nn.Linear(features.dim + shape.item_dim, backbone.hidden_size)
        self.item_emb = nn.Embedding(n_items, shape.item_dim) if shape.item_dim else None
        self.context_in = nn.Linear(backbone.hidden_size, shape.context_dim, bias=False)
        # No bias: what it could learn is the same for all users, as the prior is, and it would share their clipped
        # gradients (its part of the mean gradient was about as large as that of all weights together).
        width = 3 * shape.summary_dim + shape.context_dim
        self.score_head = nn.Linear(width, shape.score_dim + shape.item_dim, bias=False)
        self.popularity = Popularity(n_items)
        self.dropout = nn.Dropout(shape.dropout)
        self._initialise(features)

    def _initialise(self, features: ItemFeatures) -> None:
        """Public first weights: item tokens imitate the LLM's own words; the head knows likeness at most."""
        tokens, vectors = features.word_tokens, features.vectors
        gram = vectors.T @ vectors + 1e-2 * len(vectors) / vectors.shape[1] * np.eye(vectors.shape[1], dtype=np.float32)
        weights = np.linalg.solve(gram, vectors.T @ (tokens - tokens.mean(0)))
        with torch.no_grad():
            self.item_in.weight.zero_()
            self.item_in.weight[:, : vectors.shape[1]] = torch.from_numpy(weights.T.astype(np.float32))
            self.item_in.bias.copy_(torch.from_numpy(tokens.mean(0).astype(np.float32)))
            nn.init.orthogonal_(self.context_in.weight)
            self.score_head.weight.zero_()
            both = min(self.shape.summary_dim, self.shape.score_dim)
            self.score_head.weight[:both, :both].fill_diagonal_(self.shape.head_start)
            if self.item_emb is not None:
                nn.init.normal_(self.item_emb.weight, std=0.02)
                nn.init.normal_(self.item_in.weight[:, vectors.shape[1] :], std=0.02)

    def item_table(self) -> Tensor:
        """Feature vectors, joined with the trained item vectors: `[items, feature_dim + item_dim]`."""
        if self.item_emb is None:
            return self.features
        return torch.cat([self.features, self.item_emb(torch.arange(self.n_items, device=self.features.device))], 1)

    def context(self, items: Tensor) -> Tensor:
        """The LLM's reading of each prefix: `[users, positions]` -> `[users, positions, context_dim]`."""
        tokens = self.item_in(self.dropout(self.item_table()[items]))
        dtype = next(self.backbone.parameters()).dtype
        hidden = self.backbone(inputs_embeds=tokens.to(dtype), use_cache=False).last_hidden_state.float()
        # One scale whatever the backbone's own norms are, so that one learning rate and clip norm fit every backbone.
        normed = F.layer_norm(hidden, hidden.shape[-1:]) * self.shape.context_scale
        return self.context_in(normed)  # type: ignore[no-any-return]

    def summary(self, items: Tensor, context: Tensor) -> Tensor:
        """What the head sees after each item: decayed mean, mean and last item vector, and the context."""
        vectors = self.features[items][..., : self.shape.summary_dim]
        positions = torch.arange(items.shape[1], device=items.device)
        age = positions[:, None] - positions[None, :]
        decayed = torch.where(age >= 0, self.shape.decay ** age.clamp(min=0).float(), 0.0)
        flat = (age >= 0).float()
        means = [(kernel / kernel.sum(1, keepdim=True)) @ vectors for kernel in (decayed, flat)]
        return torch.cat([*means, vectors, context], -1)

    def user_vectors(self, summary: Tensor) -> Tensor:
        """`[users, positions, summary]` -> `[users, positions, score_dim + item_dim]`."""
        return self.score_head(self.dropout(summary))  # type: ignore[no-any-return]

    def scores(self, user_vectors: Tensor) -> Tensor:
        """Compare user vectors with every item: `[..., score_dim + item_dim]` -> `[..., items]`."""
        table = self.item_table()
        kept = torch.cat([table[:, : self.shape.score_dim], table[:, self.features.shape[1] :]], 1)
        return user_vectors @ kept.T + self.popularity(self.shape.popularity_floor)  # type: ignore[no-any-return]

    def forward(self, items: Tensor) -> Tensor:
        """Scores after every item: int64 `[users, positions]` -> float32 `[users, positions, items]`."""
        return self.scores(self.user_vectors(self.summary(items, self.context(items))))


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
    """The item-token model under PEFT: LoRA on every linear layer of the backbone, our modules in `modules_to_save`.

    Args:
        seed: of the first weights; public, set by the coordinator, never from private data.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ItemTokenModel(backbone, features, shape)
        saved = [name for name in _SAVED_MODULES if getattr(model, name) is not None]
        config = LoraConfig(
            r=shape.rank,
            lora_alpha=2 * shape.rank,
            target_modules=_linear_names(model.backbone),
            modules_to_save=saved,
            fan_in_fan_out=any(type(m).__name__ == "Conv1D" for m in backbone.module.modules()),
        )
        wrapped: PeftModel = get_peft_model(model, config)
        wrapped.peft_config["default"].base_model_name_or_path = backbone.name
        wrapped.__dict__[_KNOWN] = _adapter_parameters(wrapped)
        return wrapped


def _linear_names(module: nn.Module) -> str:
    """A pattern for the backbone's linear layers (GPT-2 calls them Conv1D)."""
    names = {
        name.rsplit(".", 1)[-1]
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear) or type(layer).__name__ == "Conv1D"
    }
    return rf"backbone\..*\.({'|'.join(sorted(names))})"


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
            parameters[re.sub(r"\.modules_to_save\.default|\.default", "", name)] = parameter
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


def part_of(name: str) -> str:
    """Which part of the adapter a tensor belongs to: prior, head, lora, projection, items or fixed."""
    rules = {".popularity.": "prior", ".score_head.": "head", ".lora_": "lora", ".item_in.": "projection"}
    rules |= {".item_emb.": "items", ".context_in.": "projection"}
    return next((part for mark, part in rules.items() if mark in name), "fixed")


def part_names(model: PeftModel, parts: Iterable[str]) -> list[str]:
    """Names of the adapter tensors of these parts, sorted."""
    wanted = set(parts)
    return sorted(name for name in adapter_parameters(model) if part_of(name) in wanted)


def train_only(model: PeftModel, names: Iterable[str]) -> dict[str, nn.Parameter]:
    """Let gradients reach these adapter tensors and no others; returns them in name order."""
    chosen = set(names)
    parameters = adapter_parameters(model)
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in chosen)
    return {name: parameters[name] for name in sorted(chosen)}
