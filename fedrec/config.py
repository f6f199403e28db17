"""What a simulation's TOML file may say: frozen models that refuse unknown keys and report every problem at once."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from fedrec.defence import AttackConfig, Defence
from fedrec.errors import ConfigError
from fedrec.rows import RowName, is_private, row_mode
from fedrec.sections.baselines import BaselinesConfig as BaselinesConfig
from fedrec.sections.baselines import FedMFConfig as FedMFConfig
from fedrec.sections.baselines import PFedRecConfig as PFedRecConfig
from fedrec.sections.baselines import SASRecConfig as SASRecConfig
from fedrec.sections.scenario import EventConfig as EventConfig
from fedrec.sections.scenario import ScenarioConfig as ScenarioConfig
from fedrec.sections.section import Count, Section
from fedrec.sections.tracking import TrackerName as TrackerName
from fedrec.sections.tracking import TrackingConfig as TrackingConfig
from fedrec.sections.training import PartConfig as PartConfig
from fedrec.sections.training import PlainConfig as PlainConfig
from fedrec.sections.training import PrivateConfig as PrivateConfig
from fedrec.sections.training import ShapeConfig as ShapeConfig
from fedrec.sections.training import TunedConfig as TunedConfig

FORMAT = 1
ProtocolName = Literal["A", "B", "D", "split721", "global-time"]


class DataConfig(Section):
    """`[data]`: which interactions, and how much of each user is read."""

    source: str = "ml-100k"
    users: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    max_history: Annotated[int, Field(ge=2, le=2000)] = 100


class ModelConfig(Section):
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
    start: Literal["nothing", "catalog"] = "nothing"
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    threads: Annotated[int, Field(ge=0, le=4096)] = 0


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


class EvaluationConfig(Section):
    """`[evaluation]`: the protocol, and how often a round is looked at."""

    protocol: ProtocolName = "B"
    every_rounds: Count = 1
    watch_users: Annotated[int, Field(ge=0)] = 0


class ColdStartConfig(Section):
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


class SimulationConfig(Section):
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
    tracking: TrackingConfig = TrackingConfig()
    scenario: ScenarioConfig | None = None

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

    def _scenario_problems(self) -> list[str]:
        """What a scenario's figures want of the rest."""
        if self.scenario is None:
            return []
        problems = []
        if "local_only" in self.rows:
            problems.append("rows: local_only has a model for each partner, and a scenario's lists are made with one")
        if self.evaluation.protocol != "B":
            problems.append("evaluation.protocol must be B: a scenario's lists are asked for each user's last item")
        if self.scenario.shares and len(self.scenario.shares) != self.partners:
            problems.append(f"scenario.shares has {len(self.scenario.shares)} shares for {self.partners} partners")
        return problems

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

    def _rank_problems(self, *, is_masked: bool) -> list[str]:
        """Of partners whose LoRA has different ranks."""
        problems = []
        if self.private.ranks and is_masked:
            problems.append(
                "private.ranks: under masks a direction that few partners train would bear all partners' noise, or too "
                "little of it: name rows of inspect mode, or leave ranks out"
            )
        if (self.plain.ranks or self.private.ranks) and self.rounds.aggregator != "mean":
            problems.append(f"ranks of partners need rounds.aggregator mean, not {self.rounds.aggregator}")
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
        problems += self._scenario_problems()
        if asked > self.partners:
            problems.append(f"rounds.partners_per_round {asked} exceeds partners {self.partners}")
        is_masked = any(row_mode(row) == "secagg" for row in self.rows)
        problems += self.rounds.problems(self.rounds.quorum, secagg=is_masked)
        problems += self._rank_problems(is_masked=is_masked)
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
