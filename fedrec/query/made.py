"""Requests made from the public catalogue: what a reader of requests learns from, at no epsilon."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from fedrec.data.catalog import ItemCatalog
from fedrec.query.rule import CatalogFacts, QueryRule
from fedrec.query.titles import spoken_title

Language = Literal["en", "zh"]
# No answer to show, or nothing said: rules between these shares of the catalogue are asked.
_FEWEST, _LARGEST_SHARE = 3, 0.6
# "Old" and "recent" as a year; relative to the latest of the catalogue.
_OLD_BEFORE, _RECENT_YEARS = 25, 2


class CategoryWords(BaseModel):
    """How one category is spoken of, see `words/films.toml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    names: tuple[str, ...]
    traits: tuple[str, ...]
    things: tuple[str, ...]
    zh: tuple[str, ...] = ()

    @classmethod
    def plain(cls, category: str) -> "CategoryWords":
        """For a category that nobody wrote words for: its own name."""
        word = category.casefold()
        return cls(names=(word,), traits=(word,), things=(word,), zh=(word,))


@dataclass(frozen=True)
class MadeQuery:
    """A made request: pieces of text, with the item's code where a title is named; and what it asks for. Public."""

    pieces: tuple[str | int, ...]
    rule: QueryRule
    language: Language

    def text(self, catalog: ItemCatalog) -> str:
        """As a person would type it."""
        return "".join(p if isinstance(p, str) else spoken_title(catalog.titles[p]) for p in self.pieces)


@dataclass(frozen=True)
class Vocabulary:
    """Words for categories, by category, and phrases by language."""

    categories: Mapping[str, CategoryWords] = field(repr=False)
    phrases: Mapping[str, Mapping[str, Sequence[str]]] = field(repr=False)

    def of(self, category: str) -> CategoryWords:
        """Words for a category."""
        return self.categories.get(category) or CategoryWords.plain(category)


@cache
def training_vocabulary() -> Vocabulary:
    """What ships with fedrec: words for films, phrases for everything."""
    folder = files("fedrec.query") / "words"
    films = tomllib.loads((folder / "films.toml").read_text(encoding="utf-8"))["categories"]
    phrases = tomllib.loads((folder / "phrases.toml").read_text(encoding="utf-8"))
    return Vocabulary({name: CategoryWords(**words) for name, words in films.items()}, phrases)


class QueryMaker:
    """Makes requests over a catalogue.

    Args:
        catalog: public. Categories and years are what rules are about; without any, only titles can be asked for.
        vocabulary: of the domain.
    """

    def __init__(self, catalog: ItemCatalog, vocabulary: Vocabulary) -> None:
        self._catalog, self._words, self.facts = catalog, vocabulary, CatalogFacts.of(catalog)
        known = sorted(year for year in catalog.years if year is not None)
        self._last_year = known[-1] if known else None
        self._named = sorted({name for of_item in catalog.categories for name in of_item if name != "unknown"})

    def make(self, rng: np.random.Generator, language: Language = "en") -> MadeQuery:
        """One request that some items answer, and not most of them."""
        while True:
            rule = self.draw_rule(rng)
            answers = int(self.facts.satisfied(rule).sum())
            if rule.title is not None or _FEWEST <= answers <= _LARGEST_SHARE * len(self._catalog):
                return self._phrase(rule, rng, language)

    def about(self, item: int, rng: np.random.Generator) -> MadeQuery:
        """One request that an item answers, by what is known of it: no title is named. It may be wide or narrow."""
        while True:
            rule = self.draw_rule(rng, item)
            says = rule.wanted or rule.unwanted or rule.first_year is not None or rule.last_year is not None
            if rule.title is None and rule.like is None and says:
                return self._phrase(rule, rng, "en")

    def draw_rule(self, rng: np.random.Generator, item: int | None = None) -> QueryRule:
        """A rule that an item would satisfy, save that it may be too wide or too narrow to be asked.

        Args:
            item: None: one is drawn.
        """
        seed = int(rng.integers(len(self._catalog))) if item is None else item
        own = [name for name in self._catalog.categories[seed] if name != "unknown"]
        kind = rng.random()
        if kind < 0.04:
            return QueryRule(title=seed)
        foreign = [name for name in self._named if name not in own]
        like = None
        if kind < 0.24 and own:
            like, own = seed, foreign
            n_wanted, n_unwanted = int(rng.random() < 0.5), int(rng.random() < 0.25)
        else:
            n_wanted = int(rng.choice(3, p=[0.2, 0.55, 0.25]))
            n_unwanted = int(rng.choice(3, p=[0.5, 0.4, 0.1]))
        wanted = _draw(rng, own, n_wanted)
        unwanted = _draw(rng, self._tempting(rng, wanted, like, foreign), n_unwanted)
        first, last = self._draw_years(rng, self._catalog.years[seed]) if rng.random() < 0.45 else (None, None)
        return QueryRule(wanted, unwanted, first, last, like)

    def _tempting(
        self, rng: np.random.Generator, wanted: tuple[str, ...], like: int | None, foreign: Sequence[str]
    ) -> list[str]:
        """Categories to rule out: mostly those that many items have which answer the rest, else nothing is learnt."""
        others = [name for name in foreign if name not in wanted]
        if rng.random() < 0.3:
            return others
        near = self.facts.has[self.facts.satisfied(QueryRule(wanted, like=like))]
        if not len(near):
            return others
        shares = zip(self.facts.names, near.mean(0), strict=True)
        common = {name for name, share in shares if share > 0.08}
        return [name for name in others if name in common] or others

    def _draw_years(self, rng: np.random.Generator, year: int | None) -> tuple[int | None, int | None]:
        if year is None or self._last_year is None:
            return None, None
        decade = year // 10 * 10
        match int(rng.choice(6, p=[0.4, 0.15, 0.15, 0.1, 0.1, 0.1])):
            case 0:
                return decade, decade + 9
            case 1:
                return year - int(rng.integers(0, 12)), None
            case 2:
                return None, year + int(rng.integers(0, 12))
            case 3:
                return year - int(rng.integers(0, 8)), year + int(rng.integers(1, 8))
            case 4:
                return year, year
            case _:
                recent = self._last_year - _RECENT_YEARS
                old = self._last_year - _OLD_BEFORE
                return (recent, None) if year >= recent else (None, old) if year <= old else (decade, decade + 9)

    def _phrase(self, rule: QueryRule, rng: np.random.Generator, language: Language) -> MadeQuery:
        speaker = _Speaker(self._words, rng, language, self._last_year)
        text = speaker.english(rule) if language == "en" else speaker.chinese(rule)
        title = rule.title if rule.title is not None else rule.like
        pieces: tuple[str | int, ...] = (text,)
        if title is not None:
            before, _, after = text.partition("{title}")
            pieces = tuple(piece for piece in (before, title, after) if piece != "")
        return MadeQuery(pieces, rule, language)


@dataclass(frozen=True)
class _Speaker:
    words: Vocabulary
    rng: np.random.Generator
    language: Language
    last_year: int | None

    def _pick(self, key: str) -> str:
        phrases = self.words.phrases[self.language][key]
        return phrases[int(self.rng.integers(len(phrases)))]

    def _of(self, options: Sequence[str]) -> str:
        return options[int(self.rng.integers(len(options)))]

    def _filled(self, phrase: str, category: str) -> str:
        words = self.words.of(category)
        for slot, options in (("name", words.names), ("trait", words.traits), ("thing", words.things)):
            if "{" + slot + "}" in phrase:
                phrase = phrase.replace("{" + slot + "}", self._of(options))
        return phrase.replace("{zh}", self._of(words.zh or (category,)))

    def english(self, rule: QueryRule) -> str:
        if rule.title is not None:
            return self._cased(self._pick("title") + self._pick("closings"))
        before, after = self._years(rule)
        wanted = list(rule.wanted)
        self.rng.shuffle(wanted)
        clauses = [self._filled(self._pick("not"), name) for name in rule.unwanted] + ([after] if after else [])
        if not wanted and not before and not after and rule.like is None:
            first, *others = rule.unwanted
            only = self._filled(self._pick("only_not"), first)
            more = [self._filled(self._pick("not"), name) for name in others]
            return self._cased(self._pick("openings") + only + "".join(more) + self._pick("closings"))
        if rule.like is not None and not before and self.rng.random() < 0.6:
            subject = self._pick("only_like")
            clauses += [self._filled(self._pick("and_trait"), name) for name in wanted]
        else:
            clauses += [self._pick("like")] if rule.like is not None else []
            subject, more = self._subject(wanted)
            clauses += more
            subject = self._pick("articles") + self._pick("qualities") + before + subject
        self.rng.shuffle(clauses)
        return self._cased(self._pick("openings") + subject + "".join(clauses) + self._pick("closings"))

    def _subject(self, wanted: Sequence[str]) -> tuple[str, list[str]]:
        """The noun and what stands before it; and clauses of wanted categories that found no place there."""
        if not wanted:
            return self._pick("nouns"), []
        head, *others = wanted
        words, more = self.words.of(head), list[str]()
        match int(self.rng.integers(3)):
            case 0:
                subject = self._of(words.names)
            case 1:
                subject = f"{self._of(words.traits)} {self._pick('nouns')}"
            case _:
                subject = self._pick("nouns") + self._filled(self._pick("with"), head)
        for name in others:
            if self.rng.random() < 0.5:
                subject = f"{self._of(self.words.of(name).traits)} {subject}"
            else:
                more.append(self._filled(self._pick("and_trait"), name))
        return subject, more

    def chinese(self, rule: QueryRule) -> str:
        if rule.title is not None:
            return self._pick("title") + self._pick("closings")
        before, after = self._years(rule)
        wanted = "".join(f"{self._filled('{zh}', name)}{self._of(('', '的', ''))}" for name in rule.wanted[:1])
        clauses = [self._filled(self._pick("and_trait"), name) for name in rule.wanted[1:]]
        clauses += [self._filled(self._pick("not"), name) for name in rule.unwanted]
        like = self._pick("like") if rule.like is not None else ""
        if not (wanted or before or after or like):
            first, *_ = rule.unwanted
            subject = self._filled(self._pick("only_not"), first)
            clauses = clauses[1:]
        else:
            subject = before + after + like + wanted + self._pick("nouns")
        self.rng.shuffle(clauses)
        return self._pick("openings") + subject + "".join(clauses) + self._pick("closings")

    def _years(self, rule: QueryRule) -> tuple[str, str]:
        """What is said of the years before the noun, and after it; one of the two at most."""
        first, last = rule.first_year, rule.last_year
        if first is None and last is None:
            return "", ""
        numbers = {"year": first if last is None else last, "first": first, "last": last}
        if last is None and first is not None:
            if self.last_year is not None and first == self.last_year - _RECENT_YEARS and self.rng.random() < 0.7:
                return self._pick("recent"), ""
            key, numbers["before"] = "from_year", first - 1
        elif first is None and last is not None:
            if self.last_year is not None and last == self.last_year - _OLD_BEFORE and self.rng.random() < 0.7:
                return self._pick("old"), ""
            key, numbers["after"] = "to_year", last + 1
        elif first == last:
            key = "one_year"
        elif first is not None and last is not None and first % 10 == 0 and last == first + 9:
            return self._decade(first)
        else:
            key = "between"
        phrase = self._pick(key).format(**numbers)
        return (phrase, "") if self.language == "zh" else ("", phrase)

    def _decade(self, first: int) -> tuple[str, str]:
        if self.language == "zh":
            short = first % 100
            spoken = {20: "二十", 30: "三十", 40: "四十", 50: "五十", 60: "六十", 70: "七十", 80: "八十", 90: "九十"}
            word = self._of((f"{short}年代", f"{first}年代", f"{spoken.get(short, first)}年代"))
            return self._pick("years_before").format(decade=word), ""
        names = {20: "twenties", 30: "thirties", 40: "forties", 50: "fifties", 60: "sixties", 70: "seventies"}
        names |= {80: "eighties", 90: "nineties", 0: "2000s", 10: "2010s"}
        word = self._of((f"{first}s", f"{first % 100:02d}s", f"'{first % 100:02d}s", names[first % 100]))
        if self.rng.random() < 0.5:
            return self._pick("years_before").format(decade=word), ""
        return "", self._pick("years_after").format(decade=word)

    def _cased(self, text: str) -> str:
        text = " ".join(text.split())
        return text[:1].upper() + text[1:] if self.rng.random() < 0.5 else text


def _draw(rng: np.random.Generator, names: Sequence[str], count: int) -> tuple[str, ...]:
    count = min(count, len(names))
    return tuple(names[int(place)] for place in rng.choice(len(names), count, replace=False)) if count else ()
