"""Why an item stands in a list: which of somebody's items raised its score, which words they share, which rules."""

import asyncio
import re
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace

import numpy as np

from fedrec.recommend.live_model import LiveModel, UserWindow
from fedrec.recommend.readings import Wanted
from fedrec.recommend.shelf import Item
from fedrec_client.serving.people import Person
from fedrec_client.serving.records import Ranked, Why
from fedrec_client.serving.tenant import Tenant, text_of

_MOST_ITEMS, _MOST_WORDS = 3, 5
# Latest history items that are left out one by one where the LLM has to read each time.
_LATEST = 20
_WORD = re.compile(r"[^\W\d_]{3,}")
# A word of more than this share of all items says nothing of one.
_COMMON = 0.25


@dataclass(frozen=True, repr=False)
class Checked:
    """An explanation held against the model.

    Attributes:
        score: of the item, less the mean over all items.
        without: the same if the named history items had never been; the LLM reads what is left anew.
    """

    why: Why
    score: float
    without: float

    @property
    def holds(self) -> bool:
        """Whether leaving the named items out lowers the score."""
        return not self.why.because or self.without < self.score


class Explaining:
    """See the module. Called on the event loop."""

    def __init__(self, tenant: Tenant) -> None:
        self._tenant = tenant
        self._words: dict[int, tuple[Item | None, frozenset[str]]] = {}
        self._common: tuple[int, frozenset[str]] = (-1, frozenset())

    def with_reasons(self, person: Person, model: LiveModel, ranked: Sequence[Ranked]) -> list[Ranked]:
        """Each with its `why`. Leave-one-out through the head; the LLM's reading is kept as it is, see `checked`."""
        codes = [self._tenant.shelf.find(one.item.id) for one in ranked]
        gains = self._gains(person, model, [code for code in codes if code is not None])
        told = []
        for one, code in zip(ranked, codes, strict=True):
            told.append(replace(one, why=self._why(one, code, gains.get(code, {}) if code is not None else {})))
        return told

    async def checked(self, person: Person, model: LiveModel, one: Ranked) -> Checked:
        """The reasons for one item, and what its score loses without them.

        Where the head's reasons do not hold with the LLM reading what is left, each of the latest items is left out
        with the LLM in turn; the strongest of these alone holds by the way it was found.
        """
        (told,) = self.with_reasons(person, model, [one])
        code = self._tenant.shelf.find(one.item.id)
        assert told.why is not None
        if code is None or not told.why.because:
            return Checked(told.why, 0.0, 0.0)
        before = self._centred(model, _own_window(person), code)
        found = await self._without(person, model, code, {item for item, _ in told.why.because}, told.why, before)
        if found.holds:
            return found
        gains = await self._gains_by_reading(person, model, code, before)
        for most in (_MOST_ITEMS, 1):
            why = self._why(one, code, gains, most)
            found = await self._without(person, model, code, {item for item, _ in why.because}, why, before)
            if found.holds:
                break
        return found

    async def _without(
        self, person: Person, model: LiveModel, code: int, items: Set[str], why: Why, before: float
    ) -> Checked:
        named = {self._tenant.shelf.find(item) for item in items}
        assert person.read is not None
        kept = [place for place in range(person.read[1], len(person.codes)) if person.codes[place] not in named]
        return Checked(why, before, await self._score_of(person, model, code, kept))

    async def _score_of(self, person: Person, model: LiveModel, code: int, kept: Sequence[int]) -> float:
        """As if only these places of the history had been."""
        if not kept:
            return 0.0
        codes = np.array([person.codes[place] for place in kept], np.int64)
        weights = np.array([person.weights[place] for place in kept], np.float32)
        context = await self._tenant.engine.desk.ask(Wanted(None, codes))
        return self._centred(model, UserWindow(codes, weights, context), code)

    async def _gains_by_reading(self, person: Person, model: LiveModel, code: int, before: float) -> dict[int, float]:
        """What each of the latest items adds to an item's score, the LLM reading all the others."""
        assert person.read is not None
        places = range(person.read[1], len(person.codes))
        left_out = list(places)[-_LATEST:]
        scores = await asyncio.gather(
            *(self._score_of(person, model, code, [p for p in places if p != out]) for out in left_out)
        )
        gains: dict[int, float] = {}
        for out, score in zip(left_out, scores, strict=True):
            gains[person.codes[out]] = gains.get(person.codes[out], 0.0) + before - score
        return gains

    def _centred(self, model: LiveModel, window: UserWindow, code: int) -> float:
        """A shift of all scores changes no rank."""
        vector = model.user_vector(window)
        return float(vector @ (model.score_rows[code] - model.score_rows.mean(0)))

    def _gains(self, person: Person, model: LiveModel, codes: Sequence[int]) -> dict[int, dict[int, float]]:
        """By item: what each history item adds to its score."""
        if not person.codes or person.context is None or person.read is None or not codes:
            return {}
        window = _own_window(person)
        rows = model.score_rows[list(codes)] - model.score_rows.mean(0)
        if len(window.codes) == 1:
            total = (model.user_vector(window) - model.prior_vector()) @ rows.T
            return {code: {int(window.codes[0]): float(gain)} for code, gain in zip(codes, total, strict=True)}
        losses = (model.user_vector(window) - model.without_each(window)) @ rows.T  # [positions, codes]
        gains: dict[int, dict[int, float]] = {code: {} for code in codes}
        for column, code in enumerate(codes):
            for place, had in enumerate(window.codes.tolist()):
                gains[code][had] = gains[code].get(had, 0.0) + float(losses[place, column])
        return gains

    def _why(self, one: Ranked, code: int | None, gains: dict[int, float], most: int = _MOST_ITEMS) -> Why:
        strongest = sorted(((gain, had) for had, gain in gains.items() if gain > 0), reverse=True)[:most]
        shelf = self._tenant.shelf
        is_personal = one.source in ("model", "session", "similar")
        because = tuple((shelf.item(had).id, gain) for gain, had in strongest) if is_personal else ()
        words = self._shared(code, [had for _, had in strongest]) if because and code is not None else ()
        why = Why(because, words, one.rules)
        return replace(why, sentence=self._sentence(one, why))

    def _sentence(self, one: Ranked, why: Why) -> str:
        shelf = self._tenant.shelf
        plain = {
            "trending": "Many chose it lately",
            "popular": "Many chose it",
            "latest": "It is new",
            "pinned": "It was placed here",
            "given": "Nothing is known of it",
        }
        if why.because:
            titles = [
                shelf.item(code).title or item for item, _ in why.because if (code := shelf.find(item)) is not None
            ]
            sentence = f"Because of {_listed(titles)}"
        else:
            sentence = plain.get(one.source, "Liked by people whose choices are like yours")
        if why.words:
            sentence += f"; they share {_listed(why.words)}"
        if why.rules:
            sentence += f"; by the rule{'s' if len(why.rules) > 1 else ''} {_listed(why.rules)}"
        return sentence + "."

    def _shared(self, code: int, others: Sequence[int]) -> tuple[str, ...]:
        """Words of an item's text that the others' texts have too, and few items have."""
        theirs = frozenset[str]().union(*(self._words_of(other) for other in others))
        shared = (self._words_of(code) & theirs) - self._too_common()
        return tuple(sorted(shared))[:_MOST_WORDS]

    def _words_of(self, code: int) -> frozenset[str]:
        item = self._tenant.shelf.item(code)
        of, words = self._words.get(code, (None, frozenset()))
        if of is not item:  # described anew
            words = frozenset(_WORD.findall(text_of(item).casefold()))
            self._words[code] = (item, words)
        return words

    def _too_common(self) -> frozenset[str]:
        """Worked out when there are a tenth more items than the last time."""
        n, common = self._common
        size = len(self._tenant.shelf)
        if n < 0 or size > 1.1 * n:
            counts: dict[str, int] = {}
            for code in range(size):
                for word in self._words_of(code):
                    counts[word] = counts.get(word, 0) + 1
            common = frozenset(word for word, count in counts.items() if count > max(_COMMON * size, 2))
            self._common = (size, common)
        return common


def _own_window(person: Person) -> UserWindow:
    assert person.read is not None
    return person.user_window(person.read[1])


def _listed(words: Sequence[str]) -> str:
    """
    >>> _listed(["a", "b", "c"])
    'a, b and c'
    """
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
