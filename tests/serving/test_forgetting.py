"""Somebody is deleted at a node without its service: from the file, from the store, and from what rounds read."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fedrec.data.catalog import ItemCatalog, write_catalog
from fedrec.data.interactions import Interaction, InteractionTable, read_stored_interactions, write_interactions
from fedrec.errors import ConfigError, PrivacyError, RunError
from fedrec.invitation import Invitation
from fedrec.processes import only_one
from fedrec.wire import RoundPlan
from fedrec_client import serve_node
from fedrec_client.forgetting import Forgotten, forget
from fedrec_client.importing import INTERACTIONS
from fedrec_client.serving import training_rows
from fedrec_client.serving.records import Event
from fedrec_client.serving.settings import read_serving
from fedrec_client.serving.store.store import ServingStore, store_url
from fedrec_client.serving.training_rows import imported_pairs, is_seeded, seed_imported
from fedrec_client.settings import PAUSED, SERVING_LOCK, Node, make_node
from fedrec_client.trained import _Stored, renewing

PLAN = cast(RoundPlan, SimpleNamespace(run="films/1", round=1))


@pytest.fixture
def table(catalog: ItemCatalog) -> InteractionTable:
    rows = [("anna", 3), ("anna", 1), ("bert", 2), ("carl", 4), ("carl", 5)]
    made = [Interaction(user, catalog.ids[item], 4.0, 10.0 * n, n + 1) for n, (user, item) in enumerate(rows)]
    return InteractionTable.from_rows(made, catalog)


@pytest.fixture
def node(table: InteractionTable, catalog: ItemCatalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    invitation = Invitation("localhost:1", "shop", "s", "0" * 64, "0" * 64)
    made = make_node(tmp_path / "node", invitation, b"PEM", 9094)
    write_catalog(catalog, tmp_path / "catalog.parquet")
    agreed = SimpleNamespace(catalog=(tmp_path / "catalog.parquet").read_bytes(), terms=SimpleNamespace(task=None))
    for place in ("importing", "forgetting", "serve_node"):
        monkeypatch.setattr(f"fedrec_client.{place}.Agreement.read", lambda _: agreed)
    made.data.mkdir()
    write_interactions(table, made.data / INTERACTIONS)
    return made


def users_of(node: Node, catalog: ItemCatalog) -> tuple[str, ...]:
    return read_stored_interactions(node.data / INTERACTIONS, catalog).user_ids


def store_of(node: Node) -> ServingStore:
    return ServingStore.open(store_url(node.serving, read_serving(node.serving).store.database))


def test_no_later_round_of_a_worker_that_runs_reads_whoever_was_deleted(node: Node, catalog: ItemCatalog) -> None:
    path = node.folder / "client.toml"
    path.write_text(path.read_text().replace("min_users = 100", "min_users = 2"))
    node = Node(node.folder)
    renew = renewing(node, catalog, _Stored(node, catalog))
    first = renew(PLAN)
    assert renew(PLAN) is first, "an unchanged file is not read again"
    assert forget(node, "anna") == Forgotten(True, None)
    assert sorted(history.tolist() for history in renew(PLAN).histories) == [[2], [4, 5]]
    assert not node.serving.exists(), "nothing of a service was made"
    assert forget(node, "anna") == Forgotten(False, None)
    forget(node, "bert")
    with pytest.raises(PrivacyError, match="paused"):
        renew(PLAN)
    assert (node.state / PAUSED).exists()


def test_the_last_users_rows_are_not_said_to_be_gone(node: Node, catalog: ItemCatalog) -> None:
    forget(node, "anna")
    forget(node, "bert")
    with pytest.raises(RunError, match="nobody else"):
        forget(node, "carl")
    assert users_of(node, catalog) == ("carl",)


def test_a_service_that_does_not_run_forgets_too(node: Node, table: InteractionTable, catalog: ItemCatalog) -> None:
    store = store_of(node)
    seed_imported(node.serving, store.of("default"), table)
    store.of("default").events.add([Event("like", catalog.ids[7], user="anna", timestamp=30.0)])
    gone = forget(node, "anna")
    assert gone.imported
    assert gone.service is not None
    assert gone.service["events"] == 3
    assert users_of(node, catalog) == ("bert", "carl")
    assert {user for user, _ in imported_pairs(store, read_serving(node.serving))} == {"bert", "carl"}
    assert not forget(node, "bert").is_last
    last = forget(node, "carl")
    assert (last.imported, last.is_last) == (False, True), "the file must have rows, and the answer says so"
    assert not imported_pairs(store, read_serving(node.serving)), "which no round reads any more"
    store.close()


@pytest.mark.parametrize("breaks", ["file", "store"])
def test_a_deletion_that_was_cut_off_is_gone_on_with(
    node: Node, table: InteractionTable, catalog: ItemCatalog, monkeypatch: pytest.MonkeyPatch, breaks: str
) -> None:
    store = store_of(node)
    seed_imported(node.serving, store.of("default"), table)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    place = {
        "file": "fedrec_client.importing.write_interactions",
        "store": "fedrec_client.serving.store.user_book.UserBook.remove",
    }[breaks]
    with monkeypatch.context() as patch:
        patch.setattr(place, stop)
        with pytest.raises(KeyboardInterrupt):
            forget(node, "anna")
    forget(node, "anna")
    assert users_of(node, catalog) == ("bert", "carl")
    assert {user for user, _ in imported_pairs(store, read_serving(node.serving))} == {"bert", "carl"}
    store.close()


def test_a_seeding_that_was_cut_off_ends_before_rows_go(
    node: Node, table: InteractionTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events are numbered by the file's rows: of a shorter file others would be taken for those that are there."""
    store = store_of(node)
    monkeypatch.setattr(training_rows, "_TOGETHER", 1)

    def stop(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        seed_imported(node.serving, store.of("default"), table, stop)
    assert forget(node, "anna").imported
    assert is_seeded(node.serving)
    ids = table.item_ids
    assert imported_pairs(store, read_serving(node.serving)) == {("bert", ids[2]), ("carl", ids[4]), ("carl", ids[5])}
    store.close()


def test_another_tenants_user_is_another_person(node: Node, catalog: ItemCatalog) -> None:
    node.serving.mkdir()
    text = "format = 1\n" + "".join(f'[[tenants]]\nname = "{name}"\n' for name in ("films", "books"))
    (node.serving / "serving.toml").write_text(text)
    store = store_of(node)
    for tenant in ("films", "books"):
        store.of(tenant).events.add([Event("like", catalog.ids[7], user="anna", timestamp=30.0)])
    gone = forget(node, "anna", "books")
    assert (gone.imported, (gone.service or {})["events"]) == (False, 1)
    assert "anna" in users_of(node, catalog)
    assert store.of("films").users.export("anna")["events"]
    with pytest.raises(ConfigError, match="no tenant 'shoes'"):
        forget(node, "anna", "shoes")
    store.close()


def test_a_service_that_runs_is_asked_itself(node: Node, catalog: ItemCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it holds of people in memory would be written again."""
    tried: list[BaseException] = []

    def run(_: Any) -> None:
        with pytest.raises(RunError, match="runs already") as found:
            forget(node, "anna")
        tried.append(found.value)

    monkeypatch.setattr(serve_node.Starting, "run", run)
    serve_node.serve_node(node)
    (error,) = tried
    assert "DELETE /v1/users/ID" in cast(RunError, error).remedy
    assert "anna" in users_of(node, catalog)
    with only_one(node.state / SERVING_LOCK, ""), pytest.raises(RunError, match="runs already"):
        serve_node.serve_node(node)


def test_rows_of_another_node_are_deleted_there(node: Node, tmp_path: Path, catalog: ItemCatalog) -> None:
    invitation = Invitation("localhost:1", "far", "s", "0" * 64, "0" * 64)
    other = make_node(tmp_path / "far", invitation, b"PEM", 9095)
    path = other.folder / "client.toml"
    path.write_text(path.read_text().replace('rows_of = ""', f'rows_of = "{node.folder}"'))
    with pytest.raises(ConfigError, match="rows here are those of") as found:
        forget(Node(other.folder), "anna")
    assert f"--dir {node.folder}" in found.value.remedy
    assert "anna" in users_of(node, catalog)
    forget(node, "anna")
    assert Node(other.folder).data == node.data
