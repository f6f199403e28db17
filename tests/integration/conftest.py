"""A made shop on disk and a configuration that runs in seconds."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest

from fedrec.data.catalog import ItemCatalog, write_catalog
from fedrec.data.interactions import Interaction, InteractionTable, write_interactions
from tests.integration.task_network import make_federation, network, published

__all__ = ["make_federation", "network", "published"]  # fixtures of what tests of nodes and task heads have alike

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def shop(catalog: ItemCatalog, histories: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `fedrec data import` leaves it."""
    folder = tmp_path_factory.mktemp("shop")
    rows = [
        Interaction(f"u{user:02d}", catalog.ids[item], None, 1000.0 * place, line=0)
        for user, history in enumerate(histories)
        for place, item in enumerate(history)
    ]
    write_catalog(catalog, folder / "catalog.parquet")
    write_interactions(InteractionTable.from_rows(rows, catalog), folder / "interactions.parquet")
    return folder


@pytest.fixture(scope="session")
def public_folder(catalog: ItemCatalog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Published interactions of 30 other people, as `fedrec data import` leaves them."""
    folder = tmp_path_factory.mktemp("public")
    rows = [
        Interaction(f"p{user:02d}", catalog.ids[(user % 4 + 4 * place) % len(catalog)], None, 50.0 * place, line=0)
        for user in range(30)
        for place in range(2 + user % 7)
    ]
    write_catalog(catalog, folder / "catalog.parquet")
    write_interactions(InteractionTable.from_rows(rows, catalog), folder / "interactions.parquet")
    return folder


@pytest.fixture(scope="session")
def young_shop(catalog: ItemCatalog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 users who come one after the other, so that one time for all leaves some of them without training items."""
    folder = tmp_path_factory.mktemp("young-shop")
    rows = [
        Interaction(
            f"u{user:02d}", catalog.ids[(user % 4 + 4 * place) % len(catalog)], None, 100.0 * user + 9 * place, 0
        )
        for user in range(40)
        for place in range(4 + user % 6)
    ]
    write_catalog(catalog, folder / "catalog.parquet")
    write_interactions(InteractionTable.from_rows(rows, catalog), folder / "interactions.parquet")
    return folder


@pytest.fixture(scope="session")
def config_file(shop: Path, public_folder: Path, tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's configuration, made tiny: 3 partners, 6 private rounds."""
    text = (ROOT / "simulations/configs/demo.toml").read_text(encoding="utf-8")
    values = tomllib.loads(text)
    values |= {"name": "tiny", "partners": 3, "rows": ["popularity", "federated_dp"]}
    values["data"] |= {"source": str(shop), "max_history": 20}
    values["model"] |= {"backbone": str(tiny_llama), "layers": 2, "feature_layer": 2, "feature_dim": 8}
    values["model"] |= {
        "public_data": str(public_folder),
        "public_dim": 4,
        "sentence_encoder": "none",
        "device": "cpu",
        "dtype": "float32",
        "threads": 1,
    }
    values["plain"] |= {"head_rounds": 2, "head_local_epochs": 1, "head_epochs": 2}
    values["plain"] |= {"rounds": 2, "local_epochs": 1, "central_epochs": 2, "local_only_epochs": 2}
    values["plain"]["shape"] |= {"rank": 2, "item_dim": 2, "summary_dim": 4, "context_dim": 8, "score_dim": 8}
    values["private"]["shape"] |= {"summary_dim": 4, "context_dim": 4, "score_dim": 4, "item_dim": 2, "item_rows": 5}
    values["private"]["shape"] |= {"public_dim": 2}
    values["private"]["tuned"][0] |= {"summary_dim": 3, "score_dim": 3, "item_rows": 4, "head_rounds": 2}
    for part, rounds in zip(values["private"]["parts"], (1, 3, 2), strict=True):
        part["rounds"] = rounds
    values["rounds"] |= {"quorum": 2, "max_attempts": 2}
    path = tmp_path_factory.mktemp("config") / "tiny.toml"
    path.write_text(_toml(values), encoding="utf-8")
    return path


def _toml(values: dict[str, object], prefix: str = "") -> str:
    """Enough TOML for a configuration: JSON's scalars and lists are TOML's."""
    lines = [f"{k} = {json.dumps(v)}" for k, v in values.items() if not _is_table(v)]
    for name, value in values.items():
        if isinstance(value, dict):
            lines += [f"[{prefix}{name}]", _toml(value, f"{prefix}{name}.")]
        elif isinstance(value, list) and _is_table(value):
            for part in value:
                lines += [f"[[{prefix}{name}]]", _toml(part, f"{prefix}{name}.")]
    return "\n".join(lines)


def _is_table(value: object) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))
