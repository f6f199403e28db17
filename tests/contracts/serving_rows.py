"""Rows of every book of the serving store."""

from typing import Any

from sqlalchemy import select

from fedrec.support.matching import Match
from fedrec_client.serving.records import Event, Shown, User
from fedrec_client.serving.store.reading_book import Reading
from fedrec_client.serving.store.store import ServingStore, TenantStore
from fedrec_client.serving.store.support_book import Handover, add_handover
from fedrec_client.serving.store.tables import METADATA

PERSON = "anna-4711"


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
    with store.support._database.write() as connection:
        name = f"h {store.support._tenant} {user}"
        add_handover(connection, store.support._tenant, Handover(name, user, f"{user} asks", (Match("a", 0.5),), 7.0))


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
        "handovers": store.support.handovers(100, is_open=True),
        "counts": (store.items.count(), store.users.count(), store.events.count(), store.opinions.counts()),
    }


def rows_of_every_table(store: ServingStore) -> list[tuple[Any, ...]]:
    with store._database.begin() as connection:
        return [tuple(row) for table in METADATA.tables.values() for row in connection.execute(select(table))]
