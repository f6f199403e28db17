"""One tenant's live state: items on the shelf, people in memory, trends, the engine, and the store behind them all."""

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from fedrec.data.catalog import ItemCatalog, item_text
from fedrec.recommend.live_model import LiveModel
from fedrec.recommend.shelf import Item, Shelf
from fedrec_client.serving.engine import Encode, Engine
from fedrec_client.serving.graphs import Graphs
from fedrec_client.serving.item_index import ItemIndex
from fedrec_client.serving.people import Feedback, FeedbackType, People, Person, person_of
from fedrec_client.serving.records import IMPORTED_TYPE, Event, Shown
from fedrec_client.serving.settings import ServingSettings
from fedrec_client.serving.store.event_log import ItemCounts
from fedrec_client.serving.store.reading_book import Reading, put_readings
from fedrec_client.serving.store.shown_book import add_shown, remove_shown_before
from fedrec_client.serving.store.store import TenantStore
from fedrec_client.serving.store.writer import BusyError, Writer
from fedrec_client.serving.trends import Trends, looks_back

_log = logging.getLogger(__name__)
_TIDY_EVERY_S = 3600.0
# Shown lists are written together: each alone would be a transaction.
_SHOWN_EVERY_S = 0.25
# Of a session's key, so that no user is taken for one: ids are printable text.
SESSION = "\x00session "


@dataclass
class Tenant:
    """See the module. Everything in memory is changed by the event loop's thread alone.

    Attributes:
        changing_items: held while items join, since their codes follow each other.
        removing: people who are being deleted: nothing more of them is written.
        on_removed: told of each person who was deleted, by id; in a thread, since it may take time.
    """

    name: str
    settings: ServingSettings
    store: TenantStore = field(repr=False)
    writer: Writer = field(repr=False)
    shelf: Shelf = field(repr=False)
    engine: Engine = field(repr=False)
    trends: Trends = field(repr=False)
    feedback: Feedback = field(repr=False)
    people: People = field(repr=False)
    index: ItemIndex = field(repr=False)
    changing_items: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)
    removing: set[str] = field(default_factory=set, repr=False)
    _tidied: float = 0.0
    on_removed: list[Callable[[str], None]] = field(default_factory=list, repr=False)
    _loading: dict[str, "asyncio.Future[Person]"] = field(default_factory=dict, repr=False)
    _touched: set[str] = field(default_factory=set, repr=False)
    _shown: list[Shown] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        self.engine.on_read = self._keep_reading

    async def person(self, key: str) -> Person:
        """A user, or a session by `SESSION` and its id, with all that the store knows of them."""
        while (person := self._in_memory(key)) is None:
            loading = self._loading.get(key)
            if loading is None:
                loading = self._loading[key] = asyncio.ensure_future(asyncio.to_thread(self._load, key))
                loading.add_done_callback(lambda done: self._loaded(key, done))
            await asyncio.shield(loading)
            await asyncio.sleep(0)  # `_loaded` runs first
        person.asked_at = time.time()
        return person

    def _in_memory(self, key: str) -> Person | None:
        """With all that is due by now."""
        person = self.people.find(key)
        if person is not None and not person.catch_up(time.time()):
            self.forget(key)
            return None
        return person

    def _load(self, key: str) -> Person:
        """In a thread."""
        if key.startswith(SESSION):
            past = self.store.events.session_history(key.removeprefix(SESSION))
            return self._made(key, past)
        person = self._made(key, self.store.events.history(key))
        blocked, user = self.store.blocks.of(key), self.store.users.get(key)
        person.blocked_items, person.blocked_categories = blocked.items, blocked.categories
        person.labels = user.labels if user else None
        reading = self.store.readings.get([key]).get(key)
        if reading is not None and person.codes:
            self._use_reading(person, reading)
        return person

    def _made(self, key: str, past: Sequence[Event | object]) -> Person:
        return person_of((self.name, key), past, self.feedback, self.shelf.find, time.time())  # type: ignore[arg-type]

    def _loaded(self, key: str, done: "asyncio.Future[Person]") -> None:
        self._loading.pop(key, None)
        is_stale = key in self._touched  # an event came while it was loaded, which it may lack
        self._touched.discard(key)
        if not done.cancelled() and done.exception() is None and not is_stale:
            self.people.keep(key, done.result())

    def apply(self, event: Event, *, is_new: bool = True) -> None:
        """Let an event that is stored count, from the next answer on."""
        code = self.shelf.find(event.item)
        if code is None:
            return
        meaning = self.feedback.meaning(event.type, event.value)
        weight = self.feedback.weight(event.type)
        if is_new and meaning == "positive":  # what was merely shown would make itself popular
            self.trends.note(code, min(event.timestamp, time.time()), weight)
        now = time.time()
        for key in filter(None, (event.user, event.session and SESSION + event.session)):
            if key in self._loading:
                self._touched.add(key)
            person = self.people.find(key)
            if person is None:
                continue
            if not person.note_in_time(code, meaning, weight, event.timestamp, now):
                self.forget(key)
            elif meaning == "positive":
                self.engine.foresee(person)

    def forget(self, key: str) -> None:
        """Drop somebody from memory; they are loaded anew when they are asked for."""
        if key in self._loading:
            self._touched.add(key)
        self.people.forget(key)
        self.engine.forget((self.name, key))

    def note_shown(self, shown: Shown, person: Person) -> None:
        """Have a list written down, some moments later and with others: nobody waits for it.

        Args:
            person: whose list it is, as they were found.
        """
        if shown.user and (shown.user in self.removing or self.people.find(shown.user) is not person):
            return  # deleted while the list was made
        if not self._shown:
            asyncio.get_running_loop().call_later(_SHOWN_EVERY_S, self.write_shown)
        self._shown.append(shown)

    def write_shown(self) -> None:
        """Write lists down now, before whatever is written next. Where too much waits, a list less does no harm."""
        self._tidy()
        lists, self._shown = self._shown, []
        if not lists:
            return
        try:
            self.writer.submit(lambda connection: add_shown(connection, self.name, lists))
        except BusyError:
            _log.warning("shown lists were not written down: too much waits", extra={"event": "shown_lost"})

    def _tidy(self) -> None:
        """Once an hour, lists that were shown too long ago go."""
        now = time.time()
        if now - self._tidied > _TIDY_EVERY_S:
            self._tidied, until = now, now - 86_400 * self.settings.store.keep_shown_days
            with suppress(BusyError):
                self.writer.submit(lambda connection: remove_shown_before(connection, self.name, until))

    async def written(self) -> None:
        """Wait until all that was to be written so far is on the disk."""
        self.write_shown()
        await asyncio.wrap_future(self.writer.submit(lambda _: None))

    def _keep_reading(self, person: Person) -> None:
        """So that a restart need not read the history again."""
        user = person.key[1]
        if user.startswith(SESSION) or person.context is None or person.read is None:
            return
        reading_hash, start, end = person.read
        reading = Reading(self._digest(person, start, end), reading_hash, person.context.astype("<f4").tobytes())
        if user in self.removing or self.people.find(user) is not person:  # deleted meanwhile, or loaded anew
            return
        try:
            self.writer.submit(lambda connection: put_readings(connection, self.name, {user: reading}))
        except BusyError:
            _log.debug("a reading was not kept: too much waits to be written")

    def _use_reading(self, person: Person, reading: Reading) -> None:
        model = self.engine.model
        start, codes = person.window(model, self.settings.model.window_slack)
        end = start + len(codes)
        if reading.reading_hash == model.reading and reading.digest == self._digest(person, start, end):
            person.context = np.frombuffer(reading.content, "<f4").astype(np.float32)
            person.read = (model.reading, start, end)

    def _digest(self, person: Person, start: int, end: int) -> bytes:
        """By ids, since codes of later items may be others after a restart, and by texts, which may change."""
        n_catalog = self.engine.model.n_catalog
        items = [(self.shelf.item(code), code >= n_catalog) for code in person.codes[start:end]]
        ids = "\0".join(f"{item.id}\0{text_of(item)}" if is_later else item.id for item, is_later in items)
        return hashlib.sha256(f"{start}\0{ids}".encode()).digest()

    def close(self) -> None:
        """End the engine; what waits to be written is the writer's to finish."""
        self.write_shown()
        self.engine.close()


def text_of(item: Item) -> str:
    """What the LLM reads of an item; "" if nobody has described it."""
    if item.text:
        return item.text
    if not item.title and not item.categories:
        return ""
    return item_text(item.title or item.id, item.categories)


def seed_catalog(store: TenantStore, catalog: ItemCatalog) -> None:
    """Put the federation's items into a store that has none; later on the store decides which of them there are."""
    if store.items.count():
        return
    store.items.put([catalog_item(catalog, code) for code in range(len(catalog))])


def catalog_item(catalog: ItemCatalog, code: int) -> Item:
    """As the federation describes it."""
    year = catalog.years[code]
    return Item(
        id=catalog.ids[code],
        title=catalog.titles[code],
        text=catalog.texts[code],
        categories=catalog.categories[code],
        fields={} if year is None else {"year": year},
    )


def open_shelf(store: TenantStore, catalog: ItemCatalog) -> tuple[Shelf, list[Item]]:
    """The shelf, the catalogue's items first in its order, and the later items that follow them."""
    stored = {item.id: item for item in store.items.every()}
    shelf = Shelf(stored.get(item) or Item(item) for item in catalog.ids)
    for name in catalog.ids:
        if name not in stored:
            shelf.remove(name)
    later = [item for item in stored.values() if item.id not in catalog.codes]
    for item in later:
        shelf.put(item)
    return shelf, later


@dataclass(frozen=True)
class Chosen:
    """How often items were chosen, as the store counts it; nothing of whom. See `load_trends`.

    Attributes:
        moments: Unix seconds, each with the events that happened about then; the last of all that were before.
        counts: by item, as many as there are moments.
    """

    moments: tuple[float, ...]
    counts: Sequence[ItemCounts] = field(repr=False)


def count_chosen(store: TenantStore, settings: ServingSettings) -> Chosen:
    """Counts of stored events of positive types; those that are so by their value alone count whatever it is."""
    half_life_s = settings.fallback.trending_half_life_h * 3600
    told = settings.feedback
    names = {IMPORTED_TYPE} | {FeedbackType.parse(text).name for text in told.positive}
    types = None if "*" in names else names
    disliked = {name for name in (*told.negative, *told.read) if name.isidentifier()} - {IMPORTED_TYPE}
    latest = store.log.latest_timestamp(types, disliked)
    if latest is None:
        return Chosen((), ())
    latest = min(latest, time.time())
    since = looks_back(latest, half_life_s)
    moments = [*(moment + half_life_s / 2 for moment in since), latest - 20 * half_life_s]
    return Chosen(tuple(moments), store.log.counts_by_item(since, types, disliked))


def load_trends(chosen: Chosen, shelf: Shelf, settings: ServingSettings) -> Trends:
    """What was popular and trending before this start."""
    trends = Trends(settings.fallback.trending_half_life_h * 3600)
    trends.grow(len(shelf))
    found = [(code, row.events) for row in chosen.counts if (code := shelf.find(row.item)) is not None]
    if found:
        codes, events = (np.array(column) for column in zip(*found, strict=True))
        for moment, counts in zip(chosen.moments, np.diff(events.astype(np.float64), prepend=0).T, strict=True):
            trends.note_many(codes, moment, counts)
    return trends


async def open_tenant(
    name: str,
    settings: ServingSettings,
    store: TenantStore,
    writer: Writer,
    catalog: ItemCatalog,
    model: LiveModel,
    encode: Encode,
    graphs: Graphs,
    say: Callable[[str], None] = lambda _: None,
) -> Tenant:
    """Read a tenant from its store.

    Args:
        model: of the federation's adapter, which other tenants may share: a branch is taken.
        graphs: how its items are indexed.
    """
    build = graphs.of(name, model.score_rows.shape[1])
    await asyncio.to_thread(seed_catalog, store, catalog)
    shelf, later = await asyncio.to_thread(open_shelf, store, catalog)
    state_bytes = (settings.model.state_mb << 20) // len(settings.tenant_names)
    engine = Engine(model.branch(), settings.model, encode, state_bytes)
    if later:
        say(f"{name}: {len(later)} items beyond the catalogue")
        await engine.add_items([text_of(item) for item in later])
    # Not beside what is read before: SQLite lets go of the interpreter at every row, and two would wait for each other.
    chosen = await asyncio.to_thread(count_chosen, store, settings)
    trends = await asyncio.to_thread(load_trends, chosen, shelf, settings)
    tenant = Tenant(
        name=name,
        settings=settings,
        store=store,
        writer=writer,
        shelf=shelf,
        engine=engine,
        trends=trends,
        feedback=Feedback(settings.feedback),
        people=People(),
        index=ItemIndex(build, settings.model.exact_items, graphs.threads, graphs.builder),
    )
    tenant.index.want(engine.model)
    return tenant
