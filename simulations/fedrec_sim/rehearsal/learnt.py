"""Which rows a round was paid for, as its partner alone can find out: from its own rows, keys and ledger.

The ledger names each question that was asked of the data by a keyed hash over the question, in which the fingerprint of
the rows stands. Whoever holds rows and key can make that name anew, and sees whether it is there. Nothing is taken from
the worker's word, and nothing private leaves the partner's folder.
"""

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fedrec.signing import read_secret
from fedrec.wire import RoundPlan
from fedrec_client.agreement import Agreement
from fedrec_client.importing import read_catalog_bytes
from fedrec_client.payments import event_of, question_of
from fedrec_client.serving.settings import read_serving
from fedrec_client.serving.store.store import ServingStore, store_url
from fedrec_client.serving.training_rows import learnt_seq, training_histories
from fedrec_client.settings import Node
from fedrec_client.worker import PartnerData
from fedrec_client.worker_process import open_ledger
from fedrec_sim.rehearsal import checks
from fedrec_sim.rehearsal.stage import Stage

_TENANT = "default"
# Events that may have come between the reading of a round and the note of how far it went.
_MEANWHILE = 12


@dataclass(frozen=True)
class PaidRows:
    """What a round was paid for. Private.

    Attributes:
        noted: number of the latest event by the node's own note, which is written once they are read.
        seq: of the latest among them, as the ledger's name shows it; not above the note.
        histories: of all users, as item codes.
    """

    noted: int
    seq: int
    histories: list[np.ndarray] = field(repr=False)

    def holds(self, codes: list[int]) -> bool:
        """Whether somebody's history is just that."""
        return any(history.tolist() == codes for history in self.histories)


def rows_paid_for(stage: Stage, name: str, number: int) -> PaidRows | None:
    """Of a committed round; None: the ledger holds no event for the rows that the store has by then.

    The rows must be there still: who was deleted since makes another question.
    """
    node, terms = stage.node(name), stage.coordinator.federation().terms
    noise_root = read_secret(node.keys / "noise.key", 32)
    paid = open_ledger(node).chain().reserved
    plan, noted = _plan(stage, number), learnt_seq(node.serving, _TENANT, (1, number))
    for seq, histories in _rows_by_age(node, noted):
        fingerprint = PartnerData.of(histories).fingerprint
        question = question_of(plan, plan.parent_hash, fingerprint, name, (terms.work.max_history, 0))
        if event_of(noise_root, question) in paid:
            return PaidRows(noted, seq, histories)
    return None


def seq_of(node: Node, event: str) -> int:
    """The number that the store gave an event, by its id; 0 if it has none."""
    with closing(sqlite3.connect(node.serving / "serving.sqlite")) as there:
        found = there.execute("SELECT seq FROM events WHERE id = ?", (event,)).fetchone()
    return int(found[0]) if found else 0


def _plan(stage: Stage, number: int) -> RoundPlan:
    """As the driver asked for it, from the coordinator's own records."""
    federation, told = stage.coordinator.federation(), checks.committed_rounds(stage)[number]
    terms, spec = federation.terms, federation.schedule[number - 1]
    return RoundPlan(
        run=told["run"],
        round=number,
        attempt=told["attempt"],
        part=spec.part,
        local_epochs=spec.local_epochs,
        local_steps=spec.local_steps,
        learning_rate=spec.learning_rate,
        parent_hash=stage.coordinator.registry.load(number - 1).hash,
        privacy_plan_hash=terms.plan_hash,
        mode=terms.mode,
        quorum=terms.plan.quorum + terms.plan.dishonest if terms.plan else 1,
        deadline_s=1.0,  # of no account here
        seed=terms.seed,
    )


def _rows_by_age(node: Node, noted: int) -> Iterator[tuple[int, list[np.ndarray]]]:
    """What training would have read at the noted event, and at some before it, in a copy of the store."""
    catalog, settings = read_catalog_bytes(Agreement.read(node).catalog), read_serving(node.serving)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        there, here = (sqlite3.connect(place / "serving.sqlite") for place in (node.serving, copy))
        with closing(there), closing(here):
            there.backup(here)
        store = ServingStore.open(store_url(copy, "sqlite"))
        try:
            for seq in range(noted, max(noted - _MEANWHILE, 0) - 1, -1):
                with closing(sqlite3.connect(copy / "serving.sqlite")) as here, here:
                    here.execute("DELETE FROM events WHERE seq > ?", (seq,))
                yield seq, training_histories(store, settings, catalog)
        finally:
            store.close()
