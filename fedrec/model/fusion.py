"""One item vector of several modalities: text, image, and whatever vectors an owner has; any of them may be missing.

Every modality is reduced to components of its own; they take turns in the item vector, so that its leading components
hold the strongest of each. An item's components are scaled by one over the root of how many modalities *it* has: who
lacks a picture has the same length as the others, and is as like to them as its text alone says. The gate of
`ItemTokenModel` learns on top of that how much each modality counts (`AdapterShape.gate_dim`).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fedrec.data.media import ModalityVectors
from fedrec.errors import ModelError
from fedrec.model.features import ItemFeatures, ModalityLayout, principal_components

Floats = NDArray[np.float32]
_RECIPE = "taking-turns/1"
TEXT = "text"


@dataclass(frozen=True)
class Reduction:
    """What makes components of a modality's own vector: `(vector - centre) @ basis`.

    Attributes:
        centre: float32 `[width]`.
        basis: float32 `[width, components]`.
    """

    centre: Floats = field(repr=False)
    basis: Floats = field(repr=False)

    @classmethod
    def fit(cls, found: ModalityVectors, dim: int) -> "Reduction":
        """Leading components of the items that have the modality, at most `dim`, scaled as the text's are.

        Raises: ModelError: fewer than two items have it.
        """
        rows = found.vectors[found.present]
        if len(rows) < 2:
            raise ModelError(f"{len(rows)} items have {found.name!r}", "leave it out of model.modalities")
        scale = np.ones(rows.shape[1], np.float32)
        if found.own_units:  # what never differs says nothing
            spread = rows.std(0)
            scale = np.divide(1, spread, out=np.zeros_like(spread), where=spread > 1e-6)
        _, made = principal_components([rows * scale], min(dim, *rows.shape))
        centre = np.divide(made["centre"], scale, out=np.zeros_like(scale), where=scale > 0)
        return cls(centre, made["basis"] * scale[:, None])

    def of(self, found: ModalityVectors) -> Floats:
        """float32 `[items, components]`, zero where absent."""
        reduced = (found.vectors - self.centre) @ self.basis * found.present[:, None]
        return np.asarray(reduced, np.float32)


def text_dim(dim: int, extras: Sequence[ModalityVectors]) -> int:
    """How many of `dim` components are left to the text: an even share, and what others cannot fill.

    >>> wide = ModalityVectors("image", np.eye(9, 8, dtype=np.float32), np.arange(9) < 8)
    >>> text_dim(8, [wide]), text_dim(32, [wide])
    (4, 24)
    """
    return dim - sum(_share(dim, extras))


def _share(dim: int, extras: Sequence[ModalityVectors]) -> list[int]:
    even = dim // (len(extras) + 1)
    return [min(even, one.vectors.shape[1], int(one.present.sum())) for one in extras]


def fused_features(text: ItemFeatures, extras: Sequence[ModalityVectors], dim: int) -> tuple[ItemFeatures, "Fusion"]:
    """Item vectors of text and more, and what fuses later items alike.

    Args:
        text: of `text_dim(dim, extras)` components.
        extras: one vector an item each, public.
        dim: components of the fused vector.
    Raises: ModelError: a modality that hardly any item has, or of another catalogue.
    """
    if wrong := [one.name for one in extras if len(one.vectors) != len(text.vectors)]:
        raise ModelError(f"{', '.join(wrong)}: of another number of items than the catalogue", "import both together")
    shares = _share(dim, extras)
    reductions = tuple(Reduction.fit(one, share) for one, share in zip(extras, shares, strict=True))
    layout = _taking_turns((TEXT, *(one.name for one in extras)), (text.dim, *(r.basis.shape[1] for r in reductions)))
    fusion = Fusion(layout, dict(zip(layout.names[1:], reductions, strict=True)))
    vectors = fusion.fuse(text.vectors, {one.name: one for one in extras})
    made_from = "|".join([_RECIPE, text.hash, str(dim), *(f"{one.name}={one.made_from}" for one in extras)])
    name = hashlib.sha256(made_from.encode()).hexdigest()
    return replace(text, vectors=vectors, hash=name, layout=layout), fusion


def _taking_turns(names: tuple[str, ...], widths: tuple[int, ...]) -> ModalityLayout:
    order = sorted((place, number) for number, width in enumerate(widths) for place in range(width))
    return ModalityLayout(names, tuple(number for _, number in order))


@dataclass(frozen=True)
class Fusion:
    """Puts modalities together as the catalogue's were, for items that came later."""

    layout: ModalityLayout
    reductions: Mapping[str, Reduction] = field(repr=False)

    def fuse(self, texts: Floats, extras: Mapping[str, ModalityVectors]) -> Floats:
        """float32 `[items, dim]`.

        Args:
            texts: `[items, text components]`; a row of zeros is an absent text.
            extras: of the same items by name; a modality that is not named is absent from all of them.
        """
        fused = np.zeros((len(texts), len(self.layout.columns)), np.float32)
        owner = np.array(self.layout.columns)
        fused[:, owner == 0] = texts
        for number, name in enumerate(self.layout.names[1:], 1):
            if name in extras:
                fused[:, owner == number] = self.reductions[name].of(extras[name])
        return _balanced(fused, self.layout)


def presence(vectors: Floats, layout: ModalityLayout) -> NDArray[np.bool_]:
    """Which item has which modality, bool `[items, modalities]`: one whose components are all zero is absent."""
    if len(layout.names) == 1:
        return np.ones((len(vectors), 1), np.bool_)
    owner = np.array(layout.columns)
    return np.stack([vectors[:, owner == number].any(1) for number in range(len(layout.names))], 1)


def _balanced(vectors: Floats, layout: ModalityLayout) -> Floats:
    """Scaled by one over the root of how many modalities an item has."""
    scale: Floats = vectors / np.sqrt(np.maximum(presence(vectors, layout).sum(1, keepdims=True), 1))
    return scale.astype(np.float32)


def without(features: ItemFeatures, name: str, items: NDArray[np.bool_] | None = None) -> ItemFeatures:
    """The features as if a modality were missing, from all items or from those of a mask.

    Raises: ModelError: no such modality.
    """
    layout = features.layout
    if name not in layout.names or len(layout.names) == 1:
        raise ModelError(f"no modality {name!r} to take away; there: {', '.join(layout.names)}")
    gone = np.ones(len(features.vectors), np.bool_) if items is None else items
    before = np.sqrt(np.maximum(presence(features.vectors, layout).sum(1, keepdims=True), 1))
    vectors = features.vectors * before
    vectors[np.ix_(gone, np.array(layout.columns) == layout.names.index(name))] = 0
    marks = hashlib.sha256(f"{features.hash}|without {name}|".encode() + gone.tobytes()).hexdigest()
    return replace(features, vectors=_balanced(vectors, layout), hash=marks)
