"""A quiet picture for an item that has none: its colour by category, its shape by id, the same every time."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

# Colours stand in shop.css as .tone-0 and so on, so that they suit light and dark.
N_TONES, N_SHAPES = 10, 5


@dataclass(frozen=True)
class Cover:
    """What a template draws, on a field of 120 by 80.

    Attributes:
        tone: number of the pair of colours.
        shape: number of the drawing.
        x, y, r: where it is, and how large.
        turn: degrees.
    """

    tone: int
    shape: int
    x: int
    y: int
    r: int
    turn: int


def cover_of(item: str, categories: Sequence[str]) -> Cover:
    """Of an item.

    >>> cover_of("50", ("War",)) == cover_of("50", ("War", "Drama"))
    True
    """
    tone = _bytes_of(categories[0] if categories else "")[0] % N_TONES
    draw = _bytes_of(item)
    return Cover(tone, draw[0] % N_SHAPES, 30 + draw[1] % 61, 25 + draw[2] % 31, 16 + draw[3] % 15, draw[4] % 180)


def _bytes_of(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
