"""What a simulation's TOML file may say: frozen models that refuse unknown keys and report every problem at once."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fedrec.defence import AttackConfig, Defence
from fedrec.errors import ConfigError
from fedrec.rows import RowName, asked_epsilon, is_private, row_mode

FORMAT = 1
ProtocolName = Literal["A", "B", "D", "split721", "global-time"]
Share = Annotated[float, Field(gt=0, le=1)]
Rate = Annotated[float, Field(gt=0, le=1000)]
Count = Annotated[int, Field(ge=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataConfig(_Section):
    """`[data]`: which interactions, and how much of each user is read."""

    source: str = "ml-100k"
    users: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    max_history: Annotated[int, Field(ge=2, le=2000)] = 100


class ModelConfig(_Section):
    """`[model]`: the frozen parts that every partner shares."""

    backbone: str = "smollm2-135m"
    layers: Count = 2
    feature_layer: Count = 4
    sentence_encoder: str = "minilm-l6-v2"
    feature_dim: Annotated[int, Field(ge=2, le=4096)] = 256
    modalities: tuple[str, ...] = ()
    image_encoder: str = "efficientnet-lite0"
    public_data: str = "none"
    public_dim: Annotated[int, Field(ge=1, le=1024)] = 32
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    threads: Annotated[int, Field(ge=0, le=4096)] = 0


class ShapeConfig(_Section):
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


class PlainConfig(_Section):
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


class PartConfig(_Section):
    """`[[private.parts]]`: one part of the adapter, trained for some rounds with its share of the budget."""

    part: Literal["prior", "head", "lora"]
    rounds: Count
    share: Share
    sampling_prob: Share = 1.0
    l2_clip_norm: Annotated[float, Field(gt=0)]
    optimizer: Literal["sgd", "nesterov", "adam"]
    server_learning_rate: Rate
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9


class TunedConfig(_Section):
    """`[[private.tuned]]`: what some private rows do otherwise, chosen for the noise that they bear."""

    rows: Annotated[tuple[RowName, ...], Field(min_length=1)]
    summary_dim: Annotated[int, Field(ge=0, le=4096)] | None = None
    score_dim: Count | None = None
    item_rows: Annotated[int, Field(ge=0)] | None = None
    item_scale: Annotated[float, Field(gt=0, le=100)] | None = None
    head_rounds: Count | None = None
    head_learning_rate: Rate | None = None


class PrivateConfig(_Section):
    """`[private]`: the rows under user-level differential privacy; those with an epsilon in their name take that."""

    epsilon: Annotated[float, Field(gt=0, le=100)] = 8.0
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    max_history: Annotated[int, Field(ge=0, le=2000)] = 0
    noise_source: Literal["seeded", "secret"] = "seeded"
    ledger: Literal["own", "pooled"] = "own"
    shape: ShapeConfig
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
        if self.shape.dropout or self.shape.item_masking:
            problems.append("shape.dropout and shape.item_masking must be 0: noise regularises enough")
        if self.shape.item_dim and self.shape.item_rows and names[0] != "prior":
            problems.append("the prior must come first: it says which items have a vector")
        tuned = [row for one in self.tuned for row in one.rows]
        if len(set(tuned)) != len(tuned) or not all(map(is_private, tuned)):
            problems.append("tuned: name each row once, and private rows only")
        if problems:
            raise ValueError("; ".join(problems))
        return self


class RoundsConfig(Defence):
    """`[rounds]`: who is asked, when a round counts, and how answers become one; in secagg rows under masks."""

    partners_per_round: Annotated[int, Field(ge=0)] = 0
    quorum: Count = 8
    dishonest: Annotated[int, Field(ge=0)] = 0
    masks: bool = True
    range_users: Annotated[int, Field(ge=1, le=10_000_000)] = 4096
    losses: Annotated[int, Field(ge=0)] = 0
    spare_attempts: Annotated[int, Field(ge=0, le=1000)] = 0
    timeout_s: Annotated[float, Field(gt=0)] = 600.0
    max_attempts: Count = 3
    max_delta_norm: Annotated[float, Field(gt=0)] = 1e4


class SASRecConfig(_Section):
    """`[baselines.sasrec]`: as `fedrec tune sasrec` chose them (tuned/sasrec.json)."""

    max_history: Annotated[int, Field(ge=2, le=2000)] = 200
    hidden: Annotated[int, Field(ge=1, le=1024)] = 96
    blocks: Annotated[int, Field(ge=1, le=16)] = 2
    heads: Annotated[int, Field(ge=1, le=64)] = 1
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    learning_rate: Rate = 2e-3
    batch_users: Count = 32
    epochs: Count = 80
    every: Count = 5
    patience: Count = 3

    @model_validator(mode="after")
    def _heads_share_the_states(self) -> Self:
        if self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} is no multiple of heads {self.heads}")
        return self


class FedMFConfig(_Section):
    """`[baselines.fedmf]`: as `fedrec tune fedmf` chose them (tuned/fedmf.json); an epoch is a round."""

    factors: Annotated[int, Field(ge=1, le=1024)] = 32
    learning_rate: Rate = 1.0
    item_learning_rate: Rate = 3.0
    l2: Annotated[float, Field(ge=0, le=100)] = 0.003
    negatives: Annotated[int, Field(ge=1, le=1000)] = 4
    local_steps: Count = 1
    epochs: Count = 400
    every: Count = 10
    patience: Count = 5


class PFedRecConfig(_Section):
    """`[baselines.pfedrec]`: as `fedrec tune pfedrec` chose them (tuned/pfedrec.json); an epoch is a round."""

    factors: Annotated[int, Field(ge=1, le=1024)] = 64
    learning_rate: Rate = 0.1
    item_learning_rate: Annotated[float, Field(gt=0, le=1e6)] = 1e4
    negatives: Annotated[int, Field(ge=1, le=1000)] = 4
    local_steps: Count = 5
    epochs: Count = 400
    every: Count = 10
    patience: Count = 5


class BaselinesConfig(_Section):
    """`[baselines]`: rows that others invented. Cheaper ones are tuned anew for each seed, by grids in their code."""

    sasrec: SASRecConfig = SASRecConfig()
    fedmf: FedMFConfig = FedMFConfig()
    pfedrec: PFedRecConfig = PFedRecConfig()


class EvaluationConfig(_Section):
    """`[evaluation]`: the protocol, and how often a round is looked at."""

    protocol: ProtocolName = "B"
    every_rounds: Count = 1
    watch_users: Annotated[int, Field(ge=0)] = 0


class ColdStartConfig(_Section):
    """`[cold_start]`: what `fedrec cold-start` withholds from training, and which rows it then asks."""

    rows: Annotated[tuple[RowName, ...], Field(min_length=1)] = ("popularity", "item_knn", "federated")
    items_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    users_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    shots: Annotated[tuple[Count, ...], Field(min_length=1)] = (1, 3, 5, 10)
    new_item_boost: Annotated[float, Field(ge=0, le=10)] = 1.0

    @model_validator(mode="after")
    def _one_model_each(self) -> Self:
        problems = []
        if "local_only" in self.rows:
            problems.append("rows: local_only trains a model for each partner, and new users have no partner")
        if len(set(self.rows)) != len(self.rows) or len(set(self.shots)) != len(self.shots):
            problems.append("rows and shots must not repeat")
        if problems:
            raise ValueError("; ".join(problems))
        return self


class SimulationConfig(_Section):
    """One simulation: data, model, partners and the rows of the ladder."""

    format: Literal[1]
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,60}$")]
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**63)], ...], Field(min_length=1)] = (1,)
    partners: Annotated[int, Field(ge=1, le=100_000)] = 8
    jobs: Annotated[int, Field(ge=1, le=256)] = 1
    engine: Literal["inline", "ray"] = "inline"
    rows: Annotated[tuple[RowName, ...], Field(min_length=1)]
    data: DataConfig
    model: ModelConfig
    plain: PlainConfig
    private: PrivateConfig
    rounds: RoundsConfig
    evaluation: EvaluationConfig
    cold_start: ColdStartConfig = ColdStartConfig()
    baselines: BaselinesConfig = BaselinesConfig()
    attack: AttackConfig = AttackConfig()

    def for_row(self, row: str) -> Self:
        """The configuration as one of its rows takes it."""
        if not is_private(row):
            return self
        private = self.private.for_row(row)
        data = self.data.model_copy(update={"max_history": private.max_history or self.data.max_history})
        return self.model_copy(update={"private": private, "data": data})

    def shapes(self) -> Iterator[tuple[str, ShapeConfig]]:
        """Every shape that is trained, with its place in the file."""
        yield "plain.shape", self.plain.shape
        yield "private.shape", self.private.shape
        for row in filter(is_private, self.rows):
            if (tuned := self.private.for_row(row).shape) != self.private.shape:
                yield f"private.tuned of {row}", tuned

    def _sum_problems(self, asked: int) -> list[str]:
        """Of rows whose answers are added up under masks."""
        rounds, problems = self.rounds, list[str]()
        if rounds.dishonest >= rounds.quorum:
            problems.append(f"rounds.dishonest {rounds.dishonest} leaves nobody of rounds.quorum {rounds.quorum}")
        if not rounds.masks or all(row_mode(row) != "secagg" for row in self.rows):
            return problems
        if self.engine == "ray":
            problems.append(
                'engine "ray" moves partners between processes, and secrets of a sum stay in one: '
                "set rounds.masks = false, which simulates the sum"
            )
        if asked < 3:
            problems.append(
                f"secure aggregation of {asked} partners hides nothing: have 3, or set rounds.masks = false"
            )
        if rounds.losses > asked - max(2 * asked // 3 + 1, rounds.quorum):
            problems.append(f"rounds.losses {rounds.losses} leaves too few of {asked} partners to open a sum")
        return problems

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        problems = []
        if self.data.source == "generated" and not self.data.users:
            problems.append('data.users must say how many users are made where data.source is "generated"')
        if self.engine == "ray" and self.jobs > 1:
            problems.append('engine "ray" takes all cores for one row: jobs must be 1')
        asked = self.rounds.partners_per_round or self.partners
        if self.rounds.quorum > self.partners:
            problems.append(f"rounds.quorum {self.rounds.quorum} exceeds partners {self.partners}")
        elif self.rounds.quorum > asked:
            problems.append(f"rounds.quorum {self.rounds.quorum} exceeds rounds.partners_per_round {asked}")
        problems += self._sum_problems(asked)
        if asked > self.partners:
            problems.append(f"rounds.partners_per_round {asked} exceeds partners {self.partners}")
        is_masked = any(row_mode(row) == "secagg" for row in self.rows)
        problems += self.rounds.problems(self.rounds.quorum, secagg=is_masked)
        if len(set(self.seeds)) != len(self.seeds) or len(set(self.rows)) != len(self.rows):
            problems.append("seeds and rows must not repeat")
        there = 0 if self.model.public_data == "none" else self.model.public_dim
        for place, shape in self.shapes():
            widest = max(shape.summary_dim, shape.score_dim)
            if widest > self.model.feature_dim:
                problems.append(f"{place} needs {widest} components, model.feature_dim is {self.model.feature_dim}")
            if shape.public_dim > there:
                problems.append(f"{place}.public_dim is {shape.public_dim}, model.public_data gives {there}")
        if problems:
            raise ValueError("; ".join(problems))
        return self


def load_config(path: Path, overrides: tuple[str, ...] = ()) -> SimulationConfig:
    """Read a simulation's TOML file, with `key=value` overrides whose keys are dotted paths.

    Raises: ConfigError: naming every unknown key and every value out of range, and the file.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", "name an existing TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}", "mend the TOML syntax at that place") from error
    for override in overrides:
        _override(values, override)
    return parse_config(values, str(path))


def parse_config(values: dict[str, Any], place: str) -> SimulationConfig:
    """Validate a configuration that is already a dict (a stored run's, say)."""
    try:
        return SimulationConfig.model_validate(values)
    except ValidationError as error:
        problems = [_problem(dict(item)) for item in error.errors()]
        raise ConfigError.of_all(problems, "see simulations/configs/demo.toml for every key", place) from error


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _problem(item: dict[str, Any]) -> str:
    key = ".".join(str(part) for part in item["loc"]) or "whole file"
    return f"{key}: {str(item['msg']).removeprefix('Value error, ')}"


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override!r} is not key=value", "write for example --set private.epsilon=2")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string
    *path, last = key.split(".")
    for name in path:
        values = values.setdefault(name, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--set {key}: {name} is not a section", "see the keys in the configuration file")
    values[last] = value
