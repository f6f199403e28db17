"""Our own API end to end: lists, events, items, people, reasons, rules, keys, figures."""

from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from fedrec_client.serving.api.native.router import routes
from fedrec_client.serving.http.metrics import ServingMetrics
from fedrec_client.serving.http.scopes import scope_needed
from fedrec_client.serving.service import Served, Service
from tests.serving.conftest import Place

# What hands people over, or is for the partner's own people.
from tests.serving.native_calls import ids, like, path_of, problem

ADMIN = {
    "GET /v1/events",
    "GET /v1/users",
    "GET /v1/users/{user}",
    "DELETE /v1/users/{user}",
    "GET /v1/users/{user}/export",
    "GET /v1/users/{user}/blocks",
    "GET /v1/users/{user}/blocks/{kind}/{value}",
    "GET /v1/rules",
    "POST /v1/rules",
    "POST /v1/rules/try",
    "POST /v1/rules/reload",
    "GET /v1/rules/{name}",
    "PUT /v1/rules/{name}",
    "DELETE /v1/rules/{name}",
    "GET /v1/review",
    "POST /v1/review",
    "GET /v1/review/{number}",
    "POST /v1/review/{number}/approve",
    "POST /v1/review/{number}/reject",
    "POST /v1/review/{number}/edit",
    "GET /v1/review/log",
    "GET /v1/review/log/check",
    "GET /v1/review/log/export",
    "GET /v1/sentiment",
    "GET /v1/support/handovers",
    "POST /v1/support/handovers/{handover}/answer",
    "GET /v1/status",
    "GET /v1/exposure",
    "GET /v1/arms",
    "GET /v1/keys",
    "POST /v1/keys",
    "DELETE /v1/keys/{name}",
}
ODD = ["a/b", "50% off?", "a#b&c=d", "..", ".", "blocks/item/x", "Žluťoučký 火", "a+b c", "%2F", "export", "a\\b;c"]


def test_every_route_has_a_scope_or_is_for_the_partners_own_people_on_purpose(place: Place) -> None:
    async def work(service: Service) -> dict[str, Any]:
        app = FastAPI()
        app.include_router(routes(service, ServingMetrics(lambda: None)))
        return app.openapi()

    schema = place.run(work)
    calls = {f"{m.upper()} {path}" for path, methods in schema["paths"].items() for m in methods}
    needs = {call: scope_needed(*call.split(" ", 1)) for call in calls}
    assert {call for call, need in needs.items() if need == "admin"} == ADMIN
    assert "open" not in needs.values()
    for path, methods in schema["paths"].items():
        for method, told in methods.items():
            assert told["summary"], (method, path)
            assert told["description"], (method, path)
            assert {"400", "401", "403", "404", "422", "503"} <= told["responses"].keys()


def test_lists_of_every_kind(place: Place, served: Served) -> None:
    items = served.catalog.ids

    async def work(client: httpx.AsyncClient, service: Service) -> None:
        assert await like(client, "anna", *items[:4]) == {"accepted": 4, "duplicates": 0, "ignored": 0}
        answer = await client.get("/v1/recommend/anna", params={"n": 5, "explain": "true", "fields": "*"})
        told = answer.json()
        assert len(ids(answer)) == 5
        assert set(told) == {"ranking", "arm", "adapter", "cursor", "took_ms", "items"}
        first = told["items"][0]
        assert set(first) == {"id", "score", "source", "rules", "title", "categories", "fields", "why"}
        assert first["source"] == "model"
        assert {one["item"] for one in first["why"]["because"]} <= set(items[:4])
        assert all(one["title"] and one["gain"] > 0 for one in first["why"]["because"])
        plain = (await client.get("/v1/recommend/anna", params={"n": 5})).json()["items"][0]
        assert "why" not in plain
        assert "fields" not in plain
        by_form = await client.post("/v1/recommend", json={"user": "anna", "n": 5})
        assert ids(by_form) == ids(answer)
        rest = await client.get("/v1/recommend/anna", params={"n": 5, "offset": 2})
        assert ids(rest)[:3] == ids(answer)[2:]
        without = {"n": 5, "exclude": ids(answer)[:2], "category": ["War"]}
        assert not set(ids(answer)[:2]) & set(ids(await client.get("/v1/recommend/anna", params=without)))
        session = await client.post("/v1/session/recommend", json={"events": [{"item": items[0]}], "n": 3})
        assert {one["source"] for one in session.json()["items"]} == {"session"}
        ranked = await client.post("/v1/rank", json={"user": "anna", "candidates": [items[9], "who?", items[0]]})
        assert sorted(ids(ranked)) == sorted([items[9], "who?", items[0]])
        assert items[0] not in ids(await client.get(f"/v1/similar/{items[0]}", params={"n": 40}))
        assert sorted(ids(await client.get("/v1/trending"))) == sorted(items[:4])
        assert not set(ids(await client.get("/v1/popular", params={"user": "anna", "n": 40}))) & set(items[:4])
        assert ids(await client.get("/v1/latest"))

    place.call(routes, work)


def test_pages_go_on_to_the_end(place: Place, served: Served) -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        await like(client, "anna", served.catalog.ids[0])
        shown: list[str] = []
        cursor = ""
        while cursor or not shown:
            page = await client.get("/v1/recommend/anna", params={"n": 10, "cursor": cursor})
            shown += ids(page)
            cursor = page.json()["cursor"]
        assert len(shown) == len(set(shown)) == 39
        found: list[str] = []
        while cursor or not found:
            page = await client.get("/v1/items", params={"n": 15, "cursor": cursor})
            found += ids(page)
            cursor = page.json()["cursor"]
        assert sorted(found) == sorted(served.catalog.ids)

    place.call(routes, work)


@pytest.mark.parametrize(
    ("method", "url", "body", "expected"),
    [
        ("GET", "/v1/recommend/anna?n=0", None, (422, "invalid")),
        ("GET", "/v1/recommend/anna?n=1001", None, (422, "invalid")),
        ("GET", "/v1/recommend/anna?m=10", None, (422, "invalid")),
        ("GET", "/v1/recommend/anna?offset=-1", None, (422, "invalid")),
        ("GET", "/v1/recommend/anna?cursor=x", None, (400, "malformed")),
        ("GET", "/v1/recommend/anna?filter=item.", None, (400, "malformed")),
        ("GET", "/v1/recommend/anna?arm=x", None, (400, "malformed")),
        ("GET", "/v1/recommend/" + "a" * 257, None, (422, "invalid")),
        ("GET", "/v1/recommend/a%00b", None, (422, "invalid")),
        ("GET", "/v1/recommend/%FF", None, (422, "invalid")),
        ("GET", "/v1/items?cursor=WzFd", None, (400, "malformed")),
        ("GET", "/v1/events?cursor=WzFlOTld", None, (400, "malformed")),
        ("GET", "/v1/events?cursor=" + "W1tb" * 4000, None, (400, "malformed")),
        ("GET", "/v1/events?cursor=WzEwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwXQ", None, (400, "malformed")),
        ("POST", "/v1/recommend", {"n": "5"}, (422, "invalid")),
        ("POST", "/v1/recommend", {"candidates": ["a"]}, (422, "invalid")),
        ("POST", "/v1/session/recommend", {}, (400, "malformed")),
        ("POST", "/v1/rank", {"candidates": []}, (422, "invalid")),
        ("POST", "/v1/events", {"type": "like", "item": "1"}, (400, "malformed")),
        ("POST", "/v1/events", [], (422, "invalid")),
        ("POST", "/v1/events", [{"type": "like", "item": "1", "user": "a"}] * 10_001, (422, "invalid")),
        ("POST", "/v1/events", {"type": "like", "item": "1", "user": "a", "timestamp": 1.7e12}, (422, "invalid")),
        ("PUT", "/v1/items/x", {"titel": "x"}, (422, "invalid")),
        ("PUT", "/v1/items/x", {"fields": {"x": "\x00"}, "title": "\x00"}, (400, "malformed")),
        ("PATCH", "/v1/items/x", {"is_hidden": True}, (404, "no-such-item")),
        ("GET", "/v1/items/x", None, (404, "no-such-item")),
        ("GET", "/v1/similar/x", None, (404, "no-such-item")),
        ("GET", "/v1/explain/anna/x", None, (404, "no-such-item")),
        ("GET", "/v1/users/x", None, (404, "no-such-user")),
        ("GET", "/v1/users/x/blocks/colour/red", None, (422, "invalid")),
        ("GET", "/v1/rules/x", None, (404, "no-such-rule")),
        ("DELETE", "/v1/rules/x", None, (404, "no-such-rule")),
        ("POST", "/v1/rules", {"name": "x", "action": "pin"}, (422, "invalid")),
        ("PUT", "/v1/rules/y", {"name": "x", "action": "filter", "category": "War"}, (400, "malformed")),
        ("DELETE", "/v1/keys/x", None, (404, "no-such-key")),
    ],
)
def test_what_cannot_be_used_is_told_in_words(
    place: Place, method: str, url: str, body: Any, expected: tuple[int, str]
) -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        assert problem(await client.request(method, url, json=body)) == expected

    place.call(routes, work)


def test_an_event_that_is_sent_again_counts_once(place: Place, served: Served) -> None:
    item, other = served.catalog.ids[:2]

    async def work(client: httpx.AsyncClient, service: Service) -> None:
        one = {"id": "e1", "type": "like", "user": "anna", "item": item, "value": 2, "labels": {"a": [1]}}
        await client.get("/v1/recommend/anna")
        sent = await client.post("/v1/events", json=[one, one, one])
        assert sent.json() == {"accepted": 1, "duplicates": 2, "ignored": 0}
        assert item not in ids(await client.get("/v1/recommend/anna", params={"n": 40}))
        assert (await client.post("/v1/events", json=one)).json()["duplicates"] == 1
        await like(client, "anna", other)
        page = (await client.get("/v1/events", params={"n": 1, "user": "anna"})).json()
        assert [event["item"] for event in page["events"]] == [other]
        page = (await client.get("/v1/events", params={"n": 1, "user": "anna", "cursor": page["cursor"]})).json()
        assert page["events"][0].items() >= one.items()
        assert (await client.get("/v1/events", params={"type": "buy"})).json() == {"events": [], "cursor": ""}

    place.call(routes, work)


@pytest.mark.parametrize("odd", ODD)
def test_ids_may_hold_any_printable_character(place: Place, odd: str) -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        made = await client.put(path_of("items", odd), json={"title": odd, "categories": [odd]})
        assert made.json()["id"] == odd
        assert (await client.get(path_of("items", odd))).json()["title"] == odd
        assert (await like(client, odd, odd))["accepted"] == 1
        assert (await client.get(path_of("recommend", odd))).status_code == 200
        assert (await client.get(path_of("similar", odd))).status_code == 200
        assert (await client.get(path_of("explain", odd, odd))).status_code == 200
        block = path_of("users", odd, "blocks", "category", odd)
        assert (await client.put(block)).json() == {"is_blocked": True}
        assert (await client.get(block)).json() == {"is_blocked": True}
        assert (await client.delete(block)).json() == {"was_there": True}
        assert (await client.get(path_of("users", odd))).json()["id"] == odd
        assert len((await client.get(path_of("users", odd, "export"))).json()["kept"]["events"]) == 1
        assert (await client.delete(path_of("users", odd))).json()["removed"]["events"] == 1
        assert (await client.delete(path_of("items", odd))).json() == {"was_there": True}

    place.call(routes, work)


def test_items_are_described_hidden_and_taken_off(place: Place) -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        whole = {"title": "Song of War", "text": "", "categories": ["War"], "timestamp": 5.0, "is_hidden": False}
        whole |= {"fields": {"price": 4.5, "nested": {"a": [None, True]}}}
        assert (await client.put("/v1/items/new", json=whole)).json() == {"id": "new", **whole}
        cheap = {"filter": "item.price < 5", "fields": "price"}
        (found,) = (await client.get("/v1/recommend/anna", params=cheap)).json()["items"]
        assert (found["id"], found["fields"]) == ("new", {"price": 4.5})
        assert (await client.patch("/v1/items/new", json={"is_hidden": True})).json()["title"] == "Song of War"
        assert not ids(await client.get("/v1/recommend/anna", params=cheap))
        many = [{"id": f"more {at}", "title": "Heat"} for at in range(3)]
        assert (await client.post("/v1/items", json=many)).json() == {"stored": 3}
        assert ids(await client.get("/v1/items", params={"text": "HEAT"})) == ["more 0", "more 1", "more 2"]
        assert (await client.delete("/v1/items/new")).json() == {"was_there": True}
        assert (await client.delete("/v1/items/new")).json() == {"was_there": False}

    place.call(routes, work)


def test_people_are_described_blocked_exported_and_erased(place: Place, served: Served) -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        anna = {"labels": {"age": 30}, "comment": "", "subscribe": ["news"]}
        assert (await client.put("/v1/users/anna", json=anna)).json() == {"id": "anna", **anna}
        assert (await client.patch("/v1/users/anna", json={"comment": "x"})).json()["labels"] == {"age": 30}
        assert (await client.post("/v1/users", json=[{"id": "bert"}])).json() == {"stored": 1}
        assert [one["id"] for one in (await client.get("/v1/users")).json()["users"]] == ["anna", "bert"]
        await like(client, "anna", *served.catalog.ids[:3])
        worst = ids(await client.get("/v1/recommend/anna"))[0]
        await client.put(path_of("users", "anna", "blocks", "item", worst))
        assert worst not in ids(await client.get("/v1/recommend/anna", params={"n": 40}))
        assert (await client.get("/v1/users/anna/blocks")).json() == {"items": [worst], "categories": []}
        kept = (await client.get("/v1/users/anna/export")).json()["kept"]
        assert {kind: len(rows) for kind, rows in kept.items()} == {
            **dict.fromkeys(("users", "blocks", "readings"), 1),
            "events": 3,
            "shown": 2,
            **dict.fromkeys(("opinions", "handovers"), 0),
        }
        removed = (await client.delete("/v1/users/anna")).json()["removed"]
        assert removed == {kind: len(rows) for kind, rows in kept.items()}
        assert problem(await client.get("/v1/users/anna")) == (404, "no-such-user")

    place.call(routes, work)


def test_an_explanation_is_held_against_the_model(place: Place, served: Served) -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        await like(client, "anna", *served.catalog.ids[:6])
        answer = await client.get("/v1/recommend/anna")
        told = (await client.get(path_of("explain", "anna", ids(answer)[0]))).json()
        assert told["holds"] is True
        assert told["because"]
        assert told["score_without"] < told["score"]
        nobody = (await client.get(path_of("explain", "nobody", ids(answer)[0]))).json()
        assert nobody == {
            "because": [],
            "words": [],
            "rules": [],
            "sentence": "Many chose it.",
            "score": 0.0,
            "score_without": 0.0,
            "holds": True,
        }
        opinion = {"user": "anna", "ranking": answer.json()["ranking"], "item": ids(answer)[0], "is_helpful": False}
        assert (await client.post("/v1/explain/feedback", json=opinion)).json() == {"is_noted": True}
        (noted,) = service.of("default").tenant.store.opinions.latest(2)
        assert (noted.user, noted.is_helpful) == ("anna", False)

    place.call(routes, work)
