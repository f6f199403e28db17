"""Metarank's API as its documentation has it: the bodies of its examples, and answers that its clients read."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

from fedrec.recommend.rules import Rule
from fedrec.recommend.shelf import Item
from fedrec_client.serving.api.metarank import routes
from fedrec_client.serving.api.metarank.feedback import described
from fedrec_client.serving.http.metrics import ServingMetrics
from fedrec_client.serving.records import Query
from fedrec_client.serving.service import Served, Service
from tests.serving.conftest import Place

ITEM = {
    "event": "item",
    "id": "81f46c34-a4bb-469c-8708-f8127cd67d27",
    "timestamp": "1599391467000",
    "item": "item1",
    "fields": [
        {"name": "title", "value": "You favourite cat"},
        {"name": "color", "value": ["white", "black"]},
        {"name": "is_cute", "value": True},
    ],
}
RANKING = {
    "event": "ranking",
    "id": "shown-1",
    "timestamp": "1599391467000",
    "user": "user1",
    "session": "session1",
    "fields": [{"name": "query", "value": "cat"}, {"name": "source", "value": "search"}],
    "items": [{"id": "item3", "relevancy": 2.0}, {"id": "item1", "label": 1}, {"id": "item2", "fields": []}],
}
CLICK = {
    "event": "interaction",
    "id": "0f4c0036",
    "ranking": "shown-1",
    "timestamp": "1599391467001",
    "user": "user1",
    "session": "session1",
    "type": "purchase",
    "item": "item1",
    "fields": [{"name": "count", "value": 1}, {"name": "shipping", "value": "DHL"}],
}
USER = {"event": "user", "id": "u", "timestamp": 1599391467000, "user": "user1"}
USER["fields"] = [{"name": "age", "value": 33}, {"name": "gender", "value": "m"}]


async def told(client: httpx.AsyncClient, *events: dict[str, Any]) -> dict[str, Any]:
    answer = await client.post("/feedback", json=list(events))
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    assert list(body) == ["accepted", "status", "tookMillis", "updated"]
    return body


def test_the_four_events_of_the_documentation_are_taken(place: Place) -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        body = await told(client, CLICK, RANKING, USER, ITEM)  # in any order
        assert (body["accepted"], body["status"], body["updated"]) == (4, "ok", 3)
        assert (await told(client, CLICK))["updated"] == 0  # the same once more
        store = service.of("default").tenant.store
        item = store.items.get("item1")
        assert item is not None
        assert (item.title, item.timestamp) == ("You favourite cat", 1599391467.0)
        assert item.fields == {"color": ["white", "black"], "is_cute": True}
        user = store.users.get("user1")
        assert user is not None
        assert user.labels == {"age": 33, "gender": "m"}
        shown = store.shown.find("shown-1")
        assert shown is not None
        assert (shown.items, shown.user, shown.session) == (("item3", "item1", "item2"), "user1", "session1")
        (event,), _ = store.events.find_raw(9)
        assert (event.type, event.ranking, event.timestamp) == ("purchase", "shown-1", 1599391467.001)
        assert event.labels == {"count": 1, "shipping": "DHL"}
        (row,) = store.clicks.impressions(0.0, 9)
        assert row.clicked == {"item1"}

    place.call(routes, work)


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(CLICK, indent=2),
        json.dumps([CLICK]),
        json.dumps(CLICK) + "\n",
        "\r\n" + json.dumps(CLICK) + "\n" + json.dumps(USER) + "\n",
        json.dumps(CLICK) + json.dumps([USER, ITEM]),
        "",
        "[]",
    ],
)
def test_one_event_an_array_and_a_stream_are_all_taken(place: Place, body: str) -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        form = {"content-type": "application/x-www-form-urlencoded"}  # which curl says of everything
        answer = await client.post("/feedback", content=body, headers=form)
        assert (answer.status_code, answer.json()["accepted"]) == (200, body.count('"event"'))
        assert service.of("default").tenant.store.events.count() == body.count("interaction")

    place.call(routes, work)


@pytest.mark.parametrize(
    ("timestamp", "seconds"),
    [
        ("1599391467000", 1599391467.0),
        (1599391467500, 1599391467.5),
        ("2022-06-22T11:21:39Z", 1655896899.0),
        ("2022-06-22T13:21:39.250+02:00", 1655896899.25),
    ],
)
def test_moments_are_read_in_each_of_their_forms(place: Place, timestamp: object, seconds: float) -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        await told(client, {**CLICK, "timestamp": timestamp})
        (event,), _ = service.of("default").tenant.store.events.find_raw(1)
        assert event.timestamp == seconds

    place.call(routes, work)


BAD = [
    {**CLICK, "event": "impression"},
    {**CLICK, "timestamp": "yesterday"},
    {**CLICK, "timestamp": True},
    {**CLICK, "timestamp": 1e300},
    {**CLICK, "item": ""},
    {**CLICK, "item": "x" * 257},
    {**CLICK, "type": "a\nb"},
    {**RANKING, "items": []},
    {**ITEM, "fields": [{"name": "x", "value": {"secret-4711": 1}}]},
    {**ITEM, "fields": [{"name": "x", "value": ["secret-4711", 1]}]},
    {**ITEM, "fields": [{"name": "x", "value": None}]},
    {**ITEM, "item": ["secret-4711"]},
    "secret-4711",
]


@pytest.mark.parametrize("bad", [*map(json.dumps, BAD), '{"event": "item"', "[" * 100_000, '{"a": NaN', "\xff"])
def test_a_faulty_event_is_named_without_what_it_held_and_nothing_is_stored(place: Place, bad: str) -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        answer = await client.post("/feedback", content=json.dumps(CLICK) + "\n" + bad)
        assert answer.status_code == 400, answer.text
        assert list(answer.json()) == ["error"]
        assert "secret-4711" not in answer.text
        assert service.of("default").tenant.store.events.count() == 0

    place.call(routes, work)


def test_all_given_items_come_back_ordered_as_our_own_ranking_does(place: Place, served: Served) -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        had, given = served.catalog.ids[:3], [*served.catalog.ids[3:15], "who?"]
        clicks = [{**CLICK, "id": f"c{i}", "item": item, "ranking": None} for i, item in enumerate(had)]
        await told(client, *clicks)
        asked = {**RANKING, "id": "käse 1", "items": [{"id": item} for item in given]}
        del asked["event"]
        answer = await client.post("/rank/default", json=asked)
        body = answer.json()
        assert list(body) == ["took", "items"]
        assert isinstance(body["took"], int)
        assert all(list(item) == ["item", "score"] for item in body["items"])
        one = service.of("default")
        expected = await one.lists.rank(Query("user1", candidates=tuple(given), is_recorded=False))
        assert [item["item"] for item in body["items"]] == [ranked.item.id for ranked in expected.items]
        assert sorted(item["item"] for item in body["items"]) == sorted(given)
        assert answer.headers["x-fedrec-ranking"] == "k%C3%A4se%201"
        assert answer.headers["x-fedrec-adapter"] == "round-0001"

    place.call(routes, work)


def test_explain_tells_what_the_final_ranking_weighed_and_the_rules(
    make_place: Callable[..., Place], served: Served
) -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        first, second = served.catalog.ids[:2]
        await service.of("default").policy.put(Rule(name="week", action="boost", items=(second,), amount=9.0))
        asked = {"id": "r", "items": [{"id": first}, {"id": second}, {"id": "who?"}]}
        items = (await client.post("/rank/default?explain=true", json=asked)).json()["items"]
        assert [item["item"] for item in items] == [second, first, "who?"]
        named = {feature["name"]: feature["value"] for feature in items[0]["features"]}
        assert list(named) == ["model", "recency", "popularity", "year", "rule:week"]
        assert named["year"] == served.catalog.years[1]
        model = service.of("default").tenant.engine.model
        assert named["model"] == pytest.approx(float(model.prior[1]), rel=1e-5)
        assert (named["recency"], named["rule:week"]) == (None, 1.0)
        assert items[2]["features"] == []
        assert (await client.post("/rank/default?explain=perhaps", json=asked)).status_code == 400

    make_place(ranking={"fields": {"year": 0.0}}).call(routes, work)


def test_a_click_is_joined_with_the_rank_request_and_what_was_displayed_of_it(place: Place, served: Served) -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        given = served.catalog.ids[:6]
        asked = {"id": "r", "timestamp": "1599391467000", "user": "u", "items": [{"id": item} for item in given]}
        ordered = [item["item"] for item in (await client.post("/rank/default", json=asked)).json()["items"]]
        displayed = ordered[:3]
        event = {"event": "ranking", **asked, "items": [{"id": item} for item in displayed]}
        nameless = {**CLICK, "id": "n", "ranking": "r", "item": displayed[2], "user": None, "session": None}
        await told(client, event, nameless)
        store = service.of("default").tenant.store
        (row,) = store.clicks.impressions(0.0, 9)
        assert (row.arm, row.items, row.clicked) == ("default", tuple(displayed), {displayed[2]})
        alone = {"event": "interaction", "id": "only", "timestamp": "1599391467000", "type": "like", "item": given[0]}
        assert (await told(client, alone))["updated"] == 1  # clicks without a list, of nobody

    place.call(routes, work)


def test_recommend_is_for_a_user_for_a_cart_or_like_an_item(place: Place, served: Served) -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        ids = served.catalog.ids

        async def asked(**body: object) -> list[str]:
            answer = (await client.post("/recommend/default", json=body)).json()
            assert list(answer) == ["took", "items"]
            assert all(list(item) == ["item", "score"] for item in answer["items"])
            return [item["item"] for item in answer["items"]]

        lists = service.of("default").lists
        await told(client, {**CLICK, "item": ids[0]}, {**CLICK, "id": "2", "item": ids[1]})
        own = await lists.recommend(Query("user1", n=5, is_recorded=False))
        assert await asked(count=5, user="user1") == [ranked.item.id for ranked in own.items]
        like = await lists.similar(ids[4], Query(n=5, is_recorded=False))
        assert await asked(count=5, items=[ids[4]]) == [ranked.item.id for ranked in like.items]
        cart = await asked(count=40, items=ids[4:7])
        assert len(cart) == 37
        assert not set(cart) & set(ids[4:7])
        assert await asked(count=5, user="nobody", items=ids[:3]) == await asked(count=5, items=ids[:3])
        assert len(await asked(count=3, items=["who?"])) == 3
        for bad in ({"count": 0}, {"count": 3, "items": "x"}, [], {"count": 10**9}):
            assert (await client.post("/recommend/default", json=bad)).status_code == 400

    place.call(routes, work)


def test_a_cart_counts_whatever_types_make_a_history(make_place: Callable[..., Place], served: Served) -> None:
    async def work(client: httpx.AsyncClient, _: Service) -> None:
        cart = served.catalog.ids[:2]
        answer = await client.post("/recommend/default", json={"count": 40, "items": cart})
        assert not set(cart) & {item["item"] for item in answer.json()["items"]}
        assert answer.headers["x-fedrec-arm"] == "default"
        metrics = (await client.get("/metrics")).text
        assert 'fedrec_serving_recommended_items_total{source="session"} 38.0' in metrics

    make_place(feedback={"positive": ["stars>4"], "read": ["click"], "repeats": True}).call(routes, work)


def test_models_are_the_arms_and_others_are_not_there(make_place: Callable[..., Place], served: Served) -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        asked = {"id": "r", "items": [{"id": served.catalog.ids[0]}]}
        assert (await client.post("/rank/dear", json=asked)).headers["x-fedrec-arm"] == "dear"
        for path in ("/rank/default", "/recommend/none", "/train/none", "/inference/encoder/none"):
            answer = await client.post(path, json=asked)
            assert (answer.status_code, list(answer.json())) == (404, ["error"])
        assert (await client.post("/train/cheap")).status_code == 400  # it does not learn
        assert (await client.post("/train/dear")).status_code == 409  # nobody clicked yet

    arms = [{"name": "cheap", "share": 0.5}, {"name": "dear", "share": 0.5, "ranking": {"learned": True}}]
    make_place(arms=arms).call(routes, work)


def test_train_answers_as_metarank_does(make_place: Callable[..., Place], served: Served) -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        ids, random = served.catalog.ids, np.random.default_rng(0)
        years = dict(zip(ids, served.catalog.years, strict=True))
        for place in range(60):
            given = [{"id": ids[code]} for code in random.choice(40, 8, replace=False)]
            ranked = (await client.post("/rank/default", json={"id": f"r{place}", "items": given})).json()["items"]
            newest = max((item["item"] for item in ranked), key=lambda item: years[item] or 0)
            await told(
                client, {**CLICK, "id": f"c{place}", "ranking": f"r{place}", "user": f"u{place}", "item": newest}
            )
        answer = await client.post("/train/default")
        body = answer.json()
        assert list(body) == ["features", "iterations", "sizeBytes"]
        weights = {feature["name"]: feature["weight"] for feature in body["features"]}
        assert list(weights) == ["model", "recency", "popularity", "year"]
        assert weights["year"] > 0.3
        assert [list(one) for one in body["iterations"]] == [["id", "millis", "testMetric", "trainMetric"]] * 2
        assert body["iterations"][1]["testMetric"] > body["iterations"][0]["testMetric"]
        assert (answer.headers["x-fedrec-weights"], answer.headers["x-fedrec-lists"]) == ("learnt", "60")

    make_place(ranking={"learned": True, "fields": {"year": 0.0}}).call(routes, work)


def test_texts_are_encoded_by_the_features_that_items_have(place: Place, served: Served) -> None:
    async def work(client: httpx.AsyncClient, _: Service) -> None:
        texts = list(served.catalog.texts[:2])
        body = (await client.post("/inference/encoder/default", json={"texts": texts})).json()
        assert list(body) == ["took", "embeddings"]
        np.testing.assert_allclose(body["embeddings"], served.model.texts[:2], atol=1e-4)
        pairs = [{"query": texts[0], "text": texts[0]}, {"query": texts[0], "text": texts[1]}]
        scores = (await client.post("/inference/cross/default", json={"input": pairs})).json()
        assert list(scores) == ["took", "scores"]
        one, two = served.model.texts[:2]
        assert scores["scores"] == pytest.approx(
            [1.0, float(one @ two / np.linalg.norm(one) / np.linalg.norm(two))], abs=1e-4
        )
        assert (await client.post("/inference/encoder/default", json={"texts": []})).json()["embeddings"] == []
        assert (await client.post("/inference/cross/default", json={"input": []})).json()["scores"] == []
        for bad in (["  "], ["x"] * 257, [1], "x"):
            assert (await client.post("/inference/encoder/default", json={"texts": bad})).status_code == 400

    place.call(routes, work)


def test_an_item_keeps_what_a_later_event_does_not_name(place: Place) -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        store = service.of("default").tenant.store.items
        await told(client, ITEM)
        cheaper = {**ITEM, "event": "metadata", "timestamp": 1e12, "fields": [{"name": "price", "value": 9.5}]}
        await told(client, cheaper)
        item = store.get("item1")
        assert item is not None
        assert (item.title, item.timestamp) == ("You favourite cat", 1599391467.0)
        assert item.fields == {"color": ["white", "black"], "is_cute": True, "price": 9.5}
        many = [{**ITEM, "item": f"m{place}"} for place in range(70)]  # the last of them join later
        await told(client, *many)
        await told(client, {**cheaper, "item": "m69"})
        assert (late := store.get("m69")) is not None
        assert late.title == "You favourite cat"

    place.call(routes, work)


def test_what_the_llm_reads_of_an_item_follows_its_description() -> None:
    jeans = described(Item("a"), {"name": "Jeans", "genre": "Blue", "price": 5})
    assert jeans == Item("a", "Jeans", "", ("Blue",), fields={"price": 5})
    warm = described(jeans, {"description": "Warm."})
    assert (warm.text, warm.fields) == ("Jeans. Blue. Warm.", {"price": 5, "description": "Warm."})
    assert described(warm, {"title": "Trousers"}).text == "Trousers. Blue. Warm."
    assert described(warm, {"price": 6}).text == warm.text
    made, written = Item("b", "B", "B. War.", ("War",)), Item("b", "B", "A long story.", ("War",))
    assert described(made, {"title": "C"}).text == ""
    assert described(written, {"title": "C"}).text == "A long story."
    odd = described(Item("c"), {"title": 5, "categories": [1, 2], "genres": ["X"]})
    assert (odd.title, odd.categories, odd.fields) == ("", ("X",), {"title": 5, "categories": [1, 2]})


def test_calls_are_counted_under_metaranks_names(place: Place, served: Served) -> None:
    async def work(client: httpx.AsyncClient, _: Service) -> None:
        await told(client, CLICK, USER)
        await client.post("/rank/default", json={"id": "r", "items": [{"id": served.catalog.ids[0]}]})
        metrics = (await client.get("/metrics")).text
        assert "metarank_feedback_events_total 2.0" in metrics
        assert 'metarank_rank_requests_total{model="default"} 1.0' in metrics
        assert 'metarank_rank_latency_seconds_count{model="default"} 1.0' in metrics
        assert 'fedrec_serving_recommendations_total{api="metarank"} 1.0' in metrics

    place.call(routes, work)


def test_the_routes_are_those_that_metarank_documents(place: Place) -> None:
    async def work(service: Service) -> None:
        made = routes(service, ServingMetrics(lambda: None))
        assert {getattr(route, "path", "") for route in made.routes} == {
            "/feedback",
            "/rank/{model}",
            "/recommend/{model}",
            "/train/{model}",
            "/inference/encoder/{name}",
            "/inference/cross/{name}",
        }

    place.run(work)
