"""An adapter on disk: PEFT's own two files, and beside them what fedrec must know to load it safely."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from fedrec.errors import ModelError
from fedrec.model.adapter import AdapterState
from fedrec.model.recommender import AdapterShape, item_token_model
from fedrec.sections.training import MethodName

FORMAT = 1


@dataclass(frozen=True)
class AdapterCard:
    """What an adapter belongs to.

    Attributes:
        version: `round-0031`, say; shown with every recommendation.
        adapter_hash: of the tensors.
        backbone, backbone_hash, layers: the frozen model.
        catalog_hash, features_hash: the items, and what the encoders made of them.
        shape: sizes of what was trained.
    """

    version: str
    adapter_hash: str
    backbone: str
    backbone_hash: str
    layers: int
    catalog_hash: str
    features_hash: str
    shape: AdapterShape


def save_adapter(
    folder: Path,
    model: PeftModel,
    state: AdapterState,
    card: AdapterCard,
    statement: Mapping[str, Any],
    statement_page: str,
) -> None:
    """Write PEFT's `adapter_model.safetensors` and `adapter_config.json`, `fedrec.json`, and what is promised.

    Args:
        statement, statement_page: for programs, `privacy.json`, and for people, `PRIVACY.md`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = model.peft_config["default"]
    config.inference_mode = True
    config.save_pretrained(folder)
    save_file({k: np.ascontiguousarray(v) for k, v in state.tensors.items()}, folder / "adapter_model.safetensors")
    _write(folder / "fedrec.json", {"format": FORMAT, **asdict(card)})
    _write(folder / "privacy.json", dict(statement))
    (folder / "PRIVACY.md").write_text(statement_page, encoding="utf-8")


def read_card(folder: Path) -> AdapterCard:
    """What the adapter in a folder belongs to. Raises ModelError for another format or a damaged file."""
    try:
        values = json.loads((folder / "fedrec.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ModelError(f"{folder}: fedrec.json is missing or damaged", "name a folder that fedrec wrote") from error
    if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
        raise ModelError(f"{folder}: written by another version of fedrec", f"this one reads format {FORMAT}")
    try:
        card = AdapterCard(**{**values, "shape": AdapterShape(**values["shape"])})
    except (KeyError, TypeError) as error:
        raise ModelError(f"{folder}: fedrec.json lacks keys, or has unknown ones", "restore it from a copy") from error
    if (method := card.shape.method) not in get_args(MethodName):
        raise ModelError(f"{folder}: was tuned by {method!r}, which this fedrec does not know", "use a newer fedrec")
    return card


def read_adapter(folder: Path) -> AdapterState:
    """The adapter's tensors. Raises ModelError if they are damaged or not what the card says."""
    try:
        state = AdapterState(load_file(folder / "adapter_model.safetensors"))
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{folder}: adapter_model.safetensors is missing or damaged") from error
    if state.hash != read_card(folder).adapter_hash:
        raise ModelError(f"{folder}: the tensors are not those of fedrec.json", "restore the folder from its source")
    return state


def adapter_shape(model: PeftModel) -> AdapterShape:
    """Sizes of the adapter in a model."""
    return item_token_model(model).shape


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
