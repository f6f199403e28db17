"""Which items are to be held back, and why: blocklist, words, likeness to described themes."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedrec.recommend.shelf import Item, Json
from fedrec.safety.wordlist import Safety, matcher, plain

Floats = NDArray[np.float32]
Sentences = Callable[[Sequence[str]], Floats]
Kind = Literal["block", "word", "theme", "person", "again", "unscreened"]
# Cosine to a theme's nearest description from which on a text is like it: chosen on the validation half of the made
# labelled texts by `fedrec bench fairness`; docs/fairness.md has the figures.
LIKE = 0.28


@dataclass(frozen=True)
class Flag:
    """A reason to hold an item back.

    Attributes:
        kind: block: it is on the blocklist; word, theme: its text; person: somebody said so; again: it was rejected
            before and has another text now; unscreened: the screen failed, so nobody knows.
        name: of the list or theme.
        evidence: the pattern that was found, or the description that the text is like.
        likeness: to the theme; None of other kinds.
    """

    kind: Kind
    name: str
    evidence: str = ""
    likeness: float | None = None

    def to_dict(self) -> dict[str, Json]:
        """For JSON."""
        return dict(vars(self))


@dataclass(frozen=True)
class Screen:
    """Looks at items' own words; public within the partner, and blind to people.

    Args:
        safety: lists and themes.
        by_words, by_themes: what is looked at beside the blocklist.
        sentences: vectors of texts, `[texts, d]`; needed for themes.
        like: see `LIKE`.
    Raises: ValueError: themes without an encoder.
    """

    safety: Safety
    by_words: bool = True
    by_themes: bool = False
    sentences: Sentences | None = field(default=None, repr=False)
    like: float = LIKE
    _themes: list[tuple[str, str]] = field(default_factory=list, init=False, repr=False)
    _rows: list[Floats] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.by_themes and self.sentences is None:
            raise ValueError("likeness to themes needs a sentence encoder")
        self._themes.extend((one.name, text) for one in self.safety.themes for text in one.descriptions)

    @property
    def is_idle(self) -> bool:
        """Whether it can find nothing in any item."""
        block = self.safety.block
        return not (self.by_words or self.by_themes or block.ids or block.titles or block.fields)

    def flags(self, items: Sequence[Item]) -> list[list[Flag]]:
        """Reasons to hold each item back, none for most. May take long: a pass of the encoder for each text."""
        found = [[*self._blocked(item), *self._worded(item)] for item in items]
        if self.by_themes and self._themes:
            texts = [words_of(item) for item in items]
            places = [place for place, text in enumerate(texts) if plain(text)]
            for place, flag in zip(places, self.themed([texts[place] for place in places]), strict=True):
                found[place] += [flag] if flag else []
        return found

    def themed(self, texts: Sequence[str]) -> list[Flag | None]:
        """The theme that each text is most like, if it is like any."""
        if not texts:
            return []
        likeness = self.likeness(texts)
        best = likeness.argmax(1)
        return [
            Flag("theme", self._themes[at][0], self._themes[at][1], round(float(row[at]), 3))
            if row[at] >= self.like
            else None
            for row, at in zip(likeness, best.tolist(), strict=True)
        ]

    def likeness(self, texts: Sequence[str]) -> Floats:
        """Cosines to each description, `[texts, descriptions]`."""
        assert self.sentences is not None
        if not self._rows:
            self._rows.append(_unit(self.sentences([text for _, text in self._themes])))
        return np.asarray(_unit(self.sentences(texts)) @ self._rows[0].T, np.float32)

    def _blocked(self, item: Item) -> list[Flag]:
        block = self.safety.block
        found = [Flag("block", "ids", item.id)] if item.id in block.ids else []
        found += _found("block", "titles", block.titles, item.title)
        for name, patterns in block.fields.items():
            found += _found("block", name, patterns, str(item.fields.get(name, "")))
        return found

    def _worded(self, item: Item) -> list[Flag]:
        if not self.by_words:
            return []
        text = words_of(item)
        return [flag for one in self.safety.words for flag in _found("word", one.name, one.patterns, text)]


def words_of(item: Item) -> str:
    """All that a person may read of an item: title, text, categories and fields that are texts."""
    fields = [value for value in item.fields.values() if isinstance(value, str)]
    return "\n".join(part for part in (item.title, item.text, ", ".join(item.categories), *fields) if part)


def _found(kind: Kind, name: str, patterns: tuple[str, ...], text: str) -> list[Flag]:
    """The first of the patterns that stands there."""
    if not patterns or not text:
        return []
    found = _matcher(patterns).search(plain(text))
    return [Flag(kind, name, patterns[(found.lastindex or 1) - 1])] if found else []


def _unit(rows: Floats) -> Floats:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), np.float32)


@lru_cache(256)
def _matcher(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return matcher(patterns)
