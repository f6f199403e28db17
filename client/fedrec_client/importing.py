"""`flower-client import`: rows are checked and stored beside their own privacy ledger, once."""

import fcntl
import tempfile
from pathlib import Path

from fedrec.data.catalog import ItemCatalog, read_stored_catalog
from fedrec.data.interactions import (
    ColumnMapping,
    InteractionTable,
    read_interactions,
    read_stored_interactions,
    write_interactions,
)
from fedrec.data.ratings import refuse_unlabelled
from fedrec.errors import ConfigError
from fedrec.files import json_bytes, new_folder, storage_errors
from fedrec.privacy.ledger import PrivacyLedger
from fedrec_client.agreement import Agreement
from fedrec_client.settings import Node

INTERACTIONS, FACTS = "interactions.parquet", "facts.json"


def import_rows(node: Node, path: Path, columns: ColumnMapping) -> dict[str, int]:
    """Check all rows against the agreed catalogue and store them; nothing is written unless all are right.

    Returns: how many users and rows; private.
    Raises: ConfigError: there are rows already, or those of another node are named. RunError: no terms are agreed to
        yet. DataError: naming every bad line; or rows without the ratings that the terms' task is about.
    """
    if node.owner is not node:
        raise ConfigError(
            f"the rows here are those of {node.owner.folder}",
            "import other rows into a folder of its own; these rows' ledger is there",
        )
    if node.data.exists():
        raise ConfigError(
            f"{node.data}: there are rows already",
            "their ledger knows what was released of them; another data set needs a folder of its own",
        )
    agreement = Agreement.read(node)
    catalog = read_catalog_bytes(agreement.catalog)
    table = read_interactions(path, columns, catalog)
    if (task := agreement.terms.task) is not None:
        refuse_unlabelled(table, task.low, task.high)
    found = {"users": table.n_users, "rows": table.n_rows}
    _make_ledger(node)
    with new_folder(node.data) as fresh:
        write_interactions(table, fresh / INTERACTIONS)
        (fresh / FACTS).write_bytes(json_bytes(found))
    node.data.chmod(0o700)
    return found


def _make_ledger(node: Node) -> None:
    """One for the data's whole life, with the partner's own budget. One that a crash left behind is gone on with."""
    path, policy = node.ledger, node.settings.policy
    if path.exists():
        PrivacyLedger.open(path, partner=node.settings.name, dataset="data")
        return
    budget = {"budget_epsilon": policy.epsilon_total, "budget_delta": policy.delta}
    PrivacyLedger.create(path, partner=node.settings.name, dataset="data", **budget)


def forget_imported(node: Node, user: str) -> bool:
    """Take somebody's rows out of the stored ones, whole or not at all; whether there were any.

    One at a time, by a lock on the disk: the file is read and written as a whole. The last user's stay: rows there must
    be. Raises DataError: the rows are damaged. StorageError.
    """
    path = node.data / INTERACTIONS
    if not path.is_file():
        return False
    with storage_errors(node.state), (node.state / "rows.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        table = read_stored_interactions(path, read_catalog_bytes(Agreement.read(node).catalog))
        if user not in table.user_ids or table.n_users == 1:
            return False
        write_interactions(_without(table, user), path)
    return True


def _without(table: InteractionTable, user: str) -> InteractionTable:
    gone = table.user_ids.index(user)
    kept = table.user_codes != gone
    codes = table.user_codes[kept]
    return InteractionTable(
        (codes - (codes > gone)).astype("int32"),
        table.item_codes[kept],
        table.rating[kept],
        table.timestamp[kept],
        tuple(name for name in table.user_ids if name != user),
        table.item_ids,
    )


def read_catalog_bytes(content: bytes) -> ItemCatalog:
    """The catalogue that travelled. Raises DataError: damaged."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "catalog.parquet"
        path.write_bytes(content)
        return read_stored_catalog(path)
