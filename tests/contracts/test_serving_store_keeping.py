"""What the serving store deletes, exports, upgrades and writes together; over every database."""

import dataclasses
import json
import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Text, func, insert, select

from fedrec.errors import ConfigError, DataError, StorageError
from fedrec_client.serving.records import User
from fedrec_client.serving.store.event_book import AddedEvents, add_events
from fedrec_client.serving.store.store import ServingStore, TenantStore, store_url
from fedrec_client.serving.store.tables import EVENTS, METADATA
from fedrec_client.serving.store.writer import BusyError, Writer
from tests.contracts.serving_rows import PERSON, event, everything, fill


def test_of_a_deleted_user_no_table_has_a_word(store: ServingStore, shop: TenantStore) -> None:
    fill(store.of("music"), PERSON, "session-4711")
    fill(shop, "u2", "s2")
    others = everything(shop)
    for user in (PERSON, "u2"):
        shop.events.add([event(user=user, session="shared", id=f"shared {user}")])
    shop.events.add([event(user="", session="shared", id="whose")])
    fill(shop, PERSON, "session-4711")
    told = shop.users.export(PERSON)
    removed = shop.users.remove(PERSON)
    assert removed == {kind: len(rows) for kind, rows in told.items()}
    assert removed == {"users": 1, "events": 3, "shown": 2, "blocks": 2, "opinions": 2, "readings": 1, "handovers": 1}
    with store._database.begin() as connection:
        for table in METADATA.tables.values():
            for column in (one for one in table.columns if isinstance(one.type, Text)):
                named = column.contains(PERSON) | column.contains("session-4711")
                if "tenant" in table.columns:
                    named &= table.c.tenant == "shop"
                assert connection.execute(select(func.count()).select_from(table).where(named)).scalar() == 0, column
    assert {one.id for one in shop.events.find_raw(9)[0]} >= {"whose", "shared u2"}
    assert everything(shop)["shown"] == others["shown"]
    assert store.of("music").users.export(PERSON).keys() == told.keys()
    assert len(store.of("music").events.history(PERSON)) == 1


def test_every_table_that_knows_users_is_deleted_from_and_exported(shop: TenantStore) -> None:
    """A table that is added later must not be forgotten."""
    knowing = {name for name, table in METADATA.tables.items() if "user" in table.columns} | {"users"}
    assert set(shop.users.export("nobody")) == set(shop.users.remove("nobody")) == knowing


def test_an_export_has_everything_as_json(shop: TenantStore) -> None:
    fill(shop, PERSON, "s1")
    told = json.loads(json.dumps(shop.users.export(PERSON)))
    assert told["users"] == [{"id": PERSON, "labels": {"age": 3}, "comment": "a comment", "subscribe": ["news"]}]
    assert [(one["item"], one["user"], one["session"]) for one in told["events"]] == [
        ("i1", PERSON, "s1"),
        ("i1", "", "s1"),
    ]
    assert {tuple(one["items"]) for one in told["shown"]} == {("i1", "i2")}
    assert told["readings"] == [{"user": PERSON, "digest": "AGQ=", "reading_hash": "hash", "content": "/2NvbnRlbnQ="}]


def test_reprs_and_errors_name_no_values(store: ServingStore, shop: TenantStore) -> None:
    fill(shop, PERSON, "s1")
    shop.events.add([event("item-4711", PERSON, id="x")])
    told = [everything(shop), shop.events.history(PERSON), shop.log.counts_by_item(), shop.blocks.of(PERSON), shop]
    told += [
        shop.log.since(0, 9),
        shop.clicks.impressions(0.0, 9),
        shop.events.add([event(id="x")]),
        list(shop.log.every_by_user()),
    ]
    told[0]["readings"] = list(told[0]["readings"].values())
    assert "4711" not in repr(told)
    with store._database.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE users RENAME TO gone")
    with pytest.raises(StorageError) as found:
        shop.users.put([User(PERSON)])
    assert "4711" not in str(found.value)
    assert found.value.__suppress_context__


def test_models_and_migrations_lead_to_the_same_tables(store: ServingStore) -> None:
    with store._database.begin() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []


def test_every_key_and_index_begins_with_the_tenant() -> None:
    for table in METADATA.tables.values():
        first = {next(iter(index.columns)).name for index in table.indexes}
        keyed = table.name in ("events", "keys") or next(iter(table.primary_key)).name == "tenant"
        assert keyed, table.name
        assert first <= {"tenant"}, table.name


def test_tables_of_a_newer_fedrec_are_refused(store: ServingStore, url: str) -> None:
    with store._database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(ConfigError, match="newer fedrec"):
        ServingStore.open(url)


def test_several_may_open_an_empty_database_at_once(url: str) -> None:
    opened: list[ServingStore] = []
    threads = [threading.Thread(target=lambda: opened.append(ServingStore.open(url))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 4
    for one in opened:
        one.close()


@pytest.mark.parametrize("url", ["nonsense", "oracle://x"])
def test_an_address_that_cannot_be_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"store\.database.*\n.*serving\.toml"):
        ServingStore.open(url)


def test_deleted_rows_are_overwritten_in_the_file(tmp_path: Path) -> None:
    opened = ServingStore.open(store_url(tmp_path, "sqlite"))
    fill(opened.of("shop"), PERSON, "s1")
    opened.of("shop").users.remove(PERSON)
    opened.close()
    assert not [path.name for path in tmp_path.iterdir() if PERSON.encode() in path.read_bytes()]


def test_the_writer_answers_in_order_and_what_it_answered_is_there(writer: Writer, shop: TenantStore) -> None:
    futures = [writer.add_events("shop", [event(id=f"e{n % 60}")]) for n in range(100)]
    futures.append(writer.add_events("shop", [event(id="e0"), event(id="last", value=7.0)], "set"))
    results = [future.result(10) for future in futures]
    assert [one.accepted for one in results] == [1] * 60 + [0] * 40 + [1]
    assert results[60].duplicates == ("e0",)
    assert shop.events.find(9)[0][0].value == 7.0


def test_many_writers_at_once_lose_and_repeat_nothing(writer: Writer, shop: TenantStore) -> None:
    def write(thread: int) -> None:
        for n in range(20):
            writer.add_events("shop", [event(f"i{thread}", f"u{n}")]).result(10)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.events for one in shop.log.counts_by_item()] == [(20,)] * 8


def test_one_that_fails_loses_none_of_the_others(writer: Writer, shop: TenantStore) -> None:
    hold = threading.Event()

    def fail(connection: Connection) -> None:
        add_events(connection, "shop", [event("half")])
        connection.execute(insert(EVENTS).values(tenant=PERSON))

    def quote(connection: Connection) -> None:
        raise ValueError(PERSON)

    held = writer.submit(lambda connection: hold.wait(10))
    good = [writer.add_events("shop", [event(f"g{n}")]) for n in range(3)]
    bad = [writer.submit(fail), writer.add_events("shop", [event(value=1e300)]), writer.submit(quote)]
    good += [writer.add_events("shop", [event(f"g{n}")]) for n in range(3, 6)]
    hold.set()
    assert held.result(10)
    assert [future.result(10) for future in good] == [AddedEvents(1)] * 6
    for future, kind in zip(bad, (StorageError, DataError, StorageError), strict=True):
        with pytest.raises(kind) as found:
            future.result(10)
        assert PERSON not in str(found.value)
    assert sorted(past.item for past in shop.events.history("u1")) == [f"g{n}" for n in range(6)]


def test_a_full_writer_says_so_and_a_closed_one_has_written_all(store: ServingStore, shop: TenantStore) -> None:
    writer, hold = store.writer(waiting=2), threading.Event()
    started = threading.Event()
    held = writer.submit(lambda connection: (started.set(), hold.wait(10)))
    assert started.wait(10)
    waiting = [writer.add_events("shop", [event()]) for _ in range(2)]
    with pytest.raises(BusyError):
        writer.add_events("shop", [event()])
    waiting[1].cancel()
    threading.Timer(0.05, hold.set).start()
    writer.close()
    assert held.done()
    assert waiting[0].result(0) == AddedEvents(1)
    assert shop.events.count() == 1
    with pytest.raises(BusyError):
        writer.add_events("shop", [event()])
    writer.close()


def test_a_database_that_does_not_answer_is_said_to_all_that_wait(
    store: ServingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, hold, started = store.writer(), threading.Event(), threading.Event()
    writer.submit(lambda connection: (started.set(), hold.wait(10)))
    assert started.wait(10)
    waiting = [writer.add_events("shop", [event()]) for _ in range(3)]

    def fails() -> None:
        raise StorageError("the serving store's database fails")

    monkeypatch.setattr(writer._database, "write", fails)
    hold.set()
    for future in waiting:
        with pytest.raises(StorageError):
            future.result(10)
    writer.close()


def test_no_book_is_two(shop: TenantStore) -> None:
    for book in (getattr(shop, field.name) for field in dataclasses.fields(shop)):
        assert len([name for name in dir(type(book)) if not name.startswith("_")]) <= 10, type(book)
