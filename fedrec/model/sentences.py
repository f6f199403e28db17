"""Vectors of sentences by the sentence encoder alone, as it was trained to be used: likeness of meaning by cosine."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from fedrec.model.backbone import folder_hash
from fedrec.model.features import TextReader, pooled_states

_ALL_LAYERS = 10_000


class SentenceEncoder:
    """Mean-pooled last states of a sentence encoder. Loaded when first asked; not for several threads at once.

    Args:
        folder: Hugging Face folder of the encoder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def name(self) -> str:
        """Identity of the encoder, by which vectors can be kept."""
        return f"sentences/1 {folder_hash(self._folder)}"

    @cached_property
    def _reader(self) -> TextReader:
        return TextReader.load(self._folder, _ALL_LAYERS)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """float32 `[texts, d]`. Raises ModelError: a text without a token."""
        return pooled_states(self._reader, texts)[1]
