"""Rows between file, store and training: seeded once, gone when deleted, new ones only where they are wanted."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fedrec.data.catalog import ItemCatalog, write_catalog
from fedrec.data.interactions import Interaction, InteractionTable, read_stored_interactions, write_interactions
from fedrec.errors import DataError
from fedrec.invitation import Invitation
from fedrec_client.importing import INTERACTIONS, forget_imported
from fedrec_client.serving.records import Event
from fedrec_client.serving.service import Served, TenantService
from fedrec_client.serving.settings import ServingSettings
from fedrec_client.serving.store.store import ServingStore, store_url
from fedrec_client.serving.training_rows import (
    is_seeded,
    learnt_seq,
    note_learnt,
    seed_imported,
    training_histories,
)
from fedrec_client.settings import make_node
from fedrec_client.trained import _from_store
from tests.serving.conftest import Place


@pytest.fixture
def store(tmp_path: Path) -> ServingStore:
    return ServingStore.open(f"sqlite:///{tmp_path / 'serving.sqlite'}")


@pytest.fixture
def table(catalog: ItemCatalog) -> InteractionTable:
    rows = [("anna", 3, 10.0), ("anna", 1, 20.0), ("bert", 2, 5.0)]
    return InteractionTable.from_rows(
        [Interaction(u, catalog.ids[i], None, t, n + 1) for n, (u, i, t) in enumerate(rows)], catalog
    )


def settings(**tables: object) -> ServingSettings:
    return ServingSettings.model_validate({"format": 1, **tables})


def codes(histories: list[np.ndarray]) -> list[list[int]]:
    return [history.tolist() for history in histories]


def test_rows_are_seeded_once_and_who_was_deleted_stays_deleted(
    store: ServingStore, table: InteractionTable, catalog: ItemCatalog, tmp_path: Path
) -> None:
    assert not is_seeded(tmp_path)
    assert seed_imported(tmp_path, store.of("default"), table) == 3
    assert codes(training_histories(store, settings(), catalog)) == [[3, 1], [2]]
    store.of("default").users.remove("anna")
    assert seed_imported(tmp_path, store.of("default"), table) == 0
    assert codes(training_histories(store, settings(), catalog)) == [[2]]
    store.close()


def test_a_seeding_that_was_cut_off_is_gone_on_with(
    store: ServingStore, table: InteractionTable, catalog: ItemCatalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedrec_client.serving.training_rows._TOGETHER", 1)
    books = store.of("default")

    def stop(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        seed_imported(tmp_path, books, table, stop)
    seed_imported(tmp_path, books, table)
    assert codes(training_histories(store, settings(), catalog)) == [[3, 1], [2]]
    store.close()


def test_new_events_train_only_where_they_are_wanted(
    store: ServingStore, table: InteractionTable, catalog: ItemCatalog, tmp_path: Path
) -> None:
    books = store.of("default")
    seed_imported(tmp_path, books, table)
    ids = catalog.ids
    books.events.add(
        [
            Event("like", ids[7], user="anna", timestamp=30.0),
            Event("like", ids[7], user="anna", timestamp=31.0),
            Event("dislike", ids[8], user="anna", timestamp=32.0),
            Event("like", "not in the federation", user="anna", timestamp=33.0),
            Event("like", ids[9], session="somebody", timestamp=34.0),
            Event("like", ids[4], user="carl", timestamp=35.0),
        ]
    )
    assert codes(training_histories(store, settings(), catalog)) == [[3, 1], [2]]
    wanted = settings(learning={"rounds": True})
    assert codes(training_histories(store, wanted, catalog)) == [[3, 1, 7], [2], [4]]
    store.close()


def test_imported_rows_of_a_deleted_user_go_from_the_file(
    table: InteractionTable, catalog: ItemCatalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    invitation = Invitation("localhost:1", "shop", "s", "0" * 64, "0" * 64)
    node = make_node(tmp_path / "node", invitation, b"PEM", 9094)
    node.data.mkdir()
    write_catalog(catalog, tmp_path / "catalog.parquet")
    agreed = SimpleNamespace(catalog=(tmp_path / "catalog.parquet").read_bytes())
    monkeypatch.setattr("fedrec_client.importing.Agreement.read", lambda _: agreed)
    assert not forget_imported(node, "anna")
    write_interactions(table, node.data / INTERACTIONS)
    assert not forget_imported(node, "nobody")
    assert forget_imported(node, "anna")
    left = read_stored_interactions(node.data / INTERACTIONS, catalog)
    assert (left.user_ids, left.item_codes.tolist(), left.timestamp.tolist()) == (("bert",), [2], [5.0])
    assert b"anna" not in (node.data / INTERACTIONS).read_bytes()


def test_how_far_training_has_read_is_written_down(store: ServingStore, catalog: ItemCatalog, tmp_path: Path) -> None:
    books = store.of("default")
    books.events.add([Event("like", catalog.ids[1], user="anna", timestamp=1.0)])
    assert learnt_seq(tmp_path, "default", (1, 1)) == 0
    note_learnt(tmp_path, store, settings(), (1, 1))
    books.events.add([Event("like", catalog.ids[2], user="anna", timestamp=2.0)])
    note_learnt(tmp_path, store, settings(), (1, 2))
    assert learnt_seq(tmp_path, "default", (1, 2)) == 1, "nothing new was read"
    note_learnt(tmp_path, store, settings(learning={"rounds": True}), (1, 3))
    assert learnt_seq(tmp_path, "default", (1, 3)) == 2
    store.close()


def test_what_a_later_round_read_may_be_asked_of_the_adapter_before(
    store: ServingStore, catalog: ItemCatalog, tmp_path: Path
) -> None:
    """Else nothing would be left to replay where one round follows the other."""
    books, wanted = store.of("default"), settings(learning={"rounds": True})
    for number, place in enumerate(((1, 1), (1, 2), (2, 2))):
        books.events.add([Event("like", catalog.ids[number], user="anna", timestamp=1.0 + number)])
        note_learnt(tmp_path, store, wanted, place)
    found = {place: learnt_seq(tmp_path, "default", place) for place in ((1, 0), (1, 1), (1, 5), (2, 1), (2, 2))}
    assert found == {(1, 0): 0, (1, 1): 1, (1, 5): 2, (2, 1): 2, (2, 2): 3}
    note_learnt(tmp_path, store, wanted, (1, 1))  # another try, with what came since
    assert learnt_seq(tmp_path, "default", (1, 1)) == 3
    store.close()


@pytest.mark.parametrize(("kept", "seq"), [('{"format": 1, "tenants": {"default": 7}}', 7), ("{", 1)])
def test_an_older_note_counts_for_every_adapter_and_a_damaged_one_hides_nothing(
    store: ServingStore, catalog: ItemCatalog, tmp_path: Path, kept: str, seq: int
) -> None:
    store.of("default").events.add([Event("like", catalog.ids[0], user="anna", timestamp=1.0)])
    (tmp_path / "learnt.json").write_text(kept)
    note_learnt(tmp_path, store, settings(learning={"rounds": True}), (1, 9))
    assert learnt_seq(tmp_path, "default", (1, 1)) == seq
    store.close()


def test_imported_rows_make_histories_whatever_types_are_liked(
    store: ServingStore, table: InteractionTable, catalog: ItemCatalog, tmp_path: Path
) -> None:
    seed_imported(tmp_path, store.of("default"), table)
    only_likes = settings(feedback={"positive": ["like"], "negative": ["imported"]})
    assert codes(training_histories(store, only_likes, catalog)) == [[3, 1], [2]]
    store.close()


@pytest.mark.parametrize("values", [{"type": "imported"}, {"id": "import-7"}])
def test_nobody_else_may_send_what_looks_imported(place: Place, served: Served, values: dict[str, str]) -> None:
    async def work(one: TenantService) -> None:
        with pytest.raises(DataError, match="kept for imported rows"):
            await one.intake.add_events([Event(**{"type": "like", "item": "i1", "user": "anna", **values})])
        assert one.tenant.store.log.last_seq() == 0

    place.with_tenant(work)


def test_people_of_two_tenants_are_two_people(store: ServingStore, catalog: ItemCatalog) -> None:
    for tenant, code in (("a", 1), ("b", 2)):
        store.of(tenant).events.add([Event("like", catalog.ids[code], user="anna", timestamp=1.0)])
    both = settings(tenants=[{"name": "a"}, {"name": "b"}], learning={"rounds": True})
    assert codes(training_histories(store, both, catalog)) == [[1], [2]]
    store.close()


def test_what_comes_while_rows_are_read_counts_as_learnt(
    catalog: ItemCatalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be among them, and a replay must not ask it."""
    (tmp_path / "serving.toml").write_text("format = 1\n[learning]\nrounds = true\n")
    store = ServingStore.open(store_url(tmp_path, "sqlite"))

    def read(*args: Any) -> list[np.ndarray]:
        store.of("default").events.add([Event("like", catalog.ids[1], user="late", timestamp=1.0)])
        return training_histories(*args)

    monkeypatch.setattr("fedrec_client.trained.training_histories", read)
    node: Any = SimpleNamespace(serving=tmp_path)
    node.owner = node
    assert codes(_from_store(node, catalog, (1, 2))) == [[1]]
    assert learnt_seq(tmp_path, "default", (1, 2)) == store.of("default").log.last_seq() == 1
    store.close()
