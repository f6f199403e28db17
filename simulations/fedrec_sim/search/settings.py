"""What a search's TOML file may say: which row, which keys of the configuration, and what the search may cost."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from fedrec.config import SimulationConfig, parse_config
from fedrec.errors import ConfigError
from fedrec.rows import RowName, is_private, row_mode
from fedrec.sections.section import Section

Value = int | float | str
# What is trained and how. Epsilon is no such key: more of it is always better. Data and model are the world's.
_SEARCHED = ("plain.", "private.shape.", "private.parts.", "private.max_history")
# Of a part: what its noise and so a trial's cost depends on.
_COSTLY = ("rounds", "share", "sampling_prob")


class KeyConfig(Section):
    """`[[search.keys]]`: one key of the configuration, by dotted path, and where it is looked for.

    Whole numbers at both ends give whole numbers. A part is named: `private.parts.head.server_learning_rate`.
    """

    key: str
    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    choices: tuple[Value, ...] = ()

    @model_validator(mode="after")
    def _a_range_or_choices(self) -> Self:
        if (self.low is None) != (self.high is None) or (self.low is None) == (not self.choices):
            raise ValueError(f"{self.key}: give low and high, or choices")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ValueError(f"{self.key}: low must be below high")
        if self.log and (self.low is None or self.low <= 0):
            raise ValueError(f"{self.key}: log needs a range above 0")
        return self

    @property
    def ends(self) -> tuple[Value, ...]:
        """The values that a configuration must be able to take."""
        return self.choices if self.low is None or self.high is None else (self.low, self.high)


class SearchConfig(Section):
    """`[search]`: one row, what is varied of it, and what it may cost.

    Attributes:
        metric: of validation, at the last round.
        seed: of splits, training and sampler; not one that is reported.
        prune: stop trials that are below the median of the others after as many rounds; on charged data never, since
            each look would be a release.
        data_is_public: a folder of data holds what may be published; known data sets and made users need no word.
        budget_epsilon: what the whole search may cost each partner's data, at `private.delta`.
        validation_noise: noise multiplier on the sum over users of the metric, where the search is charged.
    """

    row: RowName = "federated_dp"
    metric: Literal["ndcg@10", "hr@10"] = "ndcg@10"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 11
    prune: bool = True
    data_is_public: bool = False
    budget_epsilon: Annotated[float, Field(gt=0, le=100)] | None = None
    validation_noise: Annotated[float, Field(gt=0, le=1e6)] = 10.0
    keys: Annotated[tuple[KeyConfig, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _keys_once(self) -> Self:
        names = [one.key for one in self.keys]
        problems = [f"{name}: a search may not vary it" for name in names if not name.startswith(_SEARCHED)]
        if len(set(names)) != len(names):
            problems.append("name each key once")
        if row_mode(self.row) is None:
            problems.append(f"row {self.row} is not federated; `fedrec tune sasrec` and the like are for others")
        if problems:
            raise ValueError("; ".join(problems))
        return self


class _SearchFile(Section):
    format: Literal[1]
    search: SearchConfig


def load_search(path: Path) -> SearchConfig:
    """Read a search's TOML file. Raises ConfigError: every unknown key and every value out of range, and the file."""
    try:
        return parse_search(tomllib.loads(path.read_text(encoding="utf-8")), str(path))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", "name an existing TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}", "mend the TOML syntax at that place") from error


def parse_search(values: Mapping[str, Any], place: str) -> SearchConfig:
    """The same of a dict. Raises as `load_search`."""
    try:
        return _SearchFile.model_validate(values).search
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc']))}: {e['msg'].removeprefix('Value error, ')}" for e in error.errors()]
        raise ConfigError.of_all(problems, "see simulations/searches/federated.toml for every key", place) from error


def with_values(config: SimulationConfig, values: Mapping[str, Value], **more: Any) -> SimulationConfig:
    """The configuration with some keys at other values.

    Args:
        more: top-level keys beside them.
    Raises: ConfigError: an unknown key, or a value that does not fit.
    """
    whole = config.model_dump(mode="json") | more
    for key, value in values.items():
        _put(whole, key, value)
    return parse_config(whole, ", ".join(f"{key} = {value}" for key, value in values.items()) or "configuration")


def refuse_unfit(config: SimulationConfig, search: SearchConfig, *, is_charged: bool) -> None:
    """Raises ConfigError: every key that cannot take its ends, or that the row would not see; all at once."""
    problems = [] if config.engine == "inline" else ['engine: a search needs "inline"']
    for one in search.keys:
        if is_charged and one.key.split(".")[-1] in _COSTLY and one.key.startswith("private.parts."):
            problems.append(f"{one.key}: decides what a trial costs; on private data the cost must be known before")
        for value in one.ends:
            try:
                row = with_values(config, {one.key: value}).for_row(search.row)
            except ConfigError as error:
                problems.append(error.problem)
                continue
            if _get(row.model_dump(mode="json"), one.key) != value:
                problems.append(f"{one.key}: [[private.tuned]] sets it for {search.row}, so that nothing would vary")
    is_of_plain = {one.key.startswith("plain.") for one in search.keys}
    if is_of_plain != {not is_private(search.row)}:
        problems.append(f"keys: {search.row} is trained by {'private' if is_private(search.row) else 'plain'} alone")
    if problems:
        raise ConfigError.of_all(dict.fromkeys(problems), "mend the search or the configuration", "search")


def _put(values: dict[str, Any], key: str, value: Value) -> None:
    *path, last = key.split(".")
    place = _walk(values, path, key)
    if last not in place:
        raise ConfigError(f"{key}: no such key", "see simulations/configs/demo.toml for every key")
    place[last] = value


def _get(values: dict[str, Any], key: str) -> Any:
    *path, last = key.split(".")
    return _walk(values, path, key)[last]


def _walk(values: dict[str, Any], path: list[str], key: str) -> dict[str, Any]:
    place: Any = values
    for name in path:
        named = {one["part"]: one for one in place} if isinstance(place, list) else place
        if name not in named:
            raise ConfigError(f"{key}: no {name!r} there", "see simulations/configs/demo.toml for every key")
        place = named[name]
    if not isinstance(place, dict):
        raise ConfigError(f"{key}: names no single value", "name the part, as in private.parts.head.l2_clip_norm")
    return place
