"""A shop of made items and users for scale: more than MovieLens has. Every figure says that they are made.

Made items have made text features, mixtures of two real items' ones, put where a service keeps what its encoder read:
to read 100,000 texts takes the LLM half an hour and says nothing of serving.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from fedrec.recommend.shelf import Item
from fedrec_client.serving.records import Event
from fedrec_client.serving.settings import default_settings
from fedrec_client.serving.store.store import ServingStore, store_url
from fedrec_client.serving.store.vector_book import text_key
from fedrec_client.serving.tenant import catalog_item, text_of
from fedrec_sim.serving_bench.workload import EVENT_TYPE, Workload
from fedrec_sim.world import World

_TOGETHER = 10_000


def fill_made(place: Path, world: World, items: int, events: int, history: int, seed: int = 1) -> Workload:
    """A store with the catalogue's items and made ones, and made users with `history` events each."""
    place.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    store = ServingStore.open(store_url(place, default_settings().store.database))
    try:
        books = store.of("default")
        known = [catalog_item(world.catalog, code) for code in range(len(world.catalog))]
        books.items.put(known)
        added = _made_items(world, items - len(known), random)
        for start in range(0, len(added), _TOGETHER):
            some = added[start : start + _TOGETHER]
            books.items.put([item for item, _ in some])
            keys = [text_key(world.features.hash, text_of(item)) for item, _ in some]
            books.vectors.put(keys, np.stack([vector for _, vector in some]))
        every = [*known, *(item for item, _ in added)]
        users = [f"made-{number}" for number in range(events // history)]
        stream = _made_events(users, every, history, random)
        while batch := list(islice(stream, _TOGETHER)):
            books.events.add(batch)
    finally:
        store.close()
    ids = tuple(item.id for item in every)
    return Workload(tuple(users), {user: [] for user in users}, len(ids), random, ids)


def _made_items(world: World, n: int, random: np.random.Generator) -> list[tuple[Item, np.ndarray]]:
    """Titles of two real items' words, categories and features between theirs."""
    catalog, vectors = world.catalog, world.features.vectors
    made = []
    for number in range(n):
        one, other = random.integers(0, len(catalog), 2)
        share = random.uniform(0.3, 0.7)
        mixed = share * vectors[one] + (1 - share) * vectors[other] + 0.1 * random.normal(size=vectors.shape[1])
        words = " and ".join(catalog.titles[code].split("(")[0].strip() for code in (one, other))
        categories = tuple(dict.fromkeys((*catalog.categories[one], *catalog.categories[other])))
        made.append((Item(f"made-{number}", f"{words} {number}", categories=categories), mixed.astype(np.float32)))
    return made


def _made_events(users: list[str], items: list[Item], history: int, random: np.random.Generator) -> Iterator[Event]:
    """Each user keeps to two categories, where popular items are drawn more often."""
    by_category: dict[str, list[int]] = {}
    for place, item in enumerate(items):
        for category in item.categories:
            by_category.setdefault(category, []).append(place)
    names = sorted(by_category)
    for user in users:
        liked = [by_category[names[int(place)]] for place in random.integers(0, len(names), 2)]
        moment = 1e9 + float(random.uniform(0, 1e7))
        for step in range(history):
            among = liked[step % 2]
            place = among[int(len(among) * random.uniform() ** 2)]
            yield Event(EVENT_TYPE, items[place].id, user=user, value=4.0, timestamp=moment + 60.0 * step)
