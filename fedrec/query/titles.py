"""Titles named in a request: found in its words, so that the model reads the item itself where it is spoken of."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

_ARTICLE = r"(the|a|an|la|le|les|l'|il|el|das|der|die)"
# Words that lead to a title, so that what follows is one even if it is a common word.
_LEADS = re.compile(
    r"(?:\b(?:like|similar to|in the style of|along the lines of|reminds? me of|remind me of|loved|liked|enjoyed|watch"
    r"|watched|seen|saw|the (?:film|movie)|have|find|as|than|to|of)|像|类似|和|看|喜欢|跟)\s*[\"'“‘《「]?\s*$"
)
_OPENING_QUOTE = re.compile(r"[\"“‘《「]\s*$")


def spoken_title(title: str) -> str:
    """A title as people say it: without the year, its article in front.

    >>> spoken_title("Usual Suspects, The (1995)")
    'The Usual Suspects'
    """
    bare = re.sub(r"\s*\(.*?\)", "", title).strip() or title
    moved = re.sub(rf"^(.*), {_ARTICLE}$", lambda m: f"{m[2]} {m[1]}", bare, flags=re.IGNORECASE)
    return moved.replace("' ", "'")


@dataclass(frozen=True)
class Mention:
    """A title in a request.

    Attributes:
        start, end: in the request's characters.
        item: code.
    """

    start: int
    end: int
    item: int


@dataclass(frozen=True)
class TitleFinder:
    """Finds the catalogue's titles in requests.

    A title counts if it is the whole request, stands after words that lead to one ("like", "similar to"), in quotation
    marks, or is written as the catalogue writes it and has two words at least. The longest title wins.
    """

    by_words: dict[tuple[str, ...], tuple[int, ...]] = field(repr=False)
    longest: int
    _spoken: dict[int, str] = field(repr=False)

    @classmethod
    def of(cls, titles: Sequence[str]) -> "TitleFinder":
        """Of a catalogue's titles, by code."""
        by_words: dict[tuple[str, ...], list[int]] = {}
        spoken = {}
        for code, title in enumerate(titles):
            spoken[code] = spoken_title(title)
            for form in _forms(title):
                codes = by_words.setdefault(form, [])
                if code not in codes:
                    codes.append(code)
        longest = max((len(words) for words in by_words), default=0)
        return cls({words: tuple(codes) for words, codes in by_words.items()}, longest, spoken)

    def find(self, text: str) -> tuple[Mention, ...]:
        """In order, without overlap."""
        words = list(_words(text))
        found, place = list[Mention](), 0
        while place < len(words):
            mention, taken = self._at(text, words, place)
            if mention is not None:
                found.append(mention)
            place += taken
        return tuple(found)

    def _at(self, text: str, words: list[tuple[str, int, int]], place: int) -> tuple[Mention | None, int]:
        for length in range(min(self.longest, len(words) - place), 0, -1):
            some = words[place : place + length]
            codes = self.by_words.get(tuple(word for word, _, _ in some))
            start, end = some[0][1], some[-1][2]
            if codes and self._is_meant(text, start, end, codes[0], len(words) == length):
                return Mention(start, end, codes[0]), length
        return None, 1

    def _is_meant(self, text: str, start: int, end: int, code: int, whole: bool) -> bool:
        before, said = text[:start], text[start:end]
        if whole or _LEADS.search(before.casefold()) or _OPENING_QUOTE.search(before):
            return True
        if said != self._spoken[code] or said == said.casefold():
            return False
        # One capital letter means little where a sentence begins, or in a request that is all capitals.
        return " " in said or (bool(re.search(r"[^.!?\s]\s+$", before)) and before != before.upper())


def _forms(title: str) -> set[tuple[str, ...]]:
    """Ways in which a title's words may be typed: as printed, as spoken, without a leading article."""
    spoken = spoken_title(title)
    bare = re.sub(rf"^{_ARTICLE} ", "", spoken, flags=re.IGNORECASE)
    forms = {tuple(word for word, _, _ in _words(form)) for form in (title, spoken, bare)}
    return {form for form in forms if form}


def _words(text: str) -> list[tuple[str, int, int]]:
    """Plain lower-case words with their places; a Chinese character is a word."""
    found = []
    for match in re.finditer(r"[^\W_]+(?:['’][^\W_]+)*|[一-鿿]", text):
        letters = unicodedata.normalize("NFKD", match[0].casefold().replace("’", "'"))
        found.append(("".join(c for c in letters if not unicodedata.combining(c)), match.start(), match.end()))
    return found


def split_at_mentions(text: str, mentions: Sequence[Mention]) -> tuple[str | int, ...]:
    """The request as pieces of text and, where a title stands, its item's code.

    >>> split_at_mentions("like Alien but funny", [Mention(5, 10, 3)])
    ('like ', 3, ' but funny')
    """
    pieces: list[str | int] = []
    place = 0
    for mention in mentions:
        pieces += [text[place : mention.start], mention.item]
        place = mention.end
    return tuple(piece for piece in (*pieces, text[place:]) if piece != "")
