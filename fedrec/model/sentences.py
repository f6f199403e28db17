"""Unit vectors of sentences from the frozen sentence encoder: what support answers and sentiment read texts with."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import ModelError
from fedrec.model.backbone import folder_hash
from fedrec.model.features import Progress, TextReader, pooled_states

_ALL_LAYERS = 10**6
_LEAST = 1e-12

Vectors = NDArray[np.float32]


class SentenceEncoder:
    """Mean over a text's last states, at length 1, so that a product of two is their cosine. Public weights.

    Args:
        folder: Hugging Face folder of the encoder; read when the first text comes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def name(self) -> str:
        """Identity of the weights, for caches."""
        return f"sentence-1|{folder_hash(self._folder)}"

    @cached_property
    def _reader(self) -> TextReader:
        return TextReader.load(self._folder, _ALL_LAYERS)

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> Vectors:
        """float32 `[texts, width]`, private where the texts are. Slow; for a thread.

        Raises: ModelError: a text that is empty or has no token.
        """
        if not all(text.strip() for text in texts):
            raise ModelError(f"{self._folder.name}: a text is empty", "leave empty texts out")
        return at_length_one(pooled_states(self._reader, texts, progress)[1])


def at_length_one(vectors: NDArray[np.floating]) -> Vectors:
    """Each row divided by its length; a zero row stays zero.

    >>> at_length_one(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: Vectors = (vectors / np.maximum(lengths, _LEAST)).astype(np.float32)
    return scaled
