"""A federation as a folder that `fedrec federation make` wrote: terms, schedule, first adapter, catalogue. Public."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fedrec.aggregation.server_optimizer import ServerOptimizer
from fedrec.errors import ConfigError, ModelError, RunError
from fedrec.files import json_bytes, new_folder, read_file, sha256
from fedrec.model.adapter import AdapterState
from fedrec.terms import FederationTerms, read_terms
from fedrec_server.rounds.schedule import RoundSpec

TERMS, SCHEDULE, STATEMENT = "terms.json", "schedule.json", "statement.json"
INITIAL, CATALOG = "initial.safetensors", "catalog.parquet"


@dataclass(frozen=True)
class Federation:
    """What is trained, by whom it was agreed, and from where it starts.

    Attributes:
        schedule: round 1 first.
        statement: goes with every version.
        catalog: bytes of the public catalogue, as partners read it.
    """

    terms: FederationTerms
    schedule: tuple[RoundSpec, ...] = field(repr=False)
    statement: Mapping[str, Any] = field(repr=False)
    initial: AdapterState = field(repr=False)
    catalog: bytes = field(repr=False)

    def write(self, folder: Path) -> None:
        """As a new folder, whole or not at all. Raises ConfigError: it is there. StorageError."""
        if folder.exists():
            raise ConfigError(f"{folder}: exists already", "name a new folder")
        with new_folder(folder) as fresh:
            (fresh / TERMS).write_bytes(json_bytes(self.terms.to_dict()))
            (fresh / SCHEDULE).write_bytes(json_bytes({"rounds": [asdict(spec) for spec in self.schedule]}))
            (fresh / STATEMENT).write_bytes(json_bytes(self.statement))
            (fresh / INITIAL).write_bytes(self.initial.to_bytes())
            (fresh / CATALOG).write_bytes(self.catalog)

    @classmethod
    def read(cls, folder: Path) -> "Federation":
        """Raises RunError: something is missing or does not fit. ProtocolError: terms of another version."""
        terms = read_terms(_json(folder / TERMS), str(folder / TERMS))
        try:
            initial = AdapterState.from_bytes(read_file(folder / INITIAL))
            initial.check(terms.spec)
            schedule = tuple(_round_spec(values) for values in _json(folder / SCHEDULE)["rounds"])
        except (ModelError, ConfigError, KeyError, TypeError) as error:
            raise RunError(
                f"{folder}: is no federation: {error}", "make it anew with `fedrec federation make`"
            ) from error
        if initial.hash != terms.initial_hash:
            raise RunError(f"{folder / INITIAL}: is not the adapter that the terms name", "make the folder anew")
        return cls(terms, schedule, _json(folder / STATEMENT), initial, read_file(folder / CATALOG))

    @property
    def catalog_sha256(self) -> str:
        """Of the catalogue's file."""
        return sha256(self.catalog)


def rounds_of(schedule: Sequence[RoundSpec]) -> dict[str, int]:
    """Rounds by part."""
    parts = [spec.part for spec in schedule]
    return {part: parts.count(part) for part in dict.fromkeys(parts)}


def _round_spec(values: Mapping[str, Any]) -> RoundSpec:
    return RoundSpec(**{**values, "optimizer": ServerOptimizer(**values["optimizer"])})


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(read_file(path))
    except ValueError as error:
        raise RunError(f"{path}: is no JSON", "make the folder anew with `fedrec federation make`") from error
    if not isinstance(values, dict):
        raise RunError(f"{path}: is no JSON object", "make the folder anew with `fedrec federation make`")
    return values
