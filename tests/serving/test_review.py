"""The review queue: what is flagged is on no list, in no API, until one person has decided; and the log says who."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace as changed
from typing import Any

import httpx
import pytest

from fedrec.errors import ConfigError
from fedrec.recommend.shelf import Item
from fedrec_client.serving.api import gorse, metarank
from fedrec_client.serving.api.native.router import routes
from fedrec_client.serving.http.metrics import ServingMetrics
from fedrec_client.serving.pages.routes import routes as page_routes
from fedrec_client.serving.records import Query
from fedrec_client.serving.service import Served, Service, TenantService
from fedrec_client.serving.starting import Starting
from fedrec_client.serving.store.audit_book import AuditLine, flaw_in
from tests.serving.conftest import Place
from tests.serving.native_calls import ids, problem

BAD = {"title": "Fake passports, any country", "categories": ["War"]}
WORDS = {"safety": {"screen": ["words"]}}


async def lists_with(client: httpx.AsyncClient, item: str) -> list[str]:
    """Every way to a list on which an item stands."""
    asked = {
        "recommend": "/v1/recommend/anna?n=100",
        "latest": "/v1/latest?n=100",
        "popular": "/v1/popular?n=100",
        "trending": "/v1/trending?n=100",
    }
    found = []
    for name, path in asked.items():
        answer = await client.get(path)
        if answer.status_code == 200 and item in ids(answer):
            found.append(name)
    ranked = await client.post("/v1/rank", json={"user": "anna", "candidates": [item]})
    return found + (["rank"] if ids(ranked) else [])


def first_items(served: Served) -> tuple[str, str]:
    return served.catalog.ids[0], served.catalog.ids[1]


def test_a_flagged_item_is_on_no_list_until_a_person_approves(make_place: Callable[..., Place], served: Served) -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        assert (await client.put("/v1/items/bad", json=BAD)).status_code == 200
        assert (await client.put("/v1/items/good", json={"title": "Whales"})).status_code == 200
        assert await lists_with(client, "bad") == []
        assert {"recommend", "rank"} <= set(await lists_with(client, "good"))
        assert problem(await client.get("/v1/similar/bad")) == (404, "no-such-item")
        told = (await client.get("/v1/review")).json()
        (case,) = told["cases"]
        assert (case["subject"], case["asked_by"], told["waiting"]) == ("bad", "screen", 1)
        assert case["flags"] == [{"kind": "word", "name": "fraud", "evidence": "fake passport*", "likeness": None}]
        done = await client.post(f"/v1/review/{case['id']}/approve", json={"note": "a museum's catalogue"})
        assert (done.json()["state"], done.json()["decided_by"]) == ("approved", "local")
        assert {"recommend", "rank"} <= set(await lists_with(client, "bad"))
        await client.put("/v1/items/bad", json=BAD)  # the same words were decided on
        assert (await client.get("/v1/review")).json()["cases"] == []
        await client.put("/v1/items/bad", json={**BAD, "text": "Stolen cards too: cloned cards, fake id"})
        assert await lists_with(client, "bad") == []
        assert problem(await client.post(f"/v1/review/{case['id']}/reject")) == (409, "conflict")
        assert problem(await client.post("/v1/review/77/reject")) == (404, "no-such-case")

    make_place(**WORDS).call(routes, work)


def test_a_rejected_item_stays_off_with_other_words_and_after_a_restart(make_place: Callable[..., Place]) -> None:
    place = make_place(**WORDS)

    async def reject(client: httpx.AsyncClient, service: Service) -> None:
        await client.put("/v1/items/bad", json=BAD)
        await client.post("/v1/review/1/reject")
        await client.put("/v1/items/bad", json={"title": "Nothing to see here"})
        (case,) = (await client.get("/v1/review")).json()["cases"]
        assert [flag["kind"] for flag in case["flags"]] == ["again"]
        assert await lists_with(client, "bad") == []

    async def restarted(client: httpx.AsyncClient, service: Service) -> None:
        assert await lists_with(client, "bad") == []
        changes = {"title": "A harmless passport holder", "categories": []}
        done = await client.post("/v1/review/2/edit", json={**changes, "note": "n"})
        assert (done.status_code, done.json()["state"]) == (200, "edited")
        assert (await client.get("/v1/items/bad")).json()["title"] == changes["title"]
        assert "rank" in await lists_with(client, "bad")
        assert (await client.get("/v1/review?state=all")).json()["waiting"] == 0

    place.call(routes, reject)
    place.call(routes, restarted)


def test_the_catalogue_is_screened_before_anybody_is_served(make_place: Callable[..., Place], served: Served) -> None:
    place = make_place()
    first, second = first_items(served)
    (place.folder / "safety.toml").write_text(f'format = 1\n[block]\nids = ["{first}"]\n')

    async def work(one: TenantService) -> None:
        listed = [ranked.item.id for ranked in (await one.lists.recommend(Query("anna", n=100))).items]
        assert first not in listed
        assert second in listed
        assert one.tenant.store.reviews.waiting()[0] == 1

    place.with_tenant(work)
    place.with_tenant(work)  # a second start asks nothing anew


def test_what_cannot_be_screened_waits_and_themes_need_an_encoder(
    make_place: Callable[..., Place], served: Served
) -> None:
    class Broken:
        name = "broken"

        def encode(self, texts: list[str]) -> Any:
            raise RuntimeError("out of memory")

    place = make_place(safety={"screen": ["themes"]})
    place.served = changed(served, sentences=None)
    with pytest.raises(ConfigError, match="sentence encoder"):
        place.with_tenant(lambda one: asyncio.sleep(0))
    place.served = changed(served, sentences=Broken())  # type: ignore[arg-type]

    async def work(one: TenantService) -> None:
        assert not (await one.lists.recommend(Query("anna", n=100))).items
        cases, _ = one.tenant.store.reviews.page(100)
        assert {flag["kind"] for case in cases for flag in case.flags} == {"unscreened"}

    place.with_tenant(work)


def test_of_two_who_decide_at_once_one_wins_and_the_other_is_told(place: Place, served: Served) -> None:
    item = served.catalog.ids[3]

    async def work(client: httpx.AsyncClient, service: Service) -> None:
        assert problem(await client.post("/v1/review", json={"item": "nothing"})) == (404, "no-such-item")
        made = await client.post("/v1/review", json={"item": item, "note": "a customer wrote"})
        assert (made.status_code, made.json()["flags"][0]["kind"]) == (201, "person")
        assert await lists_with(client, item) == []
        both = await asyncio.gather(
            *(client.post(f"/v1/review/1/{word}", json={"note": word}) for word in ("approve", "reject"))
        )
        assert sorted(one.status_code for one in both) == [200, 409]
        winner = next(one.json() for one in both if one.status_code == 200)
        loser = next(one.json() for one in both if one.status_code == 409)
        assert winner["state"] in loser["detail"]
        shown = "rank" in await lists_with(client, item)
        assert shown == (winner["state"] == "approved")
        log = (await client.get("/v1/review/log")).json()["lines"]
        assert [line["what"] for line in log] == [winner["state"], "flagged"]
        assert log[0]["before"]["state"] == "waiting"
        assert log[0]["note"] == {"approved": "approve", "rejected": "reject"}[winner["state"]]

    place.call(routes, work)


def test_rules_wait_where_it_is_asked_for(make_place: Callable[..., Place], served: Served) -> None:
    item, other = served.catalog.ids[5], served.catalog.ids[6]
    rule = {"name": "top", "action": "pin", "items": [item], "position": 1}

    async def work(client: httpx.AsyncClient, service: Service) -> None:
        made = (await client.post("/v1/rules", json=rule)).json()
        assert (made["case"], made["is_due"]) == (1, False)
        assert (await client.get("/v1/rules")).json()["rules"] == []
        assert ids(await client.get("/v1/recommend/anna"))[0] != item
        again = (await client.put("/v1/rules/top", json={**rule, "position": 2})).json()
        assert again["case"] == 2
        assert (await client.get("/v1/review/1")).json()["state"] == "superseded"
        edited = {**rule, "items": [other]}
        assert (await client.post("/v1/review/2/edit", json={"rule": edited})).json()["state"] == "edited"
        assert ids(await client.get("/v1/recommend/anna"))[0] == other
        gone = (await client.delete("/v1/rules/top")).json()
        assert gone == {"removed": "top", "case": 3}
        assert ids(await client.get("/v1/recommend/anna"))[0] == other
        assert (await client.post("/v1/review/3/approve")).status_code == 200
        assert (await client.get("/v1/rules")).json()["rules"] == []
        assert problem(await client.delete("/v1/rules/top")) == (404, "no-such-rule")
        assert problem(await client.post("/v1/review/3/edit", json={})) == (400, "malformed")

    make_place(review={"rules": True}).call(routes, work)


def test_with_four_eyes_another_key_decides(make_place: Callable[..., Place], served: Served) -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        secrets = [service.store.keys.create("default", name, {"admin"}) for name in ("ann", "bob")]
        reader = {"x-api-key": service.store.keys.create("default", "eve", {"read", "write"})}
        ann, bob = ({"x-api-key": secret} for secret in secrets)
        sent = {"item": served.catalog.ids[0]}
        assert (await client.post("/v1/review", json=sent, headers=reader)).status_code == 403
        assert (await client.get("/v1/review", headers=reader)).status_code == 403
        assert (await client.post("/v1/review", json=sent, headers=ann)).status_code == 201
        assert problem(await client.post("/v1/review/1/approve", headers=ann)) == (409, "conflict")
        assert (await client.post("/v1/review/1/approve", headers=bob)).json()["decided_by"] == "bob"

    make_place(review={"four_eyes": True}).call(routes, work)


def test_the_log_is_exported_and_any_change_of_it_shows(make_place: Callable[..., Place]) -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        await client.post("/v1/items", json=[{"id": f"b{n}", **BAD} for n in range(3)])
        for number, word in enumerate(("approve", "reject", "approve"), start=1):
            await client.post(f"/v1/review/{number}/{word}")
        answer = await client.get("/v1/review/log/export")
        lines = [AuditLine(**json.loads(line)) for line in answer.text.splitlines()]
        checked = (await client.get("/v1/review/log/check")).json()
        assert checked == {"is_whole": True, "flaw": "", "lines": 6, "head": lines[-1].hash}
        assert flaw_in(lines) == ""
        mutants = [
            [*lines[:2], changed(lines[2], who="somebody else"), *lines[3:]],
            [*lines[:2], *lines[3:]],
            [*lines[:1], changed(lines[1], after={}), *lines[2:]],
            [lines[1], lines[0], *lines[2:]],
            lines[1:],
        ]
        assert all(flaw_in(mutant) for mutant in mutants)
        assert len((await client.get("/v1/review/log?n=4")).json()["lines"]) == 4

    make_place(**WORDS).call(routes, work)


def test_other_apis_show_nothing_held_either(make_place: Callable[..., Place], served: Served) -> None:
    def both(service: Service, metrics: ServingMetrics) -> Any:
        router = gorse.routes(service, metrics)
        router.routes.extend(metarank.routes(service, metrics).routes)
        router.routes.extend(page_routes(service, metrics).routes)
        return router

    async def work(client: httpx.AsyncClient, service: Service) -> None:
        one = service.of("default")
        await one.intake.put_items([Item("bad", "Fake passports", timestamp=4e9), Item("ok", "Whales", timestamp=3e9)])
        for path in ("/api/latest?n=5", "/api/recommend/anna?n=100", "/api/popular?n=100"):
            answer = await client.get(path)
            assert '"bad"' not in answer.text, path
        assert '"ok"' in (await client.get("/api/latest?n=5")).text
        ranking = {"id": "r", "timestamp": "1", "user": "u", "items": [{"id": "bad"}, {"id": "ok"}]}
        answer = await client.post("/rank/default", json=ranking)
        assert [item["item"] for item in answer.json()["items"]] == ["ok"]
        assert (await client.get("/shop/items/bad?user=anna")).status_code == 404
        assert "Fake passports" not in (await client.get("/shop/search?q=passports&user=anna")).text
        page = (await client.get("/operate/review")).text
        assert "Fake passports" in page
        assert "fake passport*" in page

    make_place(**WORDS).call(both, work)


def test_metrics_say_how_many_wait_and_how_long(make_place: Callable[..., Place]) -> None:
    place = make_place(**WORDS)

    async def work(service: Service) -> None:
        figures = Starting(place.folder, place.settings, lambda say: place.served)._figures
        before = figures(service)
        assert before is not None
        assert (before.review_waiting, before.review_oldest_seconds) == (0, 0.0)
        await service.of("default").intake.put_items([Item("bad", "fake id")])
        await asyncio.sleep(0.01)
        after = figures(service)
        assert after is not None
        assert (after.review_waiting, (after.review_oldest_seconds or 0) > 0) == (1, True)

    place.run(work)


def test_floors_hold_in_what_is_served_and_are_told(make_place: Callable[..., Place], served: Served) -> None:
    kind = served.catalog.categories[0][0]
    members = {name for name, kinds in zip(served.catalog.ids, served.catalog.categories, strict=True) if kind in kinds}

    def share_of(settings: dict[str, Any]) -> tuple[float, dict[str, Any]]:
        async def work(client: httpx.AsyncClient, service: Service) -> tuple[float, dict[str, Any]]:
            found = [ids(await client.get(f"/v1/recommend/u{n}?n=10")) for n in range(60)]
            late = [item in members for listed in found[30:] for item in listed]
            return sum(late) / len(late), (await client.get("/v1/exposure")).json()

        return make_place(fairness=settings).call(routes, work)

    plain, told = share_of({})
    assert told["groups"] == []
    wanted = min(0.9, plain + 0.3)
    each, _ = share_of({"way": "each", "shares": {kind: wanted}})
    assert each >= min(wanted - 0.1, len(members) / 10) - 1e-9
    amortised, told = share_of({"rate": 1.0, "shares": {kind: wanted}})
    assert amortised > plain
    assert told["groups"][0]["given"] > plain
