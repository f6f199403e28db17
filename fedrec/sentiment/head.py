"""A sentiment head as it is kept, with what it must be fed; and texts judged by it: how likely negative, about what."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from fedrec.errors import ModelError, RunError
from fedrec.files import damaged, json_bytes, read_file, read_json
from fedrec.model.adapter import AdapterState
from fedrec.model.sentences import SentenceEncoder, Vectors
from fedrec.sentiment.topics import Topics
from fedrec.tasks.classes import Classes
from fedrec.tasks.head import HeadShape, TaskHead, score_rows, write_head
from fedrec.toml import Section

LABELS = ("positive", "negative")
WEIGHTS, INPUTS = "head.safetensors", "head.json"
FORMAT = 1
# Texts of one pass, so that others who ask the same encoder get their turn between two.
_TOGETHER = 16


class HeadInputs(Section):
    """What a head was trained on, and must be fed. Public.

    Attributes:
        encoder: identity of the sentence encoder, `SentenceEncoder.name`.
        width: of its vectors.
        scale: what they are multiplied by, since they have length 1 and a head learns sooner from longer ones.
        last_letters: that are read of a text.
    """

    encoder: str
    width: Annotated[int, Field(ge=1, le=100_000)]
    scale: Annotated[float, Field(gt=0)]
    last_letters: Annotated[int, Field(ge=1, le=100_000)]

    def read_of(self, text: str) -> str:
        """The part of a text that is read."""
        return last_words(text, self.last_letters)


@dataclass(frozen=True)
class SentimentHead:
    """Weights that say how likely a text is negative.

    Attributes:
        inputs: see there.
        hash: of the weights.
    """

    inputs: HeadInputs
    hash: str
    _head: TaskHead = field(repr=False)

    @classmethod
    def of(cls, inputs: HeadInputs, state: AdapterState) -> "SentimentHead":
        """Raises ModelError: weights of another shape, or not finite."""
        head = TaskHead(HeadShape(inputs.width, len(LABELS)))
        write_head(head, state)
        return cls(inputs, state.hash, head)

    @classmethod
    def read(cls, folder: Path, remedy: str) -> "SentimentHead":
        """What `head_files` made.

        Args:
            remedy: where there is none.
        Raises: RunError: none there, or not whole. ModelError: weights that do not fit.
        """
        if missing := [name for name in (WEIGHTS, INPUTS) if not (folder / name).is_file()]:
            raise RunError(f"{folder}: no head yet: {' and '.join(missing)} missing", remedy)
        values, _ = read_json(folder / INPUTS, FORMAT)
        try:
            inputs = HeadInputs.model_validate({name: of for name, of in values.items() if name != "format"})
        except ValidationError as error:
            raise damaged(folder / INPUTS) from error
        return cls.of(inputs, AdapterState.from_bytes(read_file(folder / WEIGHTS)))

    def negative(self, vectors: Vectors) -> NDArray[np.float64]:
        """How likely each text is negative, `[texts]`, of their vectors `[texts, width]`."""
        scores = score_rows(self._head, self.inputs.scale * vectors)
        return np.asarray(Classes(LABELS).predictions(scores)[:, LABELS.index("negative")])


def head_files(inputs: HeadInputs, state: AdapterState) -> Mapping[str, bytes]:
    """The files of a head's folder, by name."""
    return {WEIGHTS: state.to_bytes(), INPUTS: json_bytes({"format": FORMAT, **inputs.model_dump()})}


class Judge:
    """Reads texts, and keeps none of them. For threads, which take turns at the encoder.

    Raises: ModelError: the head was trained over another encoder, whose vectors mean something else.
    """

    def __init__(self, head: SentimentHead, encoder: SentenceEncoder, topics: Topics) -> None:
        if encoder.name != head.inputs.encoder:
            remedy = "train a head over this one, or serve with the encoder that the head was trained over"
            raise ModelError("the sentiment head was trained over another sentence encoder", remedy)
        self.head, self._encoder, self._topics = head, encoder, topics

    def judge(self, texts: Sequence[str]) -> tuple[list[float], list[str]]:
        """How likely each is negative, and its topic. Slow.

        Args:
            texts: private.
        Raises: ModelError: a text that is empty or has no token.
        """
        likely: list[float] = []
        topics: list[str] = []
        for start in range(0, len(texts), _TOGETHER):
            read = [self.head.inputs.read_of(text.strip()) for text in texts[start : start + _TOGETHER]]
            vectors = self._encoder.encode(read)
            likely += self.head.negative(vectors).tolist()
            topics += self._topics.of(vectors)
        return likely, topics

    def unreadable(self, texts: Sequence[str]) -> list[int]:
        """Places of those that have no token for the encoder."""
        return [place for place, text in enumerate(texts) if not self._can_read(text)]

    def _can_read(self, text: str) -> bool:
        try:
            self.judge([text])
        except ModelError:
            return False
        return True


def last_words(text: str, most: int) -> str:
    """The end of a text, from a word's beginning: reviews conclude there.

    >>> last_words("a slow start, a fine end", 10)
    'a fine end'
    """
    return text if len(text) <= most else text[-most - 1 :].partition(" ")[2] or text[-most:]
