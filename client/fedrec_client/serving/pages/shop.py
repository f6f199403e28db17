"""What the storefront shows: lists as cards, with their reasons."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from fedrec.recommend.shelf import Item
from fedrec_client.serving.errors import NotFoundError
from fedrec_client.serving.explaining import Checked
from fedrec_client.serving.http.metrics import ServingMetrics
from fedrec_client.serving.pages.asked import Visitor
from fedrec_client.serving.pages.meaning import Meaning
from fedrec_client.serving.records import Answer, Event, Ranked, Source
from fedrec_client.serving.service import Service, TenantService
from fedrec_client.serving.tenant import SESSION

ON_A_PAGE, MOST_AT_ONCE = 12, 60
_IN_A_ROW, _FOUND, _LATELY, _PICKED, _QUESTIONS = 6, 12, 5, 5, 3
# Who has done so much is asked no more.
_KNOWN_ENOUGH = 5
# What a person can do with an item here, and what it is called once it is done.
DEEDS = {"watch": "You watched", "like": "You like", "dislike": "Not for you:"}
_OWN = ("model", "session")


@dataclass(frozen=True, repr=False)
class Card:
    """An item of a list.

    Attributes:
        place: in the list, from 1.
        share: of 100, how likely it is beside the list's best; None where scores say nothing of that.
        because: titles of what raised its score most.
        sentence: the reason in words.
    """

    item: Item
    place: int
    share: float | None
    because: tuple[str, ...]
    sentence: str
    source: Source


@dataclass(frozen=True, repr=False)
class Listed:
    """A list as cards.

    Attributes:
        best: score that shares are of.
        shown: cards of this and the pages before.
    """

    answer: Answer
    cards: tuple[Card, ...]
    best: float
    shown: int


@dataclass(frozen=True, repr=False)
class Found:
    """What a search gave.

    Attributes:
        named: items with these words.
        meant: others, the best answers first.
        understood: what the words were taken to ask for; "" where nothing reads them.
    """

    named: tuple[Item, ...]
    meant: tuple[Item, ...]
    understood: str = ""


class Shop:
    """The storefront of every tenant."""

    def __init__(self, service: Service, metrics: ServingMetrics) -> None:
        self._service, self._metrics = service, metrics
        self._meaning: dict[str, Meaning] = {}
        self._picked: dict[str, list[str]] = {}

    def of(self, visitor: Visitor) -> TenantService:
        """Raises NotReadyError."""
        return self._service.of(visitor.tenant)

    async def for_you(self, visitor: Visitor, n: int = ON_A_PAGE) -> Listed:
        """The first page of somebody's list."""
        return self._listed(visitor, await self.of(visitor).lists.recommend(visitor.asks(n=n, explain=True)))

    async def more(self, visitor: Visitor, cursor: str, best: float, shown: int) -> Listed:
        """The page after. Raises DataError: the cursor is none, or somebody else's."""
        query = visitor.asks(n=ON_A_PAGE, explain=True, cursor=cursor)
        return self._listed(visitor, await self.of(visitor).lists.recommend(query), best, shown)

    async def row(self, visitor: Visitor, source: Source) -> Listed:
        """Some of what is trending, or new; items of which nobody knows since when they are there are not new."""
        query = visitor.asks(n=_IN_A_ROW, is_recorded=False)
        answer = await self.of(visitor).lists.from_source(source, query)
        return self._listed(visitor, answer, is_new=source == "latest")

    async def similar(self, visitor: Visitor, item: str) -> Listed:
        """Items like one. Raises NotFoundError."""
        query = visitor.asks(n=_IN_A_ROW, is_recorded=False)
        return self._listed(visitor, await self.of(visitor).lists.similar(item, query))

    async def questions(self, visitor: Visitor) -> list[Item]:
        """What to ask a visitor without a name, until they have done a few things."""
        if visitor.user or not visitor.session:
            return []
        one = self.of(visitor)
        if len((await one.tenant.person(SESSION + visitor.session)).seen) >= _KNOWN_ENOUGH:
            return []
        return await one.lists.questions(visitor.asks(n=_QUESTIONS, is_recorded=False))

    def _listed(
        self, visitor: Visitor, answer: Answer, best: float | None = None, shown: int = 0, *, is_new: bool = False
    ) -> Listed:
        self._metrics.count_list("own", [one.source for one in answer.items])
        items = [one for one in answer.items if not is_new or one.item.timestamp > 0]
        highest = max((one.score for one in items if one.source in _OWN), default=0.0)
        best = highest if best is None else best
        cards = tuple(self._card(visitor, one, shown + place, best) for place, one in enumerate(items, start=1))
        return Listed(answer, cards, best, shown + len(cards))

    def _card(self, visitor: Visitor, one: Ranked, place: int, best: float) -> Card:
        because = self.titles(visitor, [item for item, _ in one.why.because]) if one.why else ()
        share = min(100.0, 100 * math.exp(max(-50.0, min(0.0, one.score - best)))) if one.source in _OWN else None
        return Card(one.item, place, share, because, one.why.sentence if one.why else "", one.source)

    def titles(self, visitor: Visitor, items: Sequence[str]) -> tuple[str, ...]:
        """What people call these items."""
        shelf = self.of(visitor).tenant.shelf
        codes = [shelf.find(item) for item in items]
        return tuple(shelf.item(code).title or shelf.item(code).id for code in codes if code is not None)

    def item(self, visitor: Visitor, item: str) -> Item:
        """Raises NotFoundError: it is not there, hidden, or held back."""
        shelf = self.of(visitor).tenant.shelf
        code = shelf.find(item)
        if code is None or item not in shelf or shelf.item(code).is_hidden or shelf.is_held(item):
            raise NotFoundError("item")
        return shelf.item(code)

    async def note(self, visitor: Visitor, deed: str, item: str, ranking: str) -> Item:
        """Somebody did something with an item. Raises NotFoundError: no such item or deed; DataError: nobody did."""
        if deed not in DEEDS:
            raise NotFoundError("deed")
        found = self.item(visitor, item)
        event = Event(deed, item, user=visitor.user, session=visitor.session, ranking=ranking)
        told = await self.of(visitor).intake.add_events([event])
        self._metrics.count_events("own", told.accepted)
        return found

    async def found(self, visitor: Visitor, words: str) -> Found:
        """Items with these words, and others that answer the request; without a reader, that mean something like it."""
        one = self.of(visitor)
        named = (await asyncio.to_thread(one.tenant.store.items.page, 4 * _FOUND, "", words))[0]
        shelf = one.tenant.shelf
        shown = [i for i in named if i.id in shelf and not i.is_hidden and not shelf.is_held(i.id)][:_FOUND]
        meaning = self._meaning.setdefault(visitor.tenant, Meaning(one.tenant))
        known, understood = {item.id for item in shown}, ""
        meant: list[Item] = []
        if one.lists.wording.is_there and len(words) >= 3:
            answer = await one.lists.recommend(visitor.asks(words=words, n=_FOUND, is_recorded=False))
            meant = [ranked.item for ranked in answer.items]
            understood = one.lists.wording.in_words(answer.understood) if answer.understood else ""
        elif len(words) >= 3:
            meant = await meaning.find(words, _FOUND)
        return Found(tuple(shown), tuple(item for item in meant if item.id not in known)[:_FOUND], understood)

    async def why(self, visitor: Visitor, item: str, source: str) -> tuple[Checked, tuple[tuple[str, float], ...]]:
        """The reasons for an item, held against the model; and their titles with what each adds, of 100 the most."""
        self.item(visitor, item)
        one = self.of(visitor)
        query = visitor.asks(candidates=(item,), is_recorded=False)
        ranked = (await one.lists.rank(query)).items[0]
        if source in get_args(Source):
            ranked = Ranked(ranked.item, ranked.score, source, ranked.rules)  # type: ignore[arg-type]
        person = await one.tenant.person(visitor.user or SESSION + visitor.session)
        model, _ = await one.tenant.engine.user_vector(person)
        checked = await one.lists.explaining.checked(person, model, ranked)
        most = max((gain for _, gain in checked.why.because), default=1.0)
        names = self.titles(visitor, [had for had, _ in checked.why.because])
        gains = [100 * gain / most for _, gain in checked.why.because]
        return checked, tuple(zip(names, gains, strict=True))

    async def lately(self, visitor: Visitor) -> tuple[str, ...]:
        """What somebody had last, newest first, for whoever may know."""
        if not visitor.sees_people or not (visitor.user or visitor.session):
            return ()
        one = self.of(visitor)
        person = await one.tenant.person(visitor.user or SESSION + visitor.session)
        shelf = one.tenant.shelf
        return tuple(shelf.item(code).title or shelf.item(code).id for code in reversed(person.codes[-_LATELY:]))

    async def picked(self, visitor: Visitor) -> list[str]:
        """Some people to try the shop as, for whoever may know whom it knows."""
        if not visitor.sees_people:
            return []
        if not self._picked.get(visitor.tenant):
            events = self.of(visitor).tenant.store.events
            latest, _ = await asyncio.to_thread(events.find_raw, 400)
            names = list(dict.fromkeys(event.user for event in latest if event.user))
            self._picked[visitor.tenant] = names[:_PICKED]
        return self._picked[visitor.tenant]
