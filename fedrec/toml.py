"""Commented TOML files that are documentation, default and input at once: read into models that refuse unknown keys."""

import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from fedrec.errors import ConfigError


class Section(BaseModel):
    """A table of a configuration file."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


_Model = TypeVar("_Model", bound=Section)


def read_toml(path: Path, model: type[_Model], remedy: str) -> _Model:
    """Read and validate. Raises ConfigError: naming every unknown key and value out of range, and the file."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", remedy) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}", "mend the TOML syntax at that place") from error
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = [".".join(map(str, item["loc"])) + ": " + _words(item["msg"]) for item in error.errors()]
        raise ConfigError.of_all(problems, remedy, str(path)) from error


def _words(message: str) -> str:
    return message.removeprefix("Value error, ")
