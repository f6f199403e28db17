"""One suite over every database that a partner's serving store may lie in: SQLite, and PostgreSQL where installed."""

import dataclasses
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Text, func, insert, select

from fedrec.errors import ConfigError, DataError, StorageError
from fedrec.recommend.shelf import Item
from fedrec_client.serving.records import Event, Shown, User
from fedrec_client.serving.store.click_book import ArmClicks
from fedrec_client.serving.store.event_book import AddedEvents, add_events
from fedrec_client.serving.store.key_book import ApiKey
from fedrec_client.serving.store.reading_book import Reading
from fedrec_client.serving.store.store import ServingStore, TenantStore, store_url
from fedrec_client.serving.store.tables import EVENTS, METADATA
from fedrec_client.serving.store.writer import BusyError, Writer

PERSON = "anna-4711"


@pytest.fixture
def store(url: str) -> Iterator[ServingStore]:
    opened = ServingStore.open(url)
    yield opened
    opened.close()


@pytest.fixture
def shop(store: ServingStore) -> TenantStore:
    return store.of("shop")


@pytest.fixture
def writer(store: ServingStore) -> Iterator[Writer]:
    opened = store.writer()
    yield opened
    opened.close()


def event(item: str = "i1", user: str = "u1", **more: Any) -> Event:
    return Event(**{"type": "click", "item": item, "user": user, "timestamp": 100.0, **more})


def shown(name: str, user: str = "u1", **more: Any) -> Shown:
    values = {"session": "", "at": 1000.0, "arm": "a", "adapter": "round-1", "items": ("i1", "i2"), "sources": ()}
    return Shown(id=name, user=user, **{**values, **more})


def fill(store: TenantStore, user: str, session: str) -> None:
    """A row in every table that knows users."""
    store.users.put([User(user, {"age": 3}, "a comment", ("news",))])
    store.events.add([event(user=user, session=session, ranking=f"r {user}"), event(user="", session=session)])
    store.shown.add([shown(f"r {user}", user, session=session), shown(f"s {user}", "", session=session)])
    store.blocks.block(user, "item", "i3")
    store.blocks.block(user, "category", "War")
    store.opinions.add(user, f"r {user}", "i1", True, "so it is", 5.0)
    store.opinions.add("", f"r {user}", "i2", False, "", 6.0)
    store.readings.put({user: Reading(b"\x00d", "hash", b"\xffcontent")})


def everything(store: TenantStore) -> dict[str, Any]:
    """All that the books tell, except of one user."""
    return {
        "items": list(store.items.every()),
        "users": store.users.page(100)[0],
        "events": store.events.find_raw(100)[0],
        "log": list(store.log.every_by_user()) + [one.event for one in store.log.since(0, 100)],
        "shown": store.shown.latest(100),
        "clicks": store.clicks.by_arm(),
        "rules": (store.rules.every(), store.rules.version()),
        "opinions": store.opinions.latest(100),
        "readings": store.readings.get(["u1", PERSON]),
        "counts": (store.items.count(), store.users.count(), store.events.count(), store.opinions.counts()),
    }


def test_what_was_written_is_there_after_a_restart(store: ServingStore, url: str) -> None:
    fill(store.of("shop"), "u1", "s1")
    again = ServingStore.open(url)
    assert everything(again.of("shop")) == everything(store.of("shop"))
    again.close()


def test_tenants_cannot_see_or_change_each_other(store: ServingStore) -> None:
    shop, music = store.of("shop"), store.of("music")
    empty = everything(music)
    shop.items.put([Item("i1", "A title")])
    shop.rules.put("pin", {"item": "i1"})
    fill(shop, "u1", "s1")
    assert everything(music) == empty
    assert not any((music.items.get("i1"), music.users.get("u1"), music.rules.get("pin"), music.shown.find("r u1")))
    assert (music.events.history("u1"), music.events.session_history("s1"), music.log.last_seq()) == ([], [], 0)
    assert music.events.find(10) == ([], "")
    assert not music.blocks.of("u1").items
    before = everything(shop)
    assert not music.items.remove("i1")
    assert not music.rules.remove("pin")
    assert not music.blocks.unblock("u1", "item", "i3")
    assert not any((music.events.remove("u1", "i1"), music.shown.remove_before(9e9), music.readings.forget_all_but("")))
    assert set(music.users.remove("u1").values()) == {0}
    assert everything(shop) == before
    fill(music, "u1", "s1")  # the same ids are others there
    assert music.events.add([event(id="x")]) == AddedEvents(1)
    assert shop.events.add([event(id="x")]) == AddedEvents(1)
    shop.events.remove("u1", "i1", "click")
    assert len(music.events.history("u1")) == 2


def test_items_are_put_over_and_found_by_any_letter(shop: TenantStore) -> None:
    tea = Item(
        "tea", "Grüner TEE 100%", "a_b \\ ÖL", ("Drinks", "New"), 5.5, True, {"price": 3.5, "tags": ["x", {"y": None}]}
    )
    shop.items.put([tea, Item("cup"), Item("cup", "A cup")])
    assert (shop.items.get("tea"), shop.items.get("cup"), shop.items.count()) == (tea, Item("cup", "A cup"), 2)
    for text, found in {
        "grüner": 1,
        "öl": 1,
        "0%": 1,
        "A_B": 1,
        "b \\ ": 1,
        "_": 1,
        "%": 1,
        "CU": 1,
        "a": 2,
        "z": 0,
    }.items():
        assert len(shop.items.page(10, text=text)[0]) == found, text
    shop.items.put([dataclasses.replace(tea, title="Water")])
    assert shop.items.page(10, text="grüner") == ([], "")
    assert shop.items.remove("tea")
    assert not shop.items.remove("tea")
    assert list(shop.items.every()) == [Item("cup", "A cup")]


@pytest.mark.parametrize(
    "item", [Item("i", "4711 \ud800"), Item("i", "4711 \x00"), Item("i", fields={"n": float("nan")}), Item("i" * 257)]
)
def test_what_no_database_takes_is_refused_in_words_without_it(shop: TenantStore, item: Item) -> None:
    with pytest.raises(DataError) as found:
        shop.items.put([Item("good"), item])
    assert all(word not in str(found.value) for word in ("4711", "nan", "iii"))
    assert shop.items.count() == 0
    with pytest.raises(DataError):
        shop.events.add([event(), event(value=1e300)])
    assert shop.events.count() == 0


def name_of(kind: str, row: Any) -> str:
    match kind:
        case "find":
            return row.user
        case "find_raw":
            return "new" if row.item == "new" else row.id
        case _:
            return row.id


def test_pages_show_each_row_once_even_while_rows_are_added(shop: TenantStore) -> None:
    names = [f"{prefix}{number}" for prefix in ("a", "B", "ä") for number in range(7)]
    shop.items.put([Item(name) for name in names])
    shop.users.put_new(names)
    shop.events.add([event(f"i{number % 4}", name) for number, name in enumerate(names)] * 2)
    kinds = {
        "items": lambda cursor: shop.items.page(4, cursor),
        "users": lambda cursor: shop.users.page(4, cursor),
        "find": lambda cursor: shop.events.find(4, cursor),
        "find_raw": lambda cursor: shop.events.find_raw(4, cursor),
    }
    for kind, page in kinds.items():
        ids, cursor = [], ""
        while True:
            rows, cursor = page(cursor)
            ids += [name_of(kind, row) for row in rows]
            shop.items.put([Item(f"new {len(ids)}")])
            shop.users.put_new([f"new {len(ids)}"])
            shop.events.add([event("new", f"new {len(ids)}")])
            if not cursor:
                break
        old = [one for one in ids if not one.startswith("new")]
        assert len(old) == len(set(old)) == (2 * len(names) if kind == "find_raw" else len(names)), kind
        with pytest.raises(DataError, match="cursor"):
            page("bm9uc2Vuc2U")
    assert shop.users.page(1)[0][0].id == "B0"  # bytes in their order, in every database


def test_a_page_that_ends_with_the_rows_may_have_an_empty_one_behind_it(shop: TenantStore) -> None:
    shop.users.put_new(["a", "b"])
    rows, cursor = shop.users.page(2)
    assert len(rows) == 2
    assert shop.users.page(2, cursor) == ([], "")


def test_new_users_do_not_change_those_that_are_there(shop: TenantStore) -> None:
    known = User("u1", {"age": 3}, "hm", ("news",))
    shop.users.put([known])
    shop.users.put_new(["u1", "u2", "u2"])
    assert (shop.users.get("u1"), shop.users.get("u2"), shop.users.count()) == (known, User("u2"), 2)


def test_an_event_that_is_sent_again_counts_once(shop: TenantStore) -> None:
    first = shop.events.add([event(id="x"), event(id="x"), event(), event()])
    assert first == AddedEvents(3, ("x",))
    assert shop.events.add([event(id="x", item="i9"), event(id="y")]) == AddedEvents(1, ("x",))
    assert shop.events.count() == 4
    assert [past.item for past in shop.events.history("u1")] == ["i1"] * 4
    ids = [one.id for one in shop.events.find_raw(9)[0]]
    assert len(set(ids)) == 4
    assert all(ids)


def test_gorses_add_and_set(shop: TenantStore) -> None:
    shop.events.add(
        [event(value=2.0, comment="old", labels={"l": 1}), event(value=3.0, timestamp=50.0, comment="older")]
    )
    (found,), _ = shop.events.find(9)
    assert (found.value, found.timestamp, found.comment, found.labels) == (5.0, 50.0, "old", {"l": 1})
    assert found.updated > 1e9
    changed = [event(value=7.0, timestamp=10.0), event(value=8.0, timestamp=11.0), event("i2")]
    assert shop.events.add(changed, mode="set").accepted == 3
    found_of = {one.item: (one.value, one.timestamp) for one in shop.events.find(9)[0]}
    assert found_of == {"i1": (8.0, 11.0), "i2": (1.0, 100.0)}
    assert shop.events.count() == 2


def test_set_replaces_nothing_but_the_same_type_user_and_item(shop: TenantStore) -> None:
    nobody = {"user": "", "session": "s1"}
    shop.events.add(
        [event(), event(type="like"), event(user="u2"), event("i2"), event(**nobody), event(user="", session="s2")]
    )
    shop.events.add([event(id="new"), event(**nobody, id="n")], mode="set")
    assert shop.events.count() == 6
    assert shop.events.add([event(id="new", value=9.0)], mode="set") == AddedEvents(0, ("new",))
    assert {one.value for one in shop.events.find(9)[0]} == {1.0}


def test_events_are_found_by_type_user_and_item_and_go_by_them(shop: TenantStore) -> None:
    rows = [event(i, u, type=t) for i in ("i1", "i2") for u in ("u1", "u2") for t in ("click", "like")]
    shop.events.add([*rows, event("i1", "", session="s")])
    for find in (shop.events.find, shop.events.find_raw):
        found, cursor = find(9, type="like", user="u2", item="i1")
        assert [(one.type, one.user, one.item, cursor) for one in found] == [("like", "u2", "i1", "")]
        assert len(find(9, user="u1")[0]) == 4
    assert (len(shop.events.find(99)[0]), len(shop.events.find_raw(99)[0])) == (8, 9)
    assert shop.events.remove("u1", "i1", "like") == 1
    assert shop.events.remove("u1", "i1") == 1
    assert shop.events.remove("u1", "i1") == 0
    assert shop.events.count() == 7


def test_histories_are_in_order_of_time_then_arrival(shop: TenantStore) -> None:
    times = {"c": 3.0, "a": 1.0, "b1": 2.0, "b2": 2.0, "a2": 1.0}
    shop.events.add([event(name, timestamp=time, session="s") for name, time in times.items()])
    for history in (shop.events.history("u1"), shop.events.session_history("s")):
        assert [past.item for past in history] == ["a", "a2", "b1", "b2", "c"]
    assert [past.item for past in shop.events.history("u1", 2)] == ["b2", "c"]
    assert shop.events.history("") == shop.events.session_history("") == []


def test_the_log_is_read_on_from_a_number_that_is_never_used_again(shop: TenantStore) -> None:
    shop.events.add([event(f"i{n}") for n in range(5)])
    first = shop.log.since(0, 3)
    rest = shop.log.since(first[-1].seq, 99)
    assert [one.event.item for one in first + rest] == [f"i{n}" for n in range(5)]
    assert shop.log.last_seq() == rest[-1].seq
    shop.events.remove("u1", "i4")
    shop.events.add([event("i5")])
    assert [one.event.item for one in shop.log.since(rest[-1].seq, 99)] == ["i5"]


def test_items_are_counted_and_rows_read_user_by_user(shop: TenantStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedrec_client.serving.store.event_log._STEP", 3)
    shop.events.add(
        [event(f"i{n % 2}", f"u{n % 3}", timestamp=float(9 - n)) for n in range(9)] + [event("i1", "", session="s")]
    )
    assert [tuple(one) for one in shop.log.counts_by_item()] == [("i0", 5, 9.0), ("i1", 5, 100.0)]
    assert [tuple(one) for one in shop.log.counts_by_item(8.0)] == [("i0", 1, 9.0), ("i1", 2, 100.0)]
    assert shop.log.counts_by_item(types=["like"]) == []
    rows = list(shop.log.every_by_user())
    assert [(row.user, row.timestamp) for row in rows] == sorted((f"u{n % 3}", 9.0 - n) for n in range(9))


def test_clicks_by_arm_and_impressions(shop: TenantStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedrec_client.serving.store.click_book.CHUNK", 2)
    shop.shown.add(
        [shown("r1"), shown("r2", "u2", arm="b", at=2000.0), shown("r3", "", session="s"), shown("r0", at=1.0)]
    )
    shop.shown.add([shown("r1", arm="changed"), shown("r4", "u4", at=3000.0, arm="b", adapter="round-2")])
    shop.events.add(
        [
            event("i1", "u9", ranking="r1"),  # names it
            event("i1", "u1", timestamp=1001.0),  # again, without a name
            event("i9", "u1", ranking="r1"),  # was not shown
            event("i2", "u2", timestamp=2000.0 + 1801),  # too late
            event("i1", "u2", timestamp=1999.0),  # too early
            event("i2", "", session="s", timestamp=1100.0),
            event("i2", "u4", timestamp=3001.0, type="read"),
            event("i1", "u4", timestamp=3001.0, ranking="r9"),  # of another list
        ]
    )
    expected = [ArmClicks("a", "round-1", 2, 4, 2, 2), ArmClicks("b", "round-1", 1, 2, 0, 0)]
    assert shop.clicks.by_arm(10.0, ["click"]) == [*expected, ArmClicks("b", "round-2", 1, 2, 0, 0)]
    assert shop.clicks.by_arm(10.0) == [*expected, ArmClicks("b", "round-2", 1, 2, 1, 1)]
    rows = shop.clicks.impressions(0.0, 3)
    assert [(row.shown, set(row.clicked)) for row in rows] == [("r0", {"i1"}), ("r1", {"i1"}), ("r3", {"i2"})]
    assert [one.id for one in shop.shown.latest(2)] == ["r4", "r2"]
    assert shop.shown.find("r1") == shown("r1")
    assert shop.shown.remove_before(1000.0) == 1


def test_rules_have_a_version_that_goes_up(shop: TenantStore) -> None:
    assert (shop.rules.version(), shop.rules.every()) == (0, {})
    shop.rules.put("pin", {"items": ["i1"]})
    shop.rules.put("pin", {"items": ["i2"]})
    shop.rules.put("hide", None)
    assert shop.rules.every() == {"hide": None, "pin": {"items": ["i2"]}}
    assert (shop.rules.version(), shop.rules.get("pin")) == (3, {"items": ["i2"]})
    assert shop.rules.remove("pin")
    assert not shop.rules.remove("pin")
    assert shop.rules.version() == 4


def test_blocks_opinions_and_readings(shop: TenantStore) -> None:
    for _ in range(2):
        shop.blocks.block("u1", "item", "i1")
    shop.blocks.block("u1", "category", "War")
    assert (shop.blocks.of("u1").items, shop.blocks.of("u1").categories) == ({"i1"}, {"War"})
    assert shop.blocks.unblock("u1", "item", "i1")
    assert not shop.blocks.of("u1").items
    for at, is_helpful in enumerate((True, False)):
        shop.opinions.add("u1", "r", "i1", is_helpful, "", float(at))
    shop.opinions.add("", "r", "i1", True, "thanks", 9.0)
    assert shop.opinions.counts() == {True: 1, False: 1}
    assert [one.comment for one in shop.opinions.latest(1)] == ["thanks"]
    readings = {f"u{n}": Reading(b"d", f"h{n % 2}", bytes([n, 255])) for n in range(4)}
    shop.readings.put(readings)
    assert shop.readings.get(["u0", "u3", "u9"]) == {"u0": readings["u0"], "u3": readings["u3"]}
    assert shop.readings.forget_all_but("h1") == 2
    assert set(shop.readings.get(readings)) == {"u1", "u3"}


def test_a_key_opens_what_it_is_for_until_it_is_revoked(store: ServingStore, url: str) -> None:
    secret = store.keys.create("shop", "web", {"read", "write"})
    found = store.keys.find(secret)
    assert found is not None
    assert (found.tenant, found.name, found.scopes) == ("shop", "web", {"read", "write"})
    assert secret.startswith("fk_")
    assert len(secret) >= 45
    for case in (
        {"tenant": "music", "name": "web", "scopes": {"read"}},
        {"tenant": "shop", "name": "x", "scopes": set()},
    ):
        with pytest.raises(ConfigError):
            store.keys.create(**case)
    with pytest.raises(ConfigError, match="scopes"):
        store.keys.create("shop", "x", {"root"})  # type: ignore[arg-type]
    assert store.keys.every() == [found]
    assert not any(secret in str(row) for row in rows_of_every_table(store))
    assert (store.keys.find(secret + "x"), store.keys.find("")) == (None, None)
    assert store.keys.revoke("web")
    assert not store.keys.revoke("web")
    assert store.keys.find(secret) is None
    assert isinstance(found, ApiKey)


def rows_of_every_table(store: ServingStore) -> list[tuple[Any, ...]]:
    with store._database.begin() as connection:
        return [tuple(row) for table in METADATA.tables.values() for row in connection.execute(select(table))]


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
    assert removed == {"users": 1, "events": 3, "shown": 2, "blocks": 2, "opinions": 2, "readings": 1}
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
    assert [one.events for one in shop.log.counts_by_item()] == [20] * 8


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
