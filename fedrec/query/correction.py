"""What partners' real requests add to the public reader: a small head that corrects the weights of categories.

The reader stays as the public taught it. The head reads its weights, and what the encoders made of the words, reduced
to the directions in which public words differ most; it starts at the reader's own weights.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from fedrec.errors import ModelError
from fedrec.files import json_bytes, place_folder, sha256, storage_errors
from fedrec.model.adapter import AdapterState
from fedrec.model.features import principal_components
from fedrec.query.attributes import Floats
from fedrec.tasks.head import PART, HeadShape

FORMAT = 2
# Changes when inputs are made otherwise, so that no head is read with other inputs than it was trained on.
_RECIPE = "request-words/1"
# The reader's own weights come in small, so that training hardly moves what the head makes of them.
_OWN_SCALE = 0.01
_REMEDY = "learn it anew with `fedrec query learn`"


@dataclass(frozen=True, eq=False)
class RequestInputs:
    """What the head reads of a request. Public.

    Attributes:
        reader_hash: of the reader that reads it, see `QueryModel.reader_hash`.
        n_categories: of its attribute space.
        centre: float32 `[reading]`; basis: float32 `[reading, directions]`.
    """

    reader_hash: str
    n_categories: int
    centre: Floats = field(repr=False)
    basis: Floats = field(repr=False)

    @classmethod
    def of(
        cls, reader_hash: str, n_categories: int, readings: Floats, widths: tuple[int, ...], directions: int
    ) -> "RequestInputs":
        """From public words.

        Args:
            readings: float32 `[words, reading]`, what the reader makes of each.
            widths: of the encoders' blocks in a reading; each has the same say.
            directions: how many are kept.
        """
        blocks = np.split(readings.astype(np.float64), np.cumsum(widths)[:-1], axis=1)
        _, made = principal_components(blocks, directions)
        return cls(reader_hash, n_categories, made["centre"], made["basis"])

    @property
    def width(self) -> int:
        """Numbers of an input."""
        return self.n_categories + int(self.basis.shape[1])

    @cached_property
    def hash(self) -> str:
        """Identity of reader, recipe and directions."""
        digest = hashlib.sha256(f"{_RECIPE}|{self.reader_hash}|{self.n_categories}".encode())
        digest.update(self.centre.tobytes() + np.ascontiguousarray(self.basis).tobytes())
        return digest.hexdigest()

    def of_requests(self, readings: Floats, weights: Floats) -> Floats:
        """float32 `[requests, width]`, of what `QueryModel.readings` says of them; private as the requests are."""
        words = (readings - self.centre) @ self.basis
        return np.concatenate([_OWN_SCALE * weights[:, : self.n_categories], words], 1).astype(np.float32)

    def held_back_by(self, readings: Floats, weights: Floats, strength: float) -> Floats:
        """What a correction's part about words is multiplied with, so that it hardly moves what the reader knows.

        Where public requests differ, the public reader was taught what their words mean: there the noise of a private
        training would only do harm. This is ridge regression towards no correction on public requests.

        Args:
            readings, weights: of public requests, see `QueryModel.readings`.
            strength: 0 or more; 0 holds nothing back.
        Returns: float32 `[directions, directions]`.
        """
        words = self.of_requests(readings, weights)[:, self.n_categories :].astype(np.float64)
        second = words.T @ words / max(len(words), 1)
        held: Floats = np.linalg.inv(np.eye(len(second)) + strength * second).astype(np.float32)
        return held

    def untrained(self) -> tuple[HeadShape, AdapterState]:
        """The head before training: it says what the reader says."""
        weight = np.eye(self.n_categories, self.width, dtype=np.float32) / np.float32(_OWN_SCALE)
        bias = np.zeros(self.n_categories, np.float32)
        first = AdapterState({f"{PART}.outer.weight": weight, f"{PART}.outer.bias": bias})
        return HeadShape(self.width, self.n_categories), first


@dataclass(frozen=True)
class CorrectionPromise:
    """What a correction promises the people whose requests taught it.

    Attributes:
        mode: "none" without privacy; epsilon and delta are None then, and nowhere else.
    """

    mode: str
    epsilon: float | None
    delta: float | None

    @classmethod
    def of(cls, statement: Mapping[str, Any]) -> "CorrectionPromise":
        """Of a privacy statement. Raises ModelError: it says no mode, or an epsilon that does not go with it."""
        mode, *figures = (statement.get(name) for name in ("mode", "epsilon", "delta"))
        wanted = type(None) if mode == "none" else float
        if not isinstance(mode, str) or not all(isinstance(figure, wanted) for figure in figures):
            raise ModelError("a correction's statement says neither epsilon and delta nor mode none", _REMEDY)
        return cls(mode, *figures)

    @property
    def is_private(self) -> bool:
        """Whether it promises anything."""
        return self.mode != "none"


@dataclass(frozen=True, eq=False)
class Correction:
    """A trained head over the public reader.

    Attributes:
        weight: float32 `[categories, inputs.width]`. The head's bias is left out: it is what all requests have in
            common, and says nothing of the words of one.
        promise: of the statement that it is kept with; None: it is not kept.
    """

    inputs: RequestInputs
    weight: Floats = field(repr=False)
    promise: CorrectionPromise | None = None

    @classmethod
    def of(cls, inputs: RequestInputs, state: AdapterState, held_back: Floats | None = None) -> "Correction":
        """Of a trained head. Raises ModelError: it is another one's.

        Args:
            held_back: of `RequestInputs.held_back_by`; None: the head as it was trained.
        Privacy: reads what was released and public requests alone.
        """
        weight = state.tensors.get(f"{PART}.outer.weight")
        if weight is None or weight.shape != (inputs.n_categories, inputs.width) or not np.isfinite(weight).all():
            raise ModelError("the correction is another reader's, or not finite", _REMEDY)
        own, words = np.split(np.asarray(weight, np.float32), [inputs.n_categories], axis=1)
        return cls(inputs, np.concatenate([own, words if held_back is None else words @ held_back], axis=1))

    @property
    def reader_hash(self) -> str:
        """Of the reader that it was learnt for."""
        return self.inputs.reader_hash

    def corrected(self, readings: Floats, weights: Floats) -> Floats:
        """Weights `[requests, width]` with those of categories as partners' requests have them.

        Args:
            readings, weights: what the public reader makes of requests, see `QueryModel.readings`.
        """
        found = weights.copy()
        found[:, : self.inputs.n_categories] = self.inputs.of_requests(readings, weights) @ self.weight.T
        return found


def save_correction(correction: Correction, folder: Path, statement: dict[str, Any], page: str) -> None:
    """Keep a correction with its privacy statement, whole or not at all; one that is there is set aside.

    Args:
        statement: for programs; page: the same for people.
    Raises: ModelError: a statement that promises nothing that can be told. StorageError.
    """
    CorrectionPromise.of(statement)
    inputs = correction.inputs
    tensors = {"centre": inputs.centre, "basis": inputs.basis, "weight": correction.weight}
    told = {"privacy.json": json_bytes(statement), "PRIVACY.md": page.encode()}
    facts = {
        "format": FORMAT,
        "reader_hash": inputs.reader_hash,
        "categories": inputs.n_categories,
        "inputs_hash": inputs.hash,
        "weight_hash": _hash(correction.weight),
        "statement_hashes": {name: sha256(content) for name, content in told.items()},
    }
    weights = save({name: np.ascontiguousarray(of) for name, of in tensors.items()})
    with storage_errors(folder):
        place_folder(folder, {"correction.safetensors": weights, "correction.json": json_bytes(facts), **told})


def load_correction(folder: Path) -> Correction | None:
    """The correction that is kept there; None if there is none.

    Raises: ModelError: another format, damaged, or altered, its statement included.
    """
    if not folder.exists():
        return None
    try:
        facts = json.loads((folder / "correction.json").read_bytes())
        tensors = load_file(folder / "correction.safetensors")
        told = {name: (folder / name).read_bytes() for name in ("privacy.json", "PRIVACY.md")}
    except (OSError, ValueError, SafetensorError):
        raise ModelError(f"{folder}: the correction cannot be read", _REMEDY) from None
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise ModelError(f"{folder}/correction.json: not of format {FORMAT}", _REMEDY)
    if facts.get("statement_hashes") != {name: sha256(content) for name, content in told.items()}:
        raise ModelError(f"{folder}: privacy.json or PRIVACY.md was altered", _REMEDY)
    try:
        inputs = RequestInputs(facts["reader_hash"], facts["categories"], tensors["centre"], tensors["basis"])
        found = Correction.of(inputs, AdapterState({f"{PART}.outer.weight": tensors["weight"]}))
        is_whole = (facts["inputs_hash"], facts["weight_hash"]) == (inputs.hash, _hash(found.weight))
        promise = CorrectionPromise.of(json.loads(told["privacy.json"]))
    except (KeyError, ValueError, TypeError, IndexError, AttributeError, ModelError):
        is_whole = False
    if not is_whole:
        raise ModelError(f"{folder}/correction.json: the correction was altered", _REMEDY)
    return replace(found, promise=promise)


def _hash(weight: Floats) -> str:
    return hashlib.sha256(np.ascontiguousarray(weight, np.float32).tobytes()).hexdigest()
