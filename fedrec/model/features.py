"""Item feature vectors: what the shared LLM and a sentence encoder make of each item's public text. Computed once."""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from torch import nn

from fedrec.data.catalog import ItemCatalog
from fedrec.errors import ModelError
from fedrec.files import replace_file, storage_errors
from fedrec.model.backbone import folder_hash, load_reader

Progress = Callable[[int, int], None]
# Changes when the recipe below changes, so that an old cache is never taken for a new one.
_RECIPE = "pooled-llm+sentence/1"
_ALL_LAYERS = 10_000


@dataclass(frozen=True)
class ModalityLayout:
    """Which components of an item vector come from which modality; public, the same for every item.

    Attributes:
        names: of the modalities, text first.
        columns: place in `names` for each component; empty: all are the text's.
    """

    names: tuple[str, ...] = ("text",)
    columns: tuple[int, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class ItemFeatures:
    """Frozen public vectors of the catalogue's items.

    Attributes:
        vectors: float32 `[items, dim]`; principal components, the strongest first, mean squared norm 1. Where there
            are several modalities, their components take turns; an absent modality's are zero.
        word_tokens: float32 `[items, hidden]`; mean of the LLM's own input embeddings of the item's text:
            what the first item tokens imitate, so that the untrained LLM has words to read.
        hash: identity of catalogue, encoders and recipe, and of the public data behind `behaviour`.
        behaviour: float32 `[items, public_dim]`; from public interactions, see `behaviour_vectors`; no column without.
        layout: which of the vectors' components are whose.
    """

    vectors: np.ndarray = field(repr=False)
    word_tokens: np.ndarray = field(repr=False)
    hash: str
    behaviour: np.ndarray = field(repr=False)
    layout: ModalityLayout = ModalityLayout()

    @classmethod
    def of_text(cls, vectors: np.ndarray, word_tokens: np.ndarray, name: str) -> "ItemFeatures":
        """Features that know the items' texts alone."""
        return cls(vectors, word_tokens, name, np.zeros((len(vectors), 0), np.float32))

    def with_behaviour(self, behaviour: np.ndarray, made_from: str) -> "ItemFeatures":
        """These and vectors from public interactions, float32 `[items, public_dim]`.

        Args:
            made_from: identity of the public data and of what was done with them. As with texts, partners compare
                this and not the vectors, whose last bits differ from machine to machine.
        """
        name = hashlib.sha256(f"{self.hash}|{made_from}".encode()).hexdigest()
        return replace(self, hash=name, behaviour=behaviour)

    def of_items(self, codes: np.ndarray, name: str) -> "ItemFeatures":
        """The features of some of the items, under another name."""
        parts = (self.vectors[codes], self.word_tokens[codes], name, self.behaviour[codes])
        return ItemFeatures(*parts, self.layout)

    @property
    def dim(self) -> int:
        """Width of an item vector."""
        return int(self.vectors.shape[1])


def item_features(
    catalog: ItemCatalog,
    llm_folder: Path,
    encoder_folder: Path | None,
    *,
    layer: int,
    dim: int,
    cache: Path,
    progress: Progress | None = None,
) -> ItemFeatures:
    """Read every item's text with the LLM (mean-pooled after `layer` layers) and the sentence encoder; reduce to `dim`.

    Args:
        catalog: public.
        llm_folder: Hugging Face folder of the shared LLM.
        encoder_folder: sentence encoder, or None for the LLM alone.
        layer: depth at which the LLM's states are pooled, >= 1.
        dim: components to keep; at most the number of items or the joined width.
        cache: folder; a hit is taken by the hash of catalogue, encoders and recipe.
        progress: called with (texts read, texts in all).
    """
    key = _key(catalog, llm_folder, encoder_folder, layer, dim)
    stored = _stored(cache, key)
    if stored.is_file():
        with suppress(SafetensorError, KeyError):  # a damaged one, or one without a basis, is made anew
            tensors = load_file(stored)
            tensors["basis"]
            return ItemFeatures.of_text(tensors["vectors"], tensors["word_tokens"], key)
    words, deep = pooled_states(TextReader.load(llm_folder, layer), catalog.texts, progress)
    blocks = [deep]
    if encoder_folder is not None:
        blocks.append(pooled_states(TextReader.load(encoder_folder, _ALL_LAYERS), catalog.texts, progress)[1])
    vectors, projection = principal_components(blocks, dim)
    save_tensors({"vectors": vectors, "word_tokens": words, **projection}, stored)
    return ItemFeatures.of_text(vectors, words, key)


def _key(catalog: ItemCatalog, llm_folder: Path, encoder_folder: Path | None, layer: int, dim: int) -> str:
    encoders = [folder_hash(llm_folder), folder_hash(encoder_folder) if encoder_folder else "none"]
    return hashlib.sha256("|".join([_RECIPE, catalog.hash, *encoders, str(layer), str(dim)]).encode()).hexdigest()


def _stored(cache: Path, key: str) -> Path:
    return cache / "features" / f"{key[:32]}.safetensors"


@dataclass(frozen=True)
class TextReader:
    """A tokenizer and the first layers of a model."""

    name: str
    tokenizer: Any = field(repr=False)
    module: nn.Module = field(repr=False)

    @classmethod
    def load(cls, folder: Path, layer: int) -> "TextReader":
        """Raises ModelError: no such model."""
        return cls(folder.name, *load_reader(folder, layer))


class TextEncoder:
    """Feature vectors of texts that came after the catalogue, along the catalogue's own components.

    Args:
        catalog, llm_folder, encoder_folder, layer, dim, cache: as for `item_features`, which must have been called.
    Raises: ModelError: it was not.
    """

    def __init__(
        self,
        catalog: ItemCatalog,
        llm_folder: Path,
        encoder_folder: Path | None,
        *,
        layer: int,
        dim: int,
        cache: Path,
    ) -> None:
        key = _key(catalog, llm_folder, encoder_folder, layer, dim)
        try:
            tensors = load_file(_stored(cache, key))
            self._centre, self._basis = tensors["centre"], tensors["basis"]
        except (OSError, SafetensorError, KeyError) as error:
            raise ModelError("the catalogue's features are not there", "make them first") from error
        self._folders = [(llm_folder, layer)] + ([(encoder_folder, _ALL_LAYERS)] if encoder_folder else [])

    @cached_property
    def _readers(self) -> list[TextReader]:
        # Hundreds of megabytes, which a service without new items never needs.
        return [TextReader.load(folder, layer) for folder, layer in self._folders]

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """float32 `[texts, dim]`. Raises ModelError: a text without a token."""
        blocks = [pooled_states(reader, texts)[1] for reader in self._readers]
        vectors: np.ndarray = ((np.concatenate(blocks, 1) - self._centre) @ self._basis).astype(np.float32)
        return vectors


def pooled_states(
    reader: TextReader, texts: Sequence[str], progress: Progress | None = None, batch: int = 64
) -> tuple[np.ndarray, np.ndarray]:
    """Mean over each text's tokens of input embeddings and of the reader's last states: 2 x `[items, hidden]`."""
    tokenizer, module = reader.tokenizer, reader.module
    by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    width = int(module.config.hidden_size)  # type: ignore[union-attr,arg-type]  # a PreTrainedModel
    shallow, deep = (np.zeros((len(texts), width), np.float32) for _ in range(2))
    for start in range(0, len(texts), batch):
        rows = by_length[start : start + batch]
        tokens = tokenizer([texts[i] for i in rows], return_tensors="pt", padding=True, truncation=True, max_length=256)
        mask = tokens["attention_mask"][..., None].float()
        if not bool((mask.sum(1) > 0).all()):
            raise ModelError(f"{reader.name}: an item's text has no token for this model", "mend the item's text")
        with torch.no_grad():
            states = module(**tokens, output_hidden_states=True).hidden_states
        for target, state in ((shallow, states[0]), (deep, states[-1])):
            target[rows] = ((state * mask).sum(1) / mask.sum(1)).numpy()
        if progress:
            progress(min(start + batch, len(texts)), len(texts))
    return shallow, deep


def principal_components(blocks: Sequence[np.ndarray], dim: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Leading components, scaled by the root of their singular values: between raw (few dominate) and whitened.

    Each encoder has the same say: its block gets mean zero and mean squared norm 1.

    Returns: vectors `[items, dim]`, and what makes one of another text's states: `(states - centre) @ basis`.
    """
    raw = np.concatenate(blocks, 1)
    centre = raw.mean(0)
    norms = [max(float(np.sqrt(((b - b.mean(0)) ** 2).sum(1).mean())), 1e-12) for b in blocks]
    scale = np.repeat(np.array(norms, raw.dtype), [b.shape[1] for b in blocks])
    joined = (raw - centre) / scale
    if dim > min(joined.shape):
        raise ModelError(
            f"model.feature_dim = {dim}, but {joined.shape[0]} items have {min(joined.shape)} components at most",
            "lower model.feature_dim",
        )
    mean = joined.mean(0)
    u, s, vt = np.linalg.svd(joined - mean, full_matrices=False)
    # The sign of a component is arbitrary; the largest loading is made positive so that every machine agrees.
    signs = np.sign(vt[np.arange(len(vt)), np.abs(vt).argmax(1)])
    vectors = (u * signs * np.sqrt(s))[:, :dim]
    length = np.sqrt((vectors**2).sum(1).mean())
    basis = ((vt.T * signs)[:, :dim] / np.sqrt(np.maximum(s[:dim], 1e-12)) / length) / scale[:, None]
    unit: np.ndarray = (vectors / length).astype(np.float32)
    return unit, {"centre": (centre + mean * scale).astype(np.float32), "basis": basis.astype(np.float32)}


def save_tensors(tensors: dict[str, np.ndarray], target: Path) -> None:
    """Write a file of the cache, whole or not at all. Raises StorageError."""
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_file(target, save({k: np.ascontiguousarray(v) for k, v in tensors.items()}))
