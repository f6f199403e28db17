"""`[plain]` and `[private]`: what is trained, and how."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from fedrec.rows import RowName, asked_epsilon, is_private
from fedrec.sections.section import Count, Rate, Section, Share

MethodName = Literal["lora", "rslora", "ffa-lora", "rolora", "bottleneck", "prompt", "adalora", "dora"]
_NEVER_PRIVATE = {
    "adalora": "gives rank to layers by looking at all users' gradients, which is not noised",
    "dora": "trains magnitudes that no per-user gradient is captured for",
}


_RANKED = ("lora", "rslora", "ffa-lora", "rolora")


class ShapeConfig(Section):
    """Sizes of what is trained; see `AdapterShape`."""

    rank: Count = 8
    item_dim: Annotated[int, Field(ge=0, le=1024)] = 0
    summary_dim: Annotated[int, Field(ge=0, le=4096)] = 32
    context_dim: Count = 32
    score_dim: Count = 32
    context_scale: Annotated[float, Field(gt=0, le=100)] = 1.0
    decay: Annotated[float, Field(gt=0, lt=1)] = 0.8
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    popularity_floor: Annotated[float, Field(gt=0)] = 1.0
    head_start: Annotated[float, Field(ge=0, le=1000)] = 0.0
    item_rows: Annotated[int, Field(ge=0)] = 0
    item_scale: Annotated[float, Field(gt=0, le=100)] = 1.0
    item_masking: Annotated[float, Field(ge=0, lt=1)] = 0.0
    public_dim: Annotated[int, Field(ge=0, le=1024)] = 0
    gate_dim: Annotated[int, Field(ge=0, le=64)] = 0
    modality_masking: Annotated[float, Field(ge=0, lt=1)] = 0.0
    method: MethodName = "lora"

    @model_validator(mode="after")
    def _masks_through_a_gate(self) -> Self:
        if self.modality_masking and not self.gate_dim:
            raise ValueError("modality_masking needs a gate: set gate_dim")
        return self


class PlainConfig(Section):
    """`[plain]`: the rows without privacy: first head and item vectors alone, then everything together."""

    shape: ShapeConfig
    head_rounds: Annotated[int, Field(ge=0)] = 8
    head_local_epochs: Count = 1
    head_epochs: Annotated[int, Field(ge=0)] = 8
    head_learning_rate: Rate = 5e-3
    rounds: Annotated[int, Field(ge=0)] = 4
    local_epochs: Count = 1
    central_epochs: Annotated[int, Field(ge=0)] = 4
    local_only_epochs: Annotated[int, Field(ge=0)] = 4
    batch_users: Count = 8
    central_batch_users: Count = 32
    learning_rate: Rate = 2.5e-3
    server_learning_rate: Rate = 0.7
    server_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.8
    central_learning_rate: Rate = 2e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    ranks: tuple[Count, ...] = ()

    @model_validator(mode="after")
    def _ranks_fit(self) -> Self:
        if problems := rank_problems(self.ranks, self.shape):
            raise ValueError("; ".join(problems))
        return self


def rank_problems(ranks: tuple[int, ...], shape: ShapeConfig) -> list[str]:
    """What is wrong with partners' own ranks, dealt in turn, in words."""
    if not ranks:
        return []
    problems = [] if max(ranks) == shape.rank else [f"the largest of ranks must be shape.rank, {shape.rank}"]
    if shape.method not in _RANKED:
        problems.append(f"ranks of partners are for {', '.join(_RANKED)}, not for shape.method {shape.method}")
    return problems


class PartConfig(Section):
    """`[[private.parts]]`: one part of the adapter, trained for some rounds with its share of the budget."""

    part: Literal["prior", "head", "lora"]
    rounds: Count
    share: Share
    sampling_prob: Share = 1.0
    l2_clip_norm: Annotated[float, Field(gt=0)]
    optimizer: Literal["sgd", "nesterov", "adam"]
    server_learning_rate: Rate
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9


class TunedConfig(Section):
    """`[[private.tuned]]`: what some private rows do otherwise, chosen for the noise that they bear."""

    rows: Annotated[tuple[RowName, ...], Field(min_length=1)]
    summary_dim: Annotated[int, Field(ge=0, le=4096)] | None = None
    score_dim: Count | None = None
    item_rows: Annotated[int, Field(ge=0)] | None = None
    item_scale: Annotated[float, Field(gt=0, le=100)] | None = None
    head_rounds: Count | None = None
    head_learning_rate: Rate | None = None


class PrivateConfig(Section):
    """`[private]`: the rows under user-level differential privacy; those with an epsilon in their name take that."""

    epsilon: Annotated[float, Field(gt=0, le=100)] = 8.0
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    max_history: Annotated[int, Field(ge=0, le=2000)] = 0
    noise_source: Literal["seeded", "secret"] = "seeded"
    ledger: Literal["own", "pooled"] = "own"
    shape: ShapeConfig
    ranks: tuple[Count, ...] = ()
    parts: Annotated[tuple[PartConfig, ...], Field(min_length=1)]
    tuned: tuple[TunedConfig, ...] = ()

    def for_row(self, row: str) -> Self:
        """These settings with what the row's name and `[[private.tuned]]` say of it."""
        asked = asked_epsilon(row)
        changed: dict[str, Any] = {} if asked is None else {"epsilon": asked}
        for tuned in (one for one in self.tuned if row in one.rows):
            shape = {name: getattr(tuned, name) for name in ("summary_dim", "score_dim", "item_rows", "item_scale")}
            head = {"rounds": tuned.head_rounds, "server_learning_rate": tuned.head_learning_rate}
            changed["shape"] = self.shape.model_copy(update=_given(shape))
            changed["parts"] = tuple(p.model_copy(update=_given(head)) if p.part == "head" else p for p in self.parts)
        return self.model_copy(update=changed)

    @model_validator(mode="after")
    def _shares_and_order(self) -> Self:
        names = [part.part for part in self.parts]
        problems = []
        if len(set(names)) != len(names):
            problems.append("each part may stand once")
        if abs(sum(part.share for part in self.parts) - 1) > 1e-9:
            problems.append("the shares of the parts must add up to 1")
        if self.shape.dropout or self.shape.item_masking or self.shape.modality_masking:
            problems.append("shape.dropout and both maskings must be 0: noise regularises enough")
        problems += rank_problems(self.ranks, self.shape)
        if reason := _NEVER_PRIVATE.get(self.shape.method):
            problems.append(f"shape.method {self.shape.method} {reason}: choose another, or train without privacy")
        if self.shape.item_dim and self.shape.item_rows and names[0] != "prior":
            problems.append("the prior must come first: it says which items have a vector")
        tuned = [row for one in self.tuned for row in one.rows]
        if len(set(tuned)) != len(tuned) or not all(map(is_private, tuned)):
            problems.append("tuned: name each row once, and private rows only")
        if problems:
            raise ValueError("; ".join(problems))
        return self


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
