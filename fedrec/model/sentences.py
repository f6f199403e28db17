"""Unit vectors of sentences from the frozen sentence encoder: what support answers and sentiment read texts with."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from fedrec.errors import ModelError
from fedrec.files import replace_file, storage_errors
from fedrec.model.backbone import folder_hash
from fedrec.model.features import Progress, TextReader, pooled_states

_ALL_LAYERS = 10**6
_LEAST = 1e-12
_KEPT_AT_ONCE = 256

Vectors = NDArray[np.float32]


class SentenceEncoder:
    """Mean over a text's last states, at length 1, so that a product of two is their cosine. Public weights.

    Args:
        folder: Hugging Face folder of the encoder; read when the first text comes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Tokenizers keep how they pad and cut, so that two threads may not ask one at the same time.
        self._lock = Lock()

    @cached_property
    def name(self) -> str:
        """Identity of the weights, for caches."""
        return f"sentence-1|{folder_hash(self._folder)}"

    @cached_property
    def _reader(self) -> TextReader:
        return TextReader.load(self._folder, _ALL_LAYERS)

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> Vectors:
        """float32 `[texts, width]`, private where the texts are. Slow; for threads, which take turns.

        Raises: ModelError: a text that is empty or has no token.
        """
        if not all(text.strip() for text in texts):
            raise ModelError(f"{self._folder.name}: a text is empty", "leave empty texts out")
        with self._lock:
            return at_length_one(pooled_states(self._reader, texts, progress)[1])


def at_length_one(vectors: NDArray[np.floating]) -> Vectors:
    """Each row divided by its length; a zero row stays zero.

    >>> at_length_one(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: Vectors = (vectors / np.maximum(lengths, _LEAST)).astype(np.float32)
    return scaled


def encode_kept(
    encoder: SentenceEncoder, texts: Sequence[str], cache: Path, progress: Progress | None = None
) -> Vectors:
    """`encode` of public texts that keeps what it has read in a folder, so that a stop loses little. Never of requests.

    Raises: ModelError as `encode`; StorageError.
    """
    found: list[Vectors] = []
    for start in range(0, len(texts), _KEPT_AT_ONCE):
        some = texts[start : start + _KEPT_AT_ONCE]
        key = hashlib.sha256("\0".join([encoder.name, *some]).encode()).hexdigest()
        path = cache / "sentences" / f"{key[:32]}.safetensors"
        vectors = _stored(path)
        if vectors is None:
            vectors = encoder.encode(some)
            with storage_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                replace_file(path, save({"vectors": vectors}))
        found.append(vectors)
        if progress:
            progress(start + len(some), len(texts))
    return np.concatenate(found)


def _stored(path: Path) -> Vectors | None:
    if not path.is_file():
        return None
    try:
        vectors: Vectors = load_file(path)["vectors"]
    except (SafetensorError, KeyError):  # damaged: it is made anew
        return None
    return vectors
