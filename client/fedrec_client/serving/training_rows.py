"""Rows between a partner's imported file, its event store and its training: the store decides once it is there.

Imported rows become events when the service first starts. From then on training reads them from the store, so that
somebody who is deleted there is in no later round; with `learning.rounds` it reads all that came since, too.
"""

from collections.abc import Callable, Iterator
from itertools import groupby, islice
from pathlib import Path

import numpy as np

from fedrec.data.catalog import ItemCatalog
from fedrec.data.interactions import InteractionTable
from fedrec.files import json_bytes, read_json, replace_file, storage_errors
from fedrec_client.serving.people import Feedback
from fedrec_client.serving.records import IMPORTED_TYPE, Event
from fedrec_client.serving.settings import ServingSettings
from fedrec_client.serving.store.store import ServingStore, TenantStore

IMPORTED = "import-"
_MARK, _LEARNT = "imported.json", "learnt.json"
_TOGETHER = 5000


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


def note_learnt(folder: Path, store: ServingStore, settings: ServingSettings) -> None:
    """Write down how far the events go that training reads now: a replay must not ask what an adapter has learnt.

    Called before they are read. Without `learning.rounds` nothing new is read, and the first note stays.
    """
    if settings.learning.rounds or not (folder / _LEARNT).exists():
        seqs = {tenant: store.of(tenant).log.last_seq() for tenant in settings.tenant_names}
        with storage_errors(folder):
            replace_file(folder / _LEARNT, json_bytes({"format": 1, "tenants": seqs}))


def learnt_seq(folder: Path, tenant: str) -> int:
    """The latest event that any adapter may have been trained on; 0 before the first training. Raises RunError."""
    if not (folder / _LEARNT).exists():
        return 0
    values, _ = read_json(folder / _LEARNT, 1)
    return int(values["tenants"].get(tenant, 0))
