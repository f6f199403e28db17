"""Published interactions behind private rows: checked against the partners' own, decomposed once, kept in the cache."""

import hashlib
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fedrec.data.catalog import ItemCatalog
from fedrec.data.datasets import Interactions, Say, generated_from, load_data
from fedrec.data.sources import cache_dir, list_sources
from fedrec.errors import ConfigError, PrivacyError
from fedrec.files import replace_file, storage_errors
from fedrec.model.behaviour import behaviour_vectors
from fedrec.model.features import ItemFeatures

# Changes when reading or decomposing changes, so that old vectors are never taken for new ones.
_RECIPE = "public-behaviour/1"


@dataclass(frozen=True)
class _Behaviour:
    """Vectors of the catalogue's items, and the public data behind them."""

    vectors: np.ndarray = field(repr=False)
    table_hash: str
    catalog_hash: str


def with_public_behaviour(
    features: ItemFeatures, catalog: ItemCatalog, source: str, dim: int, private: Interactions | None, say: Say
) -> ItemFeatures:
    """The features, with what people in a public data set had together.

    Args:
        source: a known data set, which is decomposed once and kept in the cache, or a folder.
        dim: components.
        private: the partners' table, which must not be the public one; None where nobody's rows are.
    Raises:
        PrivacyError: they are the partners' own rows, which would leave uncharged. Only the whole table is recognised:
            that none of its users is among the partners' is for whoever names it to know.
        ConfigError: made users, or no such data.
    """
    cached = _cached(source, catalog, dim)
    held = _read(cached) if cached else None
    found = held or _decomposed(source, catalog, dim, private, say)
    _refuse_own(found.table_hash, private)
    if cached and not held:
        _keep(cached, found)
    return features.with_behaviour(found.vectors, f"{found.catalog_hash}|{found.table_hash}|{dim}")


def _decomposed(source: str, catalog: ItemCatalog, dim: int, private: Interactions | None, say: Say) -> _Behaviour:
    public_catalog, table = load_data(source, say)
    _refuse_own(table.hash, private)
    if generated_from(table):
        raise ConfigError("model.public_data names made users", "name a data set of real people, or none")
    vectors = behaviour_vectors(catalog, public_catalog, table.tables(), dim)
    return _Behaviour(vectors, table.hash, public_catalog.hash)


def _refuse_own(table_hash: str, private: Interactions | None) -> None:
    if private is not None and table_hash == private.hash:
        raise PrivacyError(
            "model.public_data names the partners' own data, and would hand them out without noise or charge",
            'name data that are published, or "none"',
        )


def _cached(source: str, catalog: ItemCatalog, dim: int) -> Path | None:
    """Where the vectors of a known data set are kept; a folder may change under its name, so its are not."""
    for known in list_sources():
        if known.name == source:
            files = "|".join(file.sha256 for file in known.files)
            key = hashlib.sha256(f"{_RECIPE}|{catalog.hash}|{files}|{dim}".encode()).hexdigest()
            return cache_dir() / "features" / f"behaviour-{key[:32]}.safetensors"
    return None


def _read(path: Path) -> _Behaviour | None:
    """What is kept; None if nothing is, or it is damaged and has to be made anew."""
    if path.is_file():
        with suppress(SafetensorError, KeyError), safe_open(path, "numpy") as held:
            told = held.metadata() or {}
            return _Behaviour(held.get_tensor("vectors"), told["table_hash"], told["catalog_hash"])
    return None


def _keep(path: Path, found: _Behaviour) -> None:
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        told = {"table_hash": found.table_hash, "catalog_hash": found.catalog_hash}
        replace_file(path, save({"vectors": found.vectors}, told))
