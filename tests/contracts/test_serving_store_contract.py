"""One suite over every database that a partner's serving store may lie in: SQLite, and PostgreSQL where installed."""

import dataclasses
from typing import Any

import pytest

from fedrec.errors import ConfigError, DataError
from fedrec.recommend.shelf import Item
from fedrec_client.serving.records import User
from fedrec_client.serving.store.click_book import ArmClicks
from fedrec_client.serving.store.event_book import AddedEvents
from fedrec_client.serving.store.key_book import ApiKey
from fedrec_client.serving.store.reading_book import Reading
from fedrec_client.serving.store.store import ServingStore, TenantStore
from tests.contracts.serving_rows import event, everything, fill, rows_of_every_table, shown


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
    assert [tuple(one) for one in shop.log.counts_by_item()] == [("i0", (5,)), ("i1", (5,))]
    assert [tuple(one) for one in shop.log.counts_by_item([8.0, 5.0])] == [("i0", (1, 3, 5)), ("i1", (2, 3, 5))]
    assert shop.log.latest_timestamp() == 100.0
    kind = event().type
    for types, without in ((["like"], []), (None, [kind]), ([kind], [kind])):
        assert shop.log.counts_by_item(types=types, without=without) == []
        assert shop.log.latest_timestamp(types, without) is None
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
