"""Gorse's own client for Python, unchanged, against this service on a real port."""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import uvicorn
from gorse import AsyncGorse, Gorse, GorseException

from fedrec_client.serving.api.gorse import routes
from fedrec_client.serving.http.server import listen
from fedrec_client.serving.service import Served, Service
from fedrec_client.serving.settings import HttpSettings
from tests.serving.conftest import Place

_START_S = 60.0


@dataclass(frozen=True)
class Address:
    """Where to ask, and with which key."""

    url: str
    key: str


@pytest.fixture
def listening(place: Place) -> Iterator[Address]:
    """The service in a thread, opened in the loop that serves it."""
    bound = listen(HttpSettings(port=0))
    told: list[tuple[uvicorn.Server, str]] = []
    is_open, failed = threading.Event(), list[BaseException]()

    async def serve(service: Service) -> None:
        config = uvicorn.Config(place.app(service, routes), log_level="critical", lifespan="off", ws="none")
        told.append((uvicorn.Server(config), service.store.keys.create("default", "test", {"admin"})))
        is_open.set()
        await told[0][0].serve(sockets=[bound])

    def run() -> None:
        try:
            place.run(serve)
        except BaseException as error:  # noqa: BLE001 -- raised where the test ends
            failed.append(error)
            is_open.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert is_open.wait(_START_S)
        assert not failed, failed
        yield Address(f"http://127.0.0.1:{bound.getsockname()[1]}", told[0][1])
    finally:
        for server, _ in told:
            server.should_exit = True
        thread.join()
        bound.close()
    assert not failed, failed


ITEMS = [
    {
        "ItemId": f"z{n}",
        "IsHidden": False,
        "Categories": ["Zoo"],
        "Timestamp": f"2020-01-0{n + 1}T00:00:00Z",
        "Labels": {"embedding": [0.5, n], "topics": ["Animals"]},
        "Comment": f"Zebra {n}",
    }
    for n in range(3)
]
USERS = [{"UserId": name, "Labels": {"gender": name[0], "tags": ["x"]}, "Comment": name} for name in ("anna", "bert")]


def feedback(item: str, user: str = "anna", kind: str = "like") -> dict[str, Any]:
    return {"FeedbackType": kind, "UserId": user, "ItemId": item, "Value": 1, "Timestamp": "2020-01-01 10:00:00"}


def test_a_program_that_uses_gorse_works_as_it_is(listening: Address, served: Served) -> None:
    client, ids = Gorse(listening.url, listening.key, timeout=30), served.catalog.ids
    assert client.insert_users(USERS) == {"RowAffected": 2}
    assert client.insert_user({"UserId": "cleo", "Labels": None, "Comment": ""}) == {"RowAffected": 1}
    assert client.get_user("anna") == USERS[0]
    for item in ITEMS:
        assert client.insert_item(item) == {"RowAffected": 1}
        assert client.get_item(str(item["ItemId"])) == item
    assert client.insert_feedbacks([feedback(item) for item in ids[:3]]) == {"RowAffected": 3}
    assert client.insert_feedback("star", "anna", ids[0], "2020-01-02", 5.0) == {"RowAffected": 1}
    assert [row["ItemId"] for row in client.list_feedbacks("anna", "star")] == []
    assert [(row["ItemId"], row["Value"]) for row in client.list_feedbacks("star", "anna")] == [(ids[0], 5)]

    first = client.get_recommend("anna", n=4)
    assert len({one.id for one in first} - set(ids[:3])) == 4
    assert [one.score for one in first] == sorted((one.score for one in first), reverse=True)
    assert [one.id for one in client.get_recommend("anna", n=2, offset=2)] == [one.id for one in first[2:]]
    assert {one.id for one in client.get_recommend("anna", "Zoo")} == {"z0", "z1", "z2"}
    shown = client.get_recommend("anna", n=4, write_back_type="read", write_back_delay="0s")
    again = client.get_recommend("anna", n=4, write_back_type="read", write_back_delay="1h")
    assert not {one.id for one in shown} & {one.id for one in again}
    assert [one.id for one in client.get_recommend("anna", n=4)] == [one.id for one in again]
    assert len(client.session_recommend([feedback(ids[0])], n=3)) == 3
    near = client.get_neighbors(ids[0], n=4)
    assert client.get_neighbors(ids[0], n=2, offset=2) == near[2:]

    assert client.update_item("z0", comment="Yak", is_hidden=True) == {"RowAffected": 1}
    assert client.get_item("z0") == {**ITEMS[0], "Comment": "Yak", "IsHidden": True}
    assert "z0" not in {one.id for one in client.get_recommend("anna", n=100)}
    assert [item["ItemId"] for item in client.search_items("zebra")] == ["z1", "z2"]

    assert client.delete_feedback("anna", ids[0]) == {"RowAffected": 2}
    assert client.delete_item("z1") == client.delete_user("cleo") == client.delete_user("anna") == {"RowAffected": 1}
    for ask in (lambda: client.get_item("z1"), lambda: client.get_user("anna")):
        with pytest.raises(GorseException) as told:
            ask()
        assert told.value.status_code == 404
    with pytest.raises(GorseException) as told:
        Gorse(listening.url, "wrong").get_user("bert")
    assert (told.value.status_code, told.value.message) == (401, "unauthorized")


def test_cursors_go_through_everything_once(listening: Address, served: Served) -> None:
    client = Gorse(listening.url, listening.key, timeout=30)
    client.insert_users([{"UserId": f"u{n}"} for n in range(7)])
    client.insert_feedbacks([feedback(item, f"u{n}") for n in range(7) for item in served.catalog.ids[:3]])

    def all_of(page: Any, n: int) -> list[dict[str, Any]]:
        rows, cursor = page(n)
        while cursor:
            more, cursor = page(n, cursor)
            rows += more
        return list(rows)

    assert [user["UserId"] for user in all_of(client.get_users, 3)] == [f"u{n}" for n in range(7)]
    assert sorted(item["ItemId"] for item in all_of(client.get_items, 9)) == sorted(served.catalog.ids)
    keys = [(row["UserId"], row["ItemId"]) for row in all_of(client.get_feedbacks, 4)]
    assert len(keys) == len(set(keys)) == 21


def test_the_client_for_asyncio_works_too(listening: Address, served: Served) -> None:
    ids = served.catalog.ids

    async def work() -> None:
        client = AsyncGorse(listening.url, listening.key)
        assert await client.insert_users(USERS) == {"RowAffected": 2}
        assert await client.insert_item(ITEMS[0]) == {"RowAffected": 1}
        assert await client.insert_feedbacks([feedback(ids[0]), feedback(ids[1])]) == {"RowAffected": 2}
        assert await client.insert_feedback("star", "anna", ids[2], "2020-01-01") == {"RowAffected": 1}
        lists = await asyncio.gather(*[client.get_recommend("anna", n=5) for _ in range(8)])
        assert len({tuple(one.id for one in found) for found in lists}) == 1
        assert not {one.id for one in lists[0]} & set(ids[:3])
        assert [one.id for one in await client.get_recommend("anna", "Zoo", write_back_type="read")] == ["z0"]
        assert await client.get_recommend("anna", "Zoo") == []
        assert len(await client.session_recommend([feedback(ids[0])], n=3)) == 3
        assert len(await client.get_neighbors(ids[0], n=3)) == 3
        assert [row["ItemId"] for row in await client.list_feedbacks("star", "anna")] == [ids[2]]
        assert await client.update_item("z0", labels=["tame"], timestamp="2021-01-01") == {"RowAffected": 1}
        assert await client.get_item("z0") == {**ITEMS[0], "Labels": ["tame"], "Timestamp": "2021-01-01T00:00:00Z"}
        assert (await client.get_items(1))[1]
        assert len((await client.get_feedbacks(10))[0]) == 4
        assert [user["UserId"] for user in (await client.get_users(10))[0]] == ["anna", "bert"]
        assert [item["ItemId"] for item in await client.search_items("ZEBRA")] == ["z0"]
        assert await client.delete_feedback("anna", ids[0]) == {"RowAffected": 1}
        assert await client.delete_item("z0") == await client.delete_user("anna") == {"RowAffected": 1}
        with pytest.raises(GorseException) as told:
            await client.get_user("anna")
        assert told.value.status_code == 404

    asyncio.run(work())
