"""Gorse's API as its documentation and its source have it, asked as a program would ask."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from fedrec_client.serving.api.gorse import routes
from fedrec_client.serving.api.gorse.moments import read_moment, tell_moment
from fedrec_client.serving.records import Query
from fedrec_client.serving.service import Served, Service
from tests.serving.conftest import Place

ITEM = {
    "ItemId": "new",
    "IsHidden": False,
    "Categories": ["War", "Ü"],
    "Timestamp": "2020-02-02T20:20:02.02Z",
    "Labels": {"embedding": [0.1, 2, -3e-9], "topics": ["Space"], "deep": {"a": [None, True]}},
    "Comment": "A Song of War",
}
Ask = Callable[..., Awaitable[Any]]
Work = Callable[[Ask, Service], Awaitable[None]]


def asked(place: Place, work: Work) -> None:
    """Hands over a function that asks, checks the status and gives the JSON, or the text of an error."""

    async def inside(client: httpx.AsyncClient, service: Service) -> None:
        async def ask(method: str, path: str, body: object = None, status: int = 200, **headers: str) -> Any:
            told = await client.request(
                method, path, json=body, headers={name.replace("_", "-"): value for name, value in headers.items()}
            )
            assert told.status_code == status, (method, path, told.status_code, told.text)
            if status != 200:
                assert told.headers["content-type"].startswith("text/plain")
                return told.text
            return told.json()

        await work(ask, service)

    place.call(routes, inside)


def like(item: str, user: str = "anna", kind: str = "like", **more: object) -> dict[str, object]:
    return {"FeedbackType": kind, "UserId": user, "ItemId": item, "Timestamp": "2020-01-01T00:00:00Z", **more}


def test_somebody_likes_and_is_recommended(place: Place, served: Served) -> None:
    first = served.catalog.ids[:4]

    async def work(ask: Ask, service: Service) -> None:
        assert await ask("POST", "/api/feedback", [like(item) for item in first]) == {"RowAffected": 4}
        ids = await ask("GET", "/api/recommend/anna?n=5")
        scored = await ask("GET", "/api/recommend/anna/?n=5&offset=0", x_api_version="2")
        assert [one["Id"] for one in scored] == ids
        assert [set(one) for one in scored] == [{"Id", "Score"}] * 5
        assert not set(ids) & set(first)
        assert await ask("GET", "/api/recommend/anna?n=3&offset=2") == ids[2:]
        assert len(await ask("GET", "/api/recommend/nobody")) == 10
        assert await ask("GET", "/api/recommend/anna?offset=1000") == []

    asked(place, work)


def test_categories_are_all_required_in_query_and_path(place: Place, served: Served) -> None:
    async def work(ask: Ask, service: Service) -> None:
        await ask("POST", "/api/items", [{"ItemId": "x", "Categories": ["War", "Blue"], "Comment": "Song"}])
        assert await ask("GET", "/api/recommend/anna?category=War&category=Blue") == ["x"]
        wars = set(await ask("GET", "/api/recommend/anna/War?n=100"))
        assert wars == set(await ask("GET", "/api/recommend/anna?n=100&category=War&category="))
        assert wars == {i.id for i in service.of("default").tenant.shelf.items() if "War" in i.categories}
        session = [like(served.catalog.ids[0])]
        in_session = await ask("POST", "/api/session/recommend/Blue", session)
        assert [one["Id"] for one in in_session] == ["x"]
        for path in ("latest", "popular"):
            assert [one["Id"] for one in await ask("GET", f"/api/{path}/Blue")] == ["x"]

    asked(place, work)


def test_extras_stand_in_headers_alone(place: Place, served: Served) -> None:
    async def inside(client: httpx.AsyncClient, service: Service) -> None:
        await client.post("/api/feedback", json=[like(served.catalog.ids[0])])
        told = await client.get("/api/recommend/anna?n=3")
        assert told.content == json.dumps(told.json(), separators=(",", ":")).encode()
        headers = {name: value for name, value in told.headers.items() if name.startswith("x-fedrec")}
        ranking = headers.pop("x-fedrec-ranking")
        assert headers == {
            "x-fedrec-arm": "default",
            "x-fedrec-adapter": "round-0001",
            "x-fedrec-sources": "model;n=3",
        }
        while (shown := service.of("default").tenant.store.shown.find(ranking)) is None:
            await asyncio.sleep(0.01)
        assert list(shown.items) == told.json()
        assert "x-fedrec-ranking" not in (await client.get("/api/latest")).headers

    place.call(routes, inside)


def test_written_back_items_come_again_only_until_their_delay(place: Place) -> None:
    async def work(ask: Ask, service: Service) -> None:
        first = await ask("GET", "/api/recommend/anna?n=3&write-back-type=read")
        second = await ask("GET", "/api/recommend/anna?n=3&write-back-type=read&write-back-delay=10m")
        assert not set(first) & set(second)
        assert await ask("GET", "/api/recommend/anna?n=3") == second
        one = service.of("default")
        person = await one.tenant.person("anna")
        assert [tuple(sorted(map(len, (person.seen, person.later))))] == [(3, 3)]
        moments = [moment for moment, *_ in person.later]
        assert max(abs(moment - time.time() - 600) for moment in moments) < 30
        assert [row["ItemId"] for row in await ask("GET", "/api/user/anna/feedback/read")] == sorted(first)
        for _, code, meaning, weight in list(person.later):
            person.later.append((time.time() - 1, code, meaning, weight))
        third = await ask("GET", "/api/recommend/anna?n=3")
        assert not set(third) & set(first + second)
        assert {r.source for r in (await one.lists.recommend(Query("nobody"))).items} == {"popular"}

    asked(place, work)


@pytest.mark.parametrize("positive", [["*"], ["like", "rating>=3"]])
def test_what_was_read_and_no_more_makes_nothing_popular_now_and_after_a_restart(
    make_place: Callable[..., Place], served: Served, positive: list[str]
) -> None:
    place = make_place(feedback={"positive": positive, "read": ["read", "view"]})
    liked, read = served.catalog.ids[3], served.catalog.ids[4]

    async def before(ask: Ask, service: Service) -> None:
        kinds = ("read", "view", "dislike") if positive == ["*"] else ("read", "view", "dislike", "other")
        await ask("POST", "/api/feedback", [like(read, kind=kind) for kind in kinds])
        await ask("POST", "/api/feedback", [like(liked)])
        await after(ask, service)

    async def after(ask: Ask, service: Service) -> None:
        assert [one["Id"] for one in await ask("GET", "/api/non-personalized/trending")] == [liked]

    asked(place, before)
    asked(place, after)


def test_the_reference_page_knows_every_path_once(place: Place) -> None:
    async def work(ask: Ask, service: Service) -> None:
        paths = (await ask("GET", "/apidocs.json"))["paths"]
        assert not [path for path in paths if path.endswith("/")]
        assert set(paths["/api/feedback"]) == {"get", "post", "put"}
        parameters = {one["name"] for one in paths["/api/recommend/{user_id}"]["get"]["parameters"]}
        assert parameters >= {"n", "offset", "category", "write-back-type", "write-back-delay"}

    asked(place, work)


def test_what_is_dated_ahead_waits_after_a_restart_too(place: Place, served: Served) -> None:
    item = served.catalog.ids[0]

    async def before(ask: Ask, service: Service) -> None:
        moment = tell_moment(time.time() + 600)
        await ask("POST", "/api/feedback", [like(item, Timestamp=moment), like(served.catalog.ids[1])])

    async def after(ask: Ask, service: Service) -> None:
        person = await service.of("default").tenant.person("anna")
        assert (person.codes, [one[1] for one in person.later]) == ([1], [0])
        assert item in await ask("GET", "/api/recommend/anna?n=100")
        assert [row["ItemId"] for row in (await ask("GET", "/api/feedback"))["Feedback"]] == [served.catalog.ids[1]]

    asked(place, before)
    asked(place, after)


def test_a_key_that_may_only_read_writes_nothing_back(place: Place) -> None:
    async def work(ask: Ask, service: Service) -> None:
        key = service.store.keys.create("default", "reader", {"read"})
        assert len(await ask("GET", "/api/recommend/anna", x_api_key=key)) == 10
        told = await ask("GET", "/api/recommend/anna?write-back-type=read", status=403, x_api_key=key)
        assert "write" in told
        both = service.store.keys.create("default", "both", {"read", "write"})
        await ask("GET", "/api/recommend/anna?write-back-type=read", x_api_key=both)
        assert await ask("GET", "/api/recommend/anna", status=401) == "unauthorized"
        await ask("GET", "/api/user/anna/feedback", status=403, x_api_key=both)
        assert service.of("default").tenant.store.events.count() == 10

    asked(place, work)


def test_post_adds_values_up_and_put_overwrites(place: Place) -> None:
    async def work(ask: Ask, service: Service) -> None:
        await ask("POST", "/api/feedback", [like("i", Value=2, Comment="a"), like("i", Value=50)])
        later = like("i", Value=1.5, Timestamp="2021-01-01 00:00:00", Comment="b", Labels={"k": [1]})
        assert await ask("POST", "/api/feedback", [later]) == {"RowAffected": 1}
        row = await ask("GET", "/api/feedback/like/anna/i")
        assert abs(read_moment(row.pop("Updated")) - time.time()) < 60
        expected = {**like("i"), "Value": 3.5, "Comment": "b", "Labels": {"k": [1]}}
        assert row == expected
        assert (await ask("GET", "/api/feedback/anna/i"))[0]["Value"] == 3.5
        await ask("PUT", "/api/feedback", [like("i", Value=7)])
        assert (await ask("GET", "/api/feedback/like/anna/i"))["Value"] == 7
        assert await ask("GET", "/api/feedback/like/anna/none") == {}
        assert (await ask("GET", "/api/user/anna"))["UserId"] == "anna"
        assert (await ask("GET", "/api/item/i"))["Timestamp"] == "0001-01-01T00:00:00Z"

    asked(place, work)


def test_feedback_is_found_by_type_user_and_item_and_goes(place: Place) -> None:
    async def work(ask: Ask, service: Service) -> None:
        kinds = ("like", "read", "star")
        rows = [like(i, u, k, Value=v) for u in ("a", "b") for i in ("i", "j") for v, k in enumerate(kinds)]
        await ask("POST", "/api/feedback", rows)
        assert len(await ask("GET", "/api/user/a/feedback")) == len(await ask("GET", "/api/item/i/feedback/")) == 6
        assert len(await ask("GET", "/api/user/a/feedback/star")) == 2
        assert await ask("GET", "/api/user/a/feedback/star>=3") == []
        assert len(await ask("GET", "/api/user/a/feedback/star>=2/")) == 2
        assert len(await ask("GET", "/api/item/i/feedback/like")) == 2
        assert len((await ask("GET", "/api/feedback/read?n=3"))["Feedback"]) == 3
        found: list[dict[str, object]] = []
        cursor = ""
        while cursor or not found:
            page = await ask("GET", f"/api/feedback?n=5&cursor={cursor}")
            found, cursor = found + page["Feedback"], page["Cursor"]
        assert len({(row["FeedbackType"], row["UserId"], row["ItemId"]) for row in found}) == len(found) == 12
        assert await ask("DELETE", "/api/feedback/star/a/i") == {"RowAffected": 1}
        assert await ask("DELETE", "/api/feedback/a/i") == {"RowAffected": 2}
        assert await ask("DELETE", "/api/feedback/a/i") == {"RowAffected": 0}
        assert await ask("GET", "/api/feedback/a/i") == []

    asked(place, work)


def test_a_user_comes_back_as_sent_and_goes_with_everything(place: Place, served: Served) -> None:
    anna = {"UserId": "anna", "Labels": {"age": 3, "tags": ["a", None]}, "Comment": "c"}

    async def work(ask: Ask, service: Service) -> None:
        assert await ask("POST", "/api/user", anna) == {"RowAffected": 1}
        assert await ask("POST", "/api/users", [{"UserId": "bert"}, {"UserId": "cleo", "Labels": ["x"]}]) == {
            "RowAffected": 2
        }
        assert await ask("GET", "/api/user/anna") == anna
        assert await ask("GET", "/api/user/bert/") == {"UserId": "bert", "Labels": None, "Comment": ""}
        assert await ask("PATCH", "/api/user/anna", {"Comment": "new", "Labels": None}) == {"RowAffected": 1}
        assert await ask("GET", "/api/user/anna") == {**anna, "Comment": "new"}
        assert await ask("PATCH", "/api/user/nobody", {"Comment": "new"}) == {"RowAffected": 0}
        page = await ask("GET", "/api/users?n=2")
        assert [user["UserId"] for user in page["Users"]] == ["anna", "bert"]
        assert (await ask("GET", f"/api/users?n=2&cursor={page['Cursor']}"))["Users"][0]["Labels"] == ["x"]
        await ask("POST", "/api/feedback", [like(served.catalog.ids[0])])
        await ask("GET", "/api/recommend/anna")
        assert await ask("DELETE", "/api/user/anna") == {"RowAffected": 1}
        assert await ask("DELETE", "/api/user/anna") == {"RowAffected": 0}
        assert await ask("GET", "/api/user/anna", status=404) == "no such user"
        assert await ask("GET", "/api/user/anna/feedback") == []
        assert not service.of("default").tenant.store.readings.get(["anna"])

    asked(place, work)


def test_an_item_comes_back_as_sent_and_changes_in_part(place: Place) -> None:
    async def work(ask: Ask, service: Service) -> None:
        assert await ask("POST", "/api/item", ITEM) == {"RowAffected": 1}
        assert await ask("GET", "/api/item/new") == ITEM
        item = service.of("default").tenant.store.items.get("new")
        assert item is not None
        assert item.text == "A Song of War. War, Ü, Space."
        nothing = dict.fromkeys(("IsHidden", "Categories", "Timestamp", "Labels", "Comment"))
        assert await ask("PATCH", "/api/item/new", nothing) == {"RowAffected": 1}
        assert await ask("GET", "/api/item/new") == ITEM
        await ask("PATCH", "/api/item/new", {**nothing, "Comment": "Peace", "Labels": [], "Timestamp": "1600000000"})
        changed = {**ITEM, "Comment": "Peace", "Labels": [], "Timestamp": "2020-09-13T12:26:40Z"}
        assert await ask("GET", "/api/item/new") == changed
        await ask("PUT", "/api/item/new/category/Blue")
        await ask("PUT", "/api/item/new/category/Blue")
        await ask("DELETE", "/api/item/new/category/War")
        assert (await ask("GET", "/api/item/new"))["Categories"] == ["Ü", "Blue"]
        await ask("PUT", "/api/item/none/category/Blue", status=404)
        await ask("PATCH", "/api/item/new", {"IsHidden": True})
        assert "new" not in await ask("GET", "/api/recommend/anna?n=100")
        await ask("POST", "/api/feedback", [like("new")])
        assert await ask("DELETE", "/api/item/new") == {"RowAffected": 1}
        assert await ask("GET", "/api/item/new", status=404) == "no such item"
        assert await ask("GET", "/api/item/new/feedback") == []
        assert (await service.of("default").tenant.person("anna")).seen == set()
        assert await ask("PATCH", "/api/item/new", {"Comment": "x"}) == {"RowAffected": 0}
        assert await ask("DELETE", "/api/item/new") == {"RowAffected": 0}

    asked(place, work)


def test_a_patch_leaves_the_texts_of_the_catalogue(place: Place, served: Served) -> None:
    name = served.catalog.ids[0]

    async def work(ask: Ask, service: Service) -> None:
        await ask("PATCH", f"/api/item/{name}", {"Categories": ["Other"]})
        item = service.of("default").tenant.store.items.get(name)
        assert item is not None
        assert (item.text, item.categories) == (served.catalog.texts[0], ("Other",))

    asked(place, work)


def test_items_are_paged_and_searched(place: Place, served: Served) -> None:
    async def work(ask: Ask, service: Service) -> None:
        await ask("POST", "/api/items", [{**ITEM, "ItemId": f"z{n}", "Comment": f"Zebra {n}"} for n in range(3)])
        found: list[str] = []
        cursor = ""
        while cursor or not found:
            page = await ask("GET", f"/api/items?n=20&cursor={cursor}")
            found, cursor = found + [item["ItemId"] for item in page["Items"]], page["Cursor"]
        assert sorted(found) == sorted([*served.catalog.ids, "z0", "z1", "z2"])
        assert [item["ItemId"] for item in (await ask("GET", "/api/items?q=zebra&n=2"))["Items"]] == ["z0", "z1"]
        assert await ask("GET", "/api/items?q=nothing-of-it") == {"Cursor": "", "Items": []}

    asked(place, work)


@pytest.mark.parametrize(
    ("method", "path", "body", "named"),
    [
        ("GET", "/api/recommend/anna?n=ten", None, "query.n"),
        ("GET", "/api/recommend/anna?n=-1", None, "query.n"),
        ("GET", "/api/recommend/anna?n=10001", None, "query.n"),
        ("GET", "/api/latest?offset=x", None, "query.offset"),
        ("GET", "/api/recommend/anna?write-back-type=read&write-back-delay=10", None, "query.write-back-delay"),
        ("GET", "/api/items?n=x", None, "query.n"),
        ("GET", "/api/items?cursor=%21", None, "cursor"),
        ("POST", "/api/feedback", {"FeedbackType": "like"}, "body"),
        ("POST", "/api/feedback", [like("")], "item is empty"),
        ("POST", "/api/feedback", [like("i", Timestamp="yesterday")], "body.0.Timestamp"),
        ("POST", "/api/feedback", [like("i", Value="many")], "body.0.Value"),
        ("POST", "/api/item", {"Comment": "x"}, "body.ItemId"),
        ("POST", "/api/user", {"UserId": ""}, "id is empty"),
        ("PATCH", "/api/item/i", {"Timestamp": "x"}, "body.Timestamp"),
        ("GET", "/api/user/anna/feedback/%3E=3", None, "names no type"),
    ],
)
def test_what_is_wrong_is_named_in_plain_text(place: Place, method: str, path: str, body: object, named: str) -> None:
    async def work(ask: Ask, service: Service) -> None:
        assert named in await ask(method, path, body, status=400)
        assert service.of("default").tenant.store.events.count() == 0

    asked(place, work)


def test_the_dashboard_tells_what_is_true(place: Place, served: Served) -> None:
    async def work(ask: Ask, service: Service) -> None:
        await ask("POST", "/api/feedback", [like(served.catalog.ids[0])])
        stats = await ask("GET", "/api/dashboard/stats")
        assert (stats["NumUsers"], stats["NumItems"]) == (1, 40)
        categories = await ask("GET", "/api/dashboard/categories")
        assert set(categories) == {name for names in served.catalog.categories for name in names}
        config = await ask("GET", "/api/dashboard/config")
        assert config["recommend"]["data_source"]["read_feedback_types"] == ["read"]
        user = {"UserId": "anna", "Labels": None, "Comment": "", "LastActiveTime": "2020-01-01T00:00:00Z"}
        assert await ask("GET", "/api/dashboard/user/anna") == user
        assert (await ask("GET", "/api/dashboard/users"))["Users"] == [user]
        await ask("GET", "/api/dashboard/user/nobody", status=404)
        items = await ask("GET", "/api/dashboard/recommend/anna?n=2")
        assert [item["ItemId"] for item in items] == await ask("GET", "/api/recommend/anna?n=2")
        assert set(items[0]) == {*ITEM, "Score"}

    asked(place, work)
