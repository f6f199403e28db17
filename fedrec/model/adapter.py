"""The adapter as named float32 arrays: its shapes, its state, and the difference that travels. No torch."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fedrec.errors import ModelError

Tensors = Mapping[str, NDArray[np.float32]]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class AdapterSpec:
    """What an adapter belongs to, and the shape of every tensor, by part. Public.

    Attributes:
        backbone: name of the frozen model.
        backbone_hash, catalog_hash, feature_hash: SHA-256, hex.
        parts: part -> tensor -> shape. A tensor may stand in several parts ("all", "head"), with one shape.
    Raises: ModelError: no part, an empty part, or a tensor with two shapes.
    """

    backbone: str
    backbone_hash: str
    catalog_hash: str
    feature_hash: str
    parts: Mapping[str, Mapping[str, Shape]] = field(repr=False)

    def __post_init__(self) -> None:
        problems = [f"part {part!r} has no tensors" for part, shapes in self.parts.items() if not shapes]
        union = self.shapes
        for part, shapes in self.parts.items():
            problems += [f"{part}: {n!r} has two shapes" for n, shape in shapes.items() if union[n] != shape]
        if problems or not self.parts:
            raise ModelError.of_all(problems or ["no parts"], "name each tensor once a part", "adapter spec")

    @property
    def shapes(self) -> dict[str, Shape]:
        """Shape of every tensor of every part."""
        return {name: shape for shapes in self.parts.values() for name, shape in shapes.items()}

    def part(self, name: str) -> Mapping[str, Shape]:
        """Shapes of one part. Raises ModelError for an unknown one, naming those that exist."""
        if name not in self.parts:
            raise ModelError(f"the adapter has no part {name!r}", f"it has {', '.join(sorted(self.parts))}")
        return self.parts[name]


@dataclass(frozen=True, eq=False)
class AdapterState:
    """An adapter's weights. Public to partners. Two are the same when their hashes are.

    Args:
        tensors: float32, by name; kept in name order. Not copied: nobody writes into them afterwards.
    Raises: ModelError: no tensor, or one that is not a float32 array.

    >>> state = AdapterState({"w": np.zeros(2, np.float32)})
    >>> state.plus(AdapterDelta({"w": np.ones(2, np.float32)})).tensors["w"].tolist()
    [1.0, 1.0]
    """

    tensors: Tensors = field(repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tensors", _validated(self.tensors))

    @cached_property
    def hash(self) -> str:
        """SHA-256 over names in order, shapes and bytes, hex."""
        return _digest(self.tensors)

    @property
    def n_bytes(self) -> int:
        """Size of the tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @property
    def is_finite(self) -> bool:
        """Whether no number is NaN or infinite."""
        return _is_finite(self.tensors)

    def check(self, spec: AdapterSpec) -> None:
        """Raises ModelError unless names and shapes are exactly the spec's and every number is finite."""
        problems = mismatches(self.tensors, spec.shapes)
        if problems or not _is_finite(self.tensors):
            raise ModelError.of_all(problems or ["not finite"], "use the adapter of this model", "adapter")

    def within_rank(self, rank: int) -> "AdapterState":
        """The same with LoRA's leading `rank` directions alone, the others zero."""
        return AdapterState(_within_rank(self.tensors, rank))

    def plus(self, adapter_delta: "AdapterDelta") -> "AdapterState":
        """A new state, with some tensors moved. Raises ModelError if names or shapes differ."""
        moved = adapter_delta.tensors
        _refuse(mismatches(moved, {k: v.shape for k, v in self.tensors.items() if k in moved}))
        return AdapterState({**self.tensors, **{k: self.tensors[k] + v for k, v in moved.items()}})

    def minus(self, start: "AdapterState") -> "AdapterDelta":
        """End minus start. Raises ModelError if names or shapes differ."""
        _refuse(mismatches(self.tensors, {k: v.shape for k, v in start.tensors.items()}))
        return AdapterDelta({k: v - start.tensors[k] for k, v in self.tensors.items()})

    def to_bytes(self) -> bytes:
        """As a safetensors file; the same state gives the same bytes."""
        return bytes(save(dict(self.tensors)))

    @classmethod
    def from_bytes(cls, content: bytes) -> "AdapterState":
        """Read a safetensors file. Raises ModelError if it is damaged."""
        return cls(read_tensors(content))


@dataclass(frozen=True, eq=False)
class AdapterDelta:
    """End minus start of some of an adapter's tensors: what leaves a partner, noised. Released.

    Args:
        tensors: float32, by name; kept in name order. NaN is legal here; the coordinator refuses it.
    Raises: ModelError: no tensor, or one that is not a float32 array.
    """

    tensors: Tensors = field(repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tensors", _validated(self.tensors))

    @cached_property
    def hash(self) -> str:
        """SHA-256 over names in order, shapes and bytes, hex."""
        return _digest(self.tensors)

    @property
    def n_bytes(self) -> int:
        """Size of the tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @property
    def is_finite(self) -> bool:
        """Whether no number is NaN or infinite."""
        return _is_finite(self.tensors)

    @property
    def l2_norm(self) -> float:
        """L2 norm over all tensors together, summed in float64."""
        return math.sqrt(sum(float(np.square(t, dtype=np.float64).sum()) for t in self.tensors.values()))

    def within_rank(self, rank: int) -> "AdapterDelta":
        """The same with LoRA's leading `rank` directions alone, the others zero."""
        return AdapterDelta(_within_rank(self.tensors, rank))

    def scaled(self, factor: float) -> "AdapterDelta":
        """Every number times `factor`."""
        return AdapterDelta({name: tensor * np.float32(factor) for name, tensor in self.tensors.items()})

    def to_bytes(self) -> bytes:
        """As a safetensors file; the same difference gives the same bytes."""
        return bytes(save(dict(self.tensors)))

    @classmethod
    def from_bytes(cls, content: bytes) -> "AdapterDelta":
        """Read a safetensors file. Raises ModelError if it is damaged."""
        return cls(read_tensors(content))


def mismatches(tensors: Mapping[str, NDArray[np.generic]], shapes: Mapping[str, Shape]) -> list[str]:
    """Where names and shapes of tensors are not exactly these; in words, without values."""
    missing, extra = sorted(shapes.keys() - tensors.keys()), sorted(tensors.keys() - shapes.keys())
    problems = [f"{len(missing)} tensors missing, first {missing[0]!r}"] if missing else []
    problems += [f"{len(extra)} tensors too many"] if extra else []  # not named: the sender chose the names
    shared = sorted(shapes.keys() & tensors.keys())
    return problems + [
        f"{name!r} has shape {list(tensors[name].shape)}, not {list(shapes[name])}"
        for name in shared
        if tensors[name].shape != tuple(shapes[name])
    ]


def read_tensors(content: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of a safetensors file. Raises ModelError if it is damaged."""
    try:
        return dict(load(content))
    except (SafetensorError, KeyError, ValueError) as error:
        raise ModelError("not a whole safetensors file", "fetch it again") from error


def leading_directions(name: str, rank: int) -> tuple[slice, ...]:
    """Where a LoRA tensor holds its first `rank` directions, rows of A and columns of B; all of any other tensor.

    >>> np.arange(6).reshape(3, 2)[leading_directions("q_proj.lora_A.weight", 2)].tolist()
    [[0, 1], [2, 3]]
    """
    if ".lora_A." in name:
        return (slice(rank),)
    return (slice(None), slice(rank)) if ".lora_B." in name else ()


def _within_rank(tensors: Tensors, rank: int) -> dict[str, NDArray[np.float32]]:
    kept = {}
    for name, tensor in tensors.items():
        place = leading_directions(name, rank)
        kept[name] = np.zeros_like(tensor)
        kept[name][place] = tensor[place]
    return kept


def _validated(tensors: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
    """In name order and contiguous, so that hash and file depend on the numbers alone."""
    _refuse([] if tensors else ["no tensors"])
    wrong = [name for name, tensor in tensors.items() if getattr(tensor, "dtype", None) != np.float32]
    _refuse([f"{name!r} is not a float32 array" for name in wrong])
    return {name: np.asarray(tensors[name], order="C") for name in sorted(tensors)}


def _digest(tensors: Tensors) -> str:
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(json.dumps([name, tensor.shape]).encode() + b"\n")
        digest.update(tensor.astype("<f4", copy=False).tobytes())
    return digest.hexdigest()


def _is_finite(tensors: Tensors) -> bool:
    return all(bool(np.isfinite(tensor).all()) for tensor in tensors.values())


def _refuse(problems: list[str]) -> None:
    if problems:
        raise ModelError.of_all(problems, "use tensors of the same adapter", "adapter tensors")
