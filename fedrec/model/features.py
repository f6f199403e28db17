"""Item feature vectors: what the shared LLM and a sentence encoder make of each item's public text. Computed once."""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from fedrec.data.catalog import ItemCatalog
from fedrec.errors import ModelError
from fedrec.files import replace_file, storage_errors
from fedrec.model.backbone import folder_hash, load_reader

Progress = Callable[[int, int], None]
# Changes when the recipe below changes, so that an old cache is never taken for a new one.
_RECIPE = "pooled-llm+sentence/1"


@dataclass(frozen=True)
class ItemFeatures:
    """Frozen public vectors of the catalogue's items.

    Attributes:
        vectors: float32 `[items, dim]`; principal components, the strongest first, mean squared norm 1.
        word_tokens: float32 `[items, hidden]`; mean of the LLM's own input embeddings of the item's text:
            what the first item tokens imitate, so that the untrained LLM has words to read.
        hash: identity of catalogue, encoders and recipe, and of the public data behind `behaviour`.
        behaviour: float32 `[items, public_dim]`; from public interactions, see `behaviour_vectors`; no column without.
    """

    vectors: np.ndarray = field(repr=False)
    word_tokens: np.ndarray = field(repr=False)
    hash: str
    behaviour: np.ndarray = field(repr=False)

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
        return ItemFeatures(self.vectors, self.word_tokens, name, behaviour)

    def of_items(self, codes: np.ndarray, name: str) -> "ItemFeatures":
        """The features of some of the items, under another name."""
        return ItemFeatures(self.vectors[codes], self.word_tokens[codes], name, self.behaviour[codes])

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
    encoders = [folder_hash(llm_folder), folder_hash(encoder_folder) if encoder_folder else "none"]
    key = hashlib.sha256("|".join([_RECIPE, catalog.hash, *encoders, str(layer), str(dim)]).encode()).hexdigest()
    stored = cache / "features" / f"{key[:32]}.safetensors"
    if stored.is_file():
        with suppress(SafetensorError, KeyError):  # a damaged one is made anew
            tensors = load_file(stored)
            return ItemFeatures.of_text(tensors["vectors"], tensors["word_tokens"], key)
    words, deep = _pooled_states(catalog.texts, llm_folder, layer, progress)
    blocks = [deep]
    if encoder_folder is not None:
        blocks.append(_pooled_states(catalog.texts, encoder_folder, 10_000, progress)[1])
    vectors = _principal_components(np.concatenate([_centred(b) for b in blocks], axis=1), dim)
    _save({"vectors": vectors, "word_tokens": words}, stored)
    return ItemFeatures.of_text(vectors, words, key)


def _pooled_states(
    texts: Sequence[str], folder: Path, layer: int, progress: Progress | None, batch: int = 64
) -> tuple[np.ndarray, np.ndarray]:
    """Mean over each text's tokens of input embeddings and of states after `layer` layers: 2 x `[items, hidden]`."""
    tokenizer, module = load_reader(folder, layer)
    by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    width = int(module.config.hidden_size)  # type: ignore[union-attr,arg-type]  # a PreTrainedModel
    shallow, deep = (np.zeros((len(texts), width), np.float32) for _ in range(2))
    for start in range(0, len(texts), batch):
        rows = by_length[start : start + batch]
        tokens = tokenizer([texts[i] for i in rows], return_tensors="pt", padding=True, truncation=True, max_length=256)
        mask = tokens["attention_mask"][..., None].float()
        if not bool((mask.sum(1) > 0).all()):
            raise ModelError(f"{folder.name}: an item's text has no token for this model", "mend the item's text")
        with torch.no_grad():
            states = module(**tokens, output_hidden_states=True).hidden_states
        for target, state in ((shallow, states[0]), (deep, states[-1])):
            target[rows] = ((state * mask).sum(1) / mask.sum(1)).numpy()
        if progress:
            progress(min(start + batch, len(texts)), len(texts))
    return shallow, deep


def _centred(block: np.ndarray) -> np.ndarray:
    """Mean zero and mean squared norm 1, so that each encoder has the same say."""
    centred = block - block.mean(0)
    scaled: np.ndarray = centred / max(float(np.sqrt((centred**2).sum(1).mean())), 1e-12)
    return scaled


def _principal_components(joined: np.ndarray, dim: int) -> np.ndarray:
    """Leading components, scaled by the root of their singular values: between raw (few dominate) and whitened."""
    if dim > min(joined.shape):
        raise ModelError(
            f"model.feature_dim = {dim}, but {joined.shape[0]} items have {min(joined.shape)} components at most",
            "lower model.feature_dim",
        )
    u, s, vt = np.linalg.svd(joined - joined.mean(0), full_matrices=False)
    # The sign of a component is arbitrary; the largest loading is made positive so that every machine agrees.
    signs = np.sign(vt[np.arange(len(vt)), np.abs(vt).argmax(1)])
    vectors = (u * signs * np.sqrt(s))[:, :dim]
    unit: np.ndarray = (vectors / np.sqrt((vectors**2).sum(1).mean())).astype(np.float32)
    return unit


def _save(tensors: dict[str, np.ndarray], target: Path) -> None:
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_file(target, save({k: np.ascontiguousarray(v) for k, v in tensors.items()}))
