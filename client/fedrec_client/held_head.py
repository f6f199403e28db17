"""The newest head of a task as a node holds it, asked about the partner's own users. Nothing of it leaves."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedrec.data.catalog import ItemCatalog
from fedrec.data.columns import problems_of, read_batches
from fedrec.data.interactions import ColumnMapping, InteractionTable, read_interactions
from fedrec.data.ratings import refuse_unlabelled
from fedrec.errors import DataError
from fedrec.tasks.head import TaskHead, score_rows, write_head
from fedrec.tasks.own_rows import OwnRows
from fedrec.tasks.stars import rated_by
from fedrec.tasks.taste import PublicTaste
from fedrec.tasks.taste_head import SCALE
from fedrec.tasks.terms import TaskTerms
from fedrec.terms import FederationTerms
from fedrec_client.agreement import Agreement
from fedrec_client.importing import read_catalog_bytes
from fedrec_client.node import adapters_of
from fedrec_client.settings import Node
from fedrec_client.trained_head import agreed_inputs, own_rows, task_of

_UNKNOWN = OwnRows(np.zeros(0, np.int32), np.zeros(0))
Said = list[tuple[str, float]]


@dataclass(frozen=True)
class HeldHead:
    """A version of the head, ready to be asked.

    Attributes:
        agreed: terms of the federation.
        round: of the version.
        public, taste: before and after the version corrects it.
        rows: of each user, the latest that the terms read; private.
        rated: all items of each user, in order of code; private.
    """

    agreed: FederationTerms = field(repr=False)
    terms: TaskTerms
    catalog: ItemCatalog = field(repr=False)
    round: int
    head: TaskHead = field(repr=False)
    public: PublicTaste = field(repr=False)
    taste: PublicTaste = field(repr=False)
    rows: dict[str, OwnRows] = field(repr=False)
    rated: dict[str, NDArray[np.int32]] = field(repr=False)

    @classmethod
    def load(cls, node: Node) -> "HeldHead":
        """Raises: RunError: no terms, no adapter yet, or a damaged one. ConfigError: no task's. As `agreed_inputs`."""
        agreement = Agreement.read(node)
        terms, catalog, adapters = agreement.terms, read_catalog_bytes(agreement.catalog), adapters_of(node, agreement)
        task_of(terms)
        state, held = adapters.load(), adapters.held()
        assert held is not None  # `load` has refused otherwise
        state.check(terms.spec)
        head_terms, taste = agreed_inputs(node, terms, catalog, None)
        head = TaskHead(head_terms.shape)
        write_head(head, state)
        every, latest = own_rows(node, terms, catalog, with_older=True), slice(-terms.work.max_history, None)
        return cls(
            terms,
            head_terms,
            catalog,
            held.round,
            head,
            taste,
            head_terms.corrected(taste, state),
            rows={user: OwnRows(own.items[latest], own.targets[latest]) for user, own in every.items()},
            rated={user: np.sort(own.items) for user, own in every.items()},
        )

    def predict(self, user: str, items: NDArray[np.int32]) -> NDArray[np.float64]:
        """Stars, or the probability of a like, of each item for a user; whoever is unknown has the public's taste."""
        own = self.rows.get(user, _UNKNOWN)
        inputs = self.taste.inputs(own.items, own.targets, items)
        return self.terms.task.predictions(score_rows(self.head, inputs))

    def has_rated(self, user: str, items: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Which of these items are among a user's imported rows; the head may know of them. Private."""
        return np.isin(items, self.rated.get(user, _UNKNOWN.items))

    def of_items(self, user: str, items: Sequence[str]) -> Said:
        """The same, by the items' names. Raises DataError: naming those that the catalogue lacks."""
        if lacking := [item for item in items if item not in self.catalog.codes]:
            raise DataError.of_all([f"no item {item!r}" for item in lacking], "name items of the catalogue", "predict")
        codes = np.array([self.catalog.codes[item] for item in items], np.int32)
        return list(zip(items, self.predict(user, codes).tolist(), strict=True))

    def title(self, item: str) -> str:
        """Of an item of the catalogue."""
        return self.catalog.titles[self.catalog.codes[item]]


def highest(held: HeldHead, user: str, k: int) -> Said:
    """The items of which the head says most, among those that the user has not rated."""
    every = np.arange(len(held.catalog), dtype=np.int32)
    fresh = every[~held.has_rated(user, every)]
    said = held.predict(user, fresh)
    order = np.argsort(-said, kind="stable")[:k]
    return [(held.catalog.ids[fresh[place]], float(said[place])) for place in order]


def figures_of(held: HeldHead, file: Path, columns: ColumnMapping) -> dict[str, Any]:
    """How good the head is on rows that were held back; private.

    Raises: DataError: bad rows, rows without ratings on the terms' scale, or such as were imported.
    """
    task = task_of(held.agreed)
    table = read_interactions(file, columns, held.catalog)
    refuse_unlabelled(table, task.low, task.high)
    _refuse_imported(held, table, file, columns)
    asked = rated_by(table, SCALE[task.task], most_rows=table.n_rows, seed=0)
    targets = np.concatenate([of.targets for of in asked.values()]).astype(np.float32)
    said = np.concatenate([held.predict(user, of.items) for user, of in asked.items()])
    users = np.repeat(np.arange(len(asked)), [len(of.items) for of in asked.values()])
    figures = held.terms.task.figures(targets, said, users)
    return {"rows": len(targets), "users": len(asked), "figures": figures}


def _refuse_imported(held: HeldHead, table: InteractionTable, file: Path, columns: ColumnMapping) -> None:
    """Raises DataError: with the places of rows whose user has rated the item among the imported ones.

    Privacy: names lines, never what stands there.
    """
    known, by_user = np.zeros(table.n_rows, np.bool_), np.argsort(table.user_codes, kind="stable")
    ends = np.cumsum(np.bincount(table.user_codes, minlength=len(table.user_ids)))
    for user, rows in zip(table.user_ids, np.split(by_user, ends[:-1]), strict=True):
        known[rows] = held.has_rated(user, table.item_codes[rows])
    if not known.any():
        return
    problems = problems_of(file)
    lines = np.concatenate([batch.lines for batch in read_batches(file, [columns.user], problems)])
    problems.add("the user rated the item in the import, so that the head may know it", lines[known])
    problems.refuse(str(file), "leave these rows out; hold rows back before the import")
