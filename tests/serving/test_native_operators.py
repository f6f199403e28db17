"""Our own API for the partner's people: rules, A/B, status, keys, tenants."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from fedrec_client.serving.api.native.router import routes
from fedrec_client.serving.http.app import make_app
from fedrec_client.serving.http.keys import KeyRing
from fedrec_client.serving.http.metrics import ServingMetrics
from fedrec_client.serving.service import Served, Service
from tests.serving.conftest import Place

# What hands people over, or is for the partner's own people.
from tests.serving.native_calls import like, path_of, problem


def test_rules_are_tried_made_changed_and_removed(place: Place, served: Served) -> None:
    (place.folder / "rules.toml").write_text('[[rules]]\nname = "fixed"\naction = "exclude"\nitems = ["1"]\n')
    item = served.catalog.ids[5]

    async def work(client: httpx.AsyncClient, service: Service) -> None:
        rule: dict[str, Any] = {"name": "top", "action": "pin", "items": [item], "position": 1}
        assert (await client.post("/v1/rules/try", json=rule)).json() == {"count": 1, "ids": [item], "is_due": True}
        assert len((await client.get("/v1/rules")).json()["rules"]) == 1
        made = await client.post("/v1/rules", json=rule)
        assert (made.status_code, made.json()["is_in_file"]) == (201, False)
        assert problem(await client.post("/v1/rules", json=rule)) == (409, "conflict")
        first = (await client.get("/v1/recommend/anna")).json()["items"][0]
        assert (first["id"], first["source"], first["rules"]) == (item, "pinned", ["top"])
        assert (await client.put("/v1/rules/top", json={**rule, "enabled": False})).json()["is_due"] is False
        assert (await client.get("/v1/rules/top")).json()["rule"]["enabled"] is False
        fixed = {"name": "fixed", "action": "exclude", "category": "War"}
        assert problem(await client.put("/v1/rules/fixed", json=fixed)) == (409, "conflict")
        assert problem(await client.delete("/v1/rules/fixed")) == (409, "conflict")
        assert (await client.delete("/v1/rules/top")).json() == {"removed": "top", "case": None}
        (place.folder / "rules.toml").write_text("rules = 3\n")
        assert problem(await client.post("/v1/rules/reload")) == (400, "malformed")
        (place.folder / "rules.toml").unlink()
        assert (await client.post("/v1/rules/reload")).json() == {"rules": []}

    place.call(routes, work)


def test_arms_are_compared_by_the_clicks_on_their_lists(make_place: Callable[..., Place]) -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        for arm, n_clicked in (("a", 1), ("b", 3)):
            for at in range(4):
                shown = (await client.get(f"/v1/recommend/u{at}", params={"arm": arm, "n": 2})).json()
                if at < n_clicked:
                    click = {"type": "click", "user": f"u{at}", "item": shown["items"][0]["id"]}
                    await client.post("/v1/events", json={**click, "ranking": shown["ranking"]})
        await like(client, "somebody", "else")  # behind the lists that wait to be written
        told = (await client.get("/v1/arms")).json()
        assert [(one["arm"], one["shown"], one["clicked"]) for one in told["arms"]] == [("a", 4, 1), ("b", 4, 3)]
        assert told["arms"][1]["difference"] == pytest.approx(0.5)
        assert {one["adapter"] for one in told["by_adapter"]} == {"round-0001"}
        assert [one["clicked"] for one in (await client.get("/v1/arms?type=buy")).json()["arms"]] == [0, 0]

    make_place(arms=[{"name": "a", "share": 0.5}, {"name": "b", "share": 0.5}]).call(routes, work)


def test_the_status_counts(place: Place, served: Served) -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        await like(client, "anna", *served.catalog.ids[:3])
        await client.get("/v1/recommend/anna")
        told = (await client.get("/v1/status")).json()
        assert told == {
            "tenant": "default",
            "adapter": "round-0001",
            "items": 40,
            "users_in_memory": 1,
            "events": 3,
            "readings_kept": 1,
            "waiting": 0,
            "epsilon_remaining": 2.5,
        }

    place.call(lambda service, metrics: routes(service, metrics, None, lambda: 2.5), work)


def test_keys_close_the_service_and_open_what_their_scopes_say(place: Place) -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        assert problem(await client.post("/v1/keys", json={"name": "r", "scopes": ["read"]})) == (409, "conflict")
        owner = (await client.post("/v1/keys", json={"name": "owner", "scopes": ["admin"]})).json()
        assert problem(await client.get("/v1/keys")) == (401, "unauthorized")
        client.headers["x-api-key"] = owner["secret"]
        shop = {"name": "shop", "scopes": ["write", "read"]}
        made = (await client.post("/v1/keys", json=shop)).json()
        assert problem(await client.post("/v1/keys", json=shop)) == (409, "conflict")
        assert [(k["name"], k["scopes"]) for k in (await client.get("/v1/keys")).json()["keys"]] == [
            ("owner", ["admin"]),
            ("shop", ["read", "write"]),
        ]
        theirs = {"x-api-key": made["secret"]}
        assert (await client.get("/v1/recommend/anna", headers=theirs)).status_code == 200
        assert (await client.delete(path_of("users", "a/b", "blocks", "item", "x"), headers=theirs)).status_code == 200
        refused = await client.delete(path_of("users", "a/blocks/b"), headers=theirs)
        assert problem(refused) == (403, "forbidden")
        assert problem(await client.get("/v1/users", headers=theirs)) == (403, "forbidden")
        assert problem(await client.delete("/v1/keys/owner")) == (409, "conflict")
        assert (await client.delete("/v1/keys/shop")).json() == {"revoked": "shop"}
        assert problem(await client.get("/v1/recommend/anna", headers=theirs)) == (401, "unauthorized")

    async def inside(service: Service) -> None:
        metrics, book = ServingMetrics(lambda: None), service.store.keys
        ring = KeyRing(book.find, lambda: bool(book.every()))
        app = make_app(
            place.settings,
            [routes(service, metrics, ring)],
            ring=ring,
            metrics=metrics,
            is_ready=service.is_ready,
            on_stop=lambda: None,
        )
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            await work(client, service)

    place.run(inside)


def test_a_key_of_one_tenant_is_none_of_anothers_business(make_place: Callable[..., Place]) -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        keys = service.store.keys
        client.headers["x-api-key"] = keys.create("a", "ours", {"admin"})
        theirs = keys.create("b", "theirs", {"admin"})
        assert [key["name"] for key in (await client.get("/v1/keys")).json()["keys"]] == ["ours"]
        assert problem(await client.delete("/v1/keys/theirs")) == (404, "no-such-key")
        assert (await client.get("/v1/status", headers={"x-api-key": theirs})).json()["tenant"] == "b"

    make_place(tenants=[{"name": "a"}, {"name": "b"}]).call(routes, work)
