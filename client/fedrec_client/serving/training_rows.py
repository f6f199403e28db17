"""Rows between a partner's imported file, its event store and its training: the store decides once it is there.

Imported rows become events when the service first starts. From then on training reads them from the store, so that
somebody who is deleted there is in no later round; with `learning.rounds` it reads all that came since, too.
"""

from collections.abc import Callable, Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np

from fedrec.data.catalog import ItemCatalog
from fedrec.data.interactions import InteractionTable
from fedrec.errors import RunError
from fedrec.files import json_bytes, read_json, replace_file, storage_errors
from fedrec_client.serving.people import Feedback
from fedrec_client.serving.records import IMPORTED_TYPE, Event
from fedrec_client.serving.settings import ServingSettings
from fedrec_client.serving.store.store import ServingStore, TenantStore

IMPORTED = "import-"
_MARK, _LEARNT = "imported.json", "learnt.json"
_TOGETHER = 5000
_MOST_MARKS = 1000
Place = tuple[int, int]
"""Of an adapter: generation and round. Those of earlier generations are among its ancestors, or may be."""


def seed_imported(
    folder: Path, store: TenantStore, table: InteractionTable, say: Callable[[str], None] = lambda _: None
) -> int:
    """Put imported rows into the store, once; how many were put. What was begun and not finished is gone on with.

    Args:
        folder: of the service.
    Raises: StorageError.
    """
    if is_seeded(folder):
        return 0
    events, n = _events(table), 0
    while some := list(islice(events, _TOGETHER)):
        store.events.add(some)
        n += len(some)
        say(f"{n} of {table.n_rows} imported rows are events now")
    with storage_errors(folder):
        replace_file(folder / _MARK, json_bytes({"format": 1, "rows": n}))
    return n


def is_seeded(folder: Path) -> bool:
    """Whether imported rows stand in the service's store, which decides about them from then on."""
    return (folder / _MARK).exists()


def _events(table: InteractionTable) -> Iterator[Event]:
    for place in range(table.n_rows):
        rating = float(table.rating[place])
        yield Event(
            type=IMPORTED_TYPE,
            user=table.user_ids[table.user_codes[place]],
            item=table.item_ids[table.item_codes[place]],
            value=rating if rating == rating else 1.0,
            timestamp=float(table.timestamp[place]),
            id=f"{IMPORTED}{place}",
        )


def training_histories(store: ServingStore, settings: ServingSettings, catalog: ItemCatalog) -> list[np.ndarray]:
    """Histories of every tenant's users as training reads them: what they turned to, oldest first, as item codes.

    Items that the federation's catalogue does not have are left out: the others could not learn of them. Users of
    different tenants are different users. Private.
    """
    feedback = Feedback(settings.feedback)
    prefix = None if settings.learning.rounds else IMPORTED
    histories = []
    for tenant in settings.tenant_names:
        rows = store.of(tenant).log.every_by_user(id_prefix=prefix)
        for _, events in groupby(rows, key=lambda row: row.user):
            codes: list[int] = []
            for event in events:
                if prefix is not None and event.type != IMPORTED_TYPE:
                    continue
                code = catalog.codes.get(event.item)
                is_meant = feedback.meaning(event.type, event.value) == "positive"
                if code is not None and is_meant and (not codes or codes[-1] != code):
                    codes.append(code)
            if codes:
                histories.append(np.array(codes, np.int32))
    return histories


def imported_pairs(store: ServingStore, settings: ServingSettings) -> set[tuple[str, str]]:
    """User and item of every imported row that is still in the store. Private."""
    log = store.of(settings.tenant_names[0]).log  # which imported rows are put into
    return {(row.user, row.item) for row in log.every_by_user(id_prefix=IMPORTED)}


def note_learnt(folder: Path, store: ServingStore, settings: ServingSettings, place: Place) -> None:
    """Write down how far the events go that a round has read: a replay must not ask what an adapter has learnt.

    Called once they are read, before they are trained on. Without `learning.rounds` nothing new is read, and the first
    note stays.

    Args:
        place: of the adapter that comes of the round.
    Raises: StorageError.
    """
    if not settings.learning.rounds and (folder / _LEARNT).exists():
        return
    seqs = {tenant: store.of(tenant).log.last_seq() for tenant in settings.tenant_names}
    try:
        values = _learnt(folder)
    except RunError:  # all that there is may have been learnt
        values = {"tenants": seqs, "marks": []}
    generation, number = place
    marks = [mark for mark in values["marks"] if _place_of(mark) != place]
    values["marks"] = [*marks, {"generation": generation, "round": number, "tenants": seqs}][-_MOST_MARKS:]
    with storage_errors(folder):
        replace_file(folder / _LEARNT, json_bytes({"format": 1, **values}))


def learnt_seq(folder: Path, tenant: str, place: Place) -> int:
    """The latest event that an adapter, or one before it, may have been trained on; 0 before the first training.

    What later rounds read is not in it, and may be asked of it. Raises RunError: what is kept of it is damaged.
    """
    values = _learnt(folder)
    seqs = [values["tenants"], *(mark["tenants"] for mark in values["marks"] if _place_of(mark) <= place)]
    return max(int(one.get(tenant, 0)) for one in seqs)


def _learnt(folder: Path) -> dict[str, Any]:
    """`tenants` is of a time when adapters were not told apart, and holds for all."""
    if not (folder / _LEARNT).exists():
        return {"tenants": {}, "marks": []}
    values, _ = read_json(folder / _LEARNT, 1)
    return {"tenants": values["tenants"], "marks": values.get("marks", [])}


def _place_of(mark: dict[str, Any]) -> Place:
    return int(mark["generation"]), int(mark["round"])
