"""The 500 published requests over MovieLens-100K, whose answers a rule gives; sentences that no training has seen."""

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any

import numpy as np

from fedrec.data.catalog import ItemCatalog
from fedrec.errors import DataError
from fedrec.query.made import CategoryWords, training_vocabulary
from fedrec.query.rule import CatalogFacts, QueryRule
from fedrec.query.titles import spoken_title

SEED, COUNT = 20_261_128, 500
# So that ten right answers are there, and a blind guess is mostly wrong.
_FEWEST, _LARGEST_SHARE = 10, 0.35
_FILE = "ml-100k-500.jsonl"
# Of sentences about each kind; `only_not` alone may be answered by most items.
_KINDS = {
    "one": 6,
    "two": 8,
    "one_not": 14,
    "two_not": 6,
    "one_not_not": 4,
    "only_not": 3,
    "decade": 10,
    "decade_not": 8,
    "since": 6,
    "until": 6,
    "span": 6,
    "year": 4,
    "like": 8,
    "like_and": 6,
    "like_not": 6,
    "like_decade": 4,
}
_DECADES = {20: "twenties", 30: "thirties", 40: "forties", 50: "fifties", 60: "sixties", 70: "seventies"}
_DECADES |= {80: "eighties", 90: "nineties"}


@dataclass(frozen=True)
class PublishedQuery:
    """One of the 500. Public.

    Attributes:
        text: what is asked, in a sentence that training has not seen.
        kind: of sentence, see `test_phrases.toml`.
        words: "new" where the words for categories are unseen as well, else "seen".
        rule: what its answers satisfy.
        answers: how many items do.
    """

    text: str
    kind: str
    words: str
    rule: QueryRule
    answers: int

    def to_json(self, catalog: ItemCatalog) -> dict[str, Any]:
        """A line of the published file; items by id."""
        rule = asdict(self.rule)
        rule["like"] = None if self.rule.like is None else catalog.ids[self.rule.like]
        kept = {name: value for name, value in rule.items() if value not in (None, ())}
        return {"text": self.text, "kind": self.kind, "words": self.words, "rule": kept, "answers": self.answers}


def published_queries(catalog: ItemCatalog) -> list[PublishedQuery]:
    """As they were published. Raises DataError: another catalogue, by which other items answer."""
    lines = (files("fedrec_sim.queries") / _FILE).read_text(encoding="utf-8").splitlines()
    facts, queries = CatalogFacts.of(catalog), []
    for line in map(json.loads, lines):
        said = line["rule"]
        like = catalog.index_of(said["like"]) if "like" in said else None
        wanted, unwanted = tuple(said.get("wanted", ())), tuple(said.get("unwanted", ()))
        rule = QueryRule(wanted, unwanted, said.get("first_year"), said.get("last_year"), like)
        if int(facts.satisfied(rule).sum()) != line["answers"]:
            raise DataError("the published requests are about another catalogue", "fetch ml-100k anew")
        queries.append(PublishedQuery(line["text"], line["kind"], line["words"], rule, line["answers"]))
    return queries


def make_queries(catalog: ItemCatalog) -> Iterator[PublishedQuery]:
    """Make them anew, which gives the same: a test holds the file against this."""
    maker, rng = SentenceMaker.published(catalog), np.random.default_rng(SEED)
    seen, kinds = set[str](), [kind for kind, weight in _KINDS.items() for _ in range(weight)]
    while len(seen) < COUNT:
        kind = kinds[int(rng.integers(len(kinds)))]
        words = "new" if len(seen) % 2 else "seen"
        query = maker.make(kind, words, rng)
        if query is not None and query.text not in seen:
            seen.add(query.text)
            yield query


class SentenceMaker:
    """Fills sentences about a catalogue.

    Args:
        sentences: by kind.
        words: for every category, by who speaks: some are "new" to the reader, those that it was taught are "seen".
    """

    def __init__(
        self,
        catalog: ItemCatalog,
        sentences: Mapping[str, Sequence[str]],
        words: Mapping[str, Mapping[str, CategoryWords]],
    ) -> None:
        self._catalog, self._facts = catalog, CatalogFacts.of(catalog)
        self._sentences, self._words = sentences, words

    @classmethod
    def published(cls, catalog: ItemCatalog) -> "SentenceMaker":
        """Of the published test."""
        phrases = phrases_of("test_phrases.toml")
        return cls(catalog, phrases["sentences"], both_words(phrases["words"]))

    def make(self, kind: str, words: str, rng: np.random.Generator) -> PublishedQuery | None:
        """None if the drawn rule has too few answers, or too many."""
        rule = self._draw(kind, int(rng.integers(len(self._catalog))), rng)
        if rule is None:
            return None
        answers = int(self._facts.satisfied(rule).sum())
        most = len(self._catalog) * (1 if kind == "only_not" else _LARGEST_SHARE)
        if not _FEWEST <= answers <= most:
            return None
        sentence = self._sentences[kind][int(rng.integers(len(self._sentences[kind])))]
        text = " ".join(self._filled(sentence, rule, words, rng).split())
        return PublishedQuery(text, kind, words, rule, answers)

    def about(self, item: int, kinds: Sequence[str], rng: np.random.Generator) -> str | None:
        """A sentence of one of these kinds that the item answers; None if nothing can be said of it."""
        said = self.asked(item, kinds, rng)
        return said and said[0]

    def asked(
        self, item: int, kinds: Sequence[str], rng: np.random.Generator, new_words: float = 0.5
    ) -> tuple[str, QueryRule] | None:
        """The same with the rule that it says.

        Args:
            new_words: share of sentences with words that are new to the reader.
        """
        for kind in rng.permutation(np.array(kinds)):
            rule = self._draw(str(kind), item, rng)
            if rule is not None:
                sentence = self._sentences[kind][int(rng.integers(len(self._sentences[kind])))]
                words = "new" if rng.random() < new_words else "seen"
                return " ".join(self._filled(sentence, rule, words, rng).split()), rule
        return None

    def _draw(self, kind: str, seed: int, rng: np.random.Generator) -> QueryRule | None:
        own = [name for name in self._catalog.categories[seed] if name in self._words["new"]]
        year = self._catalog.years[seed]
        if not own or year is None:
            return None
        like = seed if kind.startswith("like") else None
        n_wanted = {"two": 2, "two_not": 2, "only_not": 0, "like": 0, "like_not": 0, "like_decade": 0}.get(kind, 1)
        pool = [name for name in self._words["new"] if name not in own] if kind == "like_and" else own
        if len(pool) < n_wanted:
            return None
        wanted = _some(rng, pool, n_wanted)
        n_unwanted = kind.count("not")
        rest = self._facts.has[self._facts.satisfied(QueryRule(wanted, like=like))]
        shares = zip(self._facts.names, rest.mean(0) if len(rest) else np.zeros(rest.shape[1]), strict=True)
        common = {name for name, share in shares if share > 0.1}
        tempting = [name for name in self._words["new"] if name in common and name not in (*own, *wanted)]
        if len(tempting) < n_unwanted:
            return None
        first, last = self._years(kind, year, rng)
        return QueryRule(wanted, _some(rng, tempting, n_unwanted), first, last, like)

    @staticmethod
    def _years(kind: str, year: int, rng: np.random.Generator) -> tuple[int | None, int | None]:
        match kind:
            case "decade" | "decade_not" | "like_decade":
                return year // 10 * 10, year // 10 * 10 + 9
            case "since":
                return year - int(rng.integers(0, 6)), None
            case "until":
                return None, year + int(rng.integers(0, 6))
            case "span":
                return year - int(rng.integers(0, 5)), year + int(rng.integers(1, 5))
            case "year":
                return year, year
        return None, None

    def _filled(self, sentence: str, rule: QueryRule, words: str, rng: np.random.Generator) -> str:
        spoken = self._words[words]
        slots: dict[str, str] = {}
        for suffix, categories in (("", rule.wanted[:1]), ("2", rule.wanted[1:])):
            for category in categories:
                slots |= _forms(spoken[category], suffix, "", words, rng)
        for prefix, categories in (("x", rule.unwanted[:1]), ("y", rule.unwanted[1:])):
            for category in categories:
                slots |= _forms(spoken[category], "", prefix, words, rng)
        if rule.like is not None:
            slots["title"] = spoken_title(self._catalog.titles[rule.like])
        first, last = rule.first_year, rule.last_year
        decade = f"{first}s"
        if first is not None and first % 10 == 0 and rng.random() < 0.5:
            decade = _DECADES[first % 100]
        slots |= {"year": str(first if first is not None else last), "first": str(first), "last": str(last)}
        return sentence.format(**slots, decade=decade)


def phrases_of(name: str) -> dict[str, Any]:
    """Sentences and words that ship with the simulations."""
    return tomllib.loads((files("fedrec_sim.queries") / name).read_text(encoding="utf-8"))


def both_words(new: Mapping[str, Any]) -> dict[str, dict[str, CategoryWords]]:
    """New words as a file has them, beside those that the reader was taught."""
    made = {name: CategoryWords(**words) for name, words in new.items()}
    return {"new": made, "seen": dict(training_vocabulary().categories)}


def _forms(said: CategoryWords, suffix: str, prefix: str, words: str, rng: np.random.Generator) -> dict[str, str]:
    kinds = {"n": said.names, "t": said.traits, "h": said.things}
    slots = {f"{prefix}{kind}{suffix}": options[int(rng.integers(len(options)))] for kind, options in kinds.items()}
    if words == "seen":  # those of the training words lack an article
        name = f"{prefix}n{suffix}"
        slots[name] = f"{'an' if slots[name][0] in 'aeiou' else 'a'} {slots[name]}"
    return slots


def _some(rng: np.random.Generator, names: Sequence[str], count: int) -> tuple[str, ...]:
    return tuple(names[int(place)] for place in rng.choice(len(names), count, replace=False)) if count else ()
