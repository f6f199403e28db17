"""Who gets through to the routes of the service, how often, how much, and what they are told otherwise."""

import asyncio
import threading
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, Request
from starlette.types import ASGIApp

from fedrec.errors import StorageError
from fedrec_client.serving.http.app import make_app
from fedrec_client.serving.http.keys import KeyRing, secret_in
from fedrec_client.serving.http.metrics import EngineFigures, ServingMetrics
from fedrec_client.serving.http.problems import RefusalError
from fedrec_client.serving.http.rates import Buckets
from fedrec_client.serving.http.scopes import granted, scope_needed
from fedrec_client.serving.settings import HttpSettings, ServingSettings

PLACE = "http://localhost:8088"


@dataclass(frozen=True)
class Key:
    name: str
    tenant: str
    scopes: tuple[str, ...]


KEYS = {
    "r": Key("reader", "shop-de", ("read",)),
    "w": Key("writer", "shop-de", ("write",)),
    "a": Key("owner", "shop-fr", ("admin",)),
}


@dataclass
class Book:
    """Keys as the store has them, and how often it was asked."""

    keys: dict[str, Key] = field(default_factory=lambda: dict(KEYS))
    asked: list[str] = field(default_factory=list)

    def find(self, secret: str) -> Key | None:
        self.asked.append(secret)
        return self.keys.get(secret)

    def has_keys(self) -> bool:
        return bool(self.keys)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def routes() -> APIRouter:
    router = APIRouter()

    @router.get("/v1/recommend/{user}")
    @router.post("/v1/recommend/{user}")
    async def recommend(user: str, request: Request) -> dict[str, Any]:
        state = request.state
        return {"tenant": state.tenant, "key": state.key, "scopes": sorted(state.scopes)}

    @router.post("/v1/events")
    @router.post("/feedback")
    async def take(request: Request) -> int:
        return len(await request.body())

    @router.post("/v1/rank/{seconds}")
    async def rank(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "ranked"

    @router.delete("/v1/users/{user}")
    async def forget(user: str) -> str:
        return "forgotten"

    return router


@dataclass
class Service:
    app: ASGIApp
    book: Book
    clock: Clock
    metrics: ServingMetrics
    ring: KeyRing

    def ask(self, *calls: dict[str, Any]) -> list[httpx.Response]:
        """All at once."""

        async def all_of_them() -> list[httpx.Response]:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url=PLACE) as client:
                return await asyncio.gather(*(client.request(**{"method": "GET", **call}) for call in calls))

        return asyncio.run(all_of_them())

    def get(self, url: str = "/v1/recommend/u", **call: Any) -> httpx.Response:
        (answer,) = self.ask({"url": url, **call})
        return answer


def service(book: Book | None = None, more: dict[str, Any] | None = None, **http: Any) -> Service:
    book, clock = book or Book(), Clock()
    metrics = ServingMetrics(EngineFigures)
    ring = KeyRing(book.find, book.has_keys, 5.0, clock)
    settings = ServingSettings.model_validate({"format": 1, "http": HttpSettings(**http), **(more or {})})
    app = make_app(settings, [routes()], ring=ring, metrics=metrics, is_ready=lambda: False, on_stop=lambda: None)
    return Service(app, book, clock, metrics, ring)


def key(secret: str, **more: str) -> dict[str, str]:
    return {"x-api-key": secret, **more}


def without_keys(**http: Any) -> Service:
    return service(Book({}), **http)


@pytest.mark.parametrize(
    "headers",
    [{"x-api-key": "r"}, {"authorization": "Bearer r"}, {"authorization": "Basic " + b64encode(b":r").decode()}],
)
def test_a_key_opens_and_says_whose_data_it_is(headers: dict[str, str]) -> None:
    answer = service().get(headers=headers)
    assert answer.status_code == 200
    assert answer.json() == {"tenant": "shop-de", "key": "reader", "scopes": ["read"]}


@pytest.mark.parametrize(
    "headers", [{}, {"x-api-key": "no"}, {"authorization": "Bearer "}, {"authorization": "Basic %"}]
)
def test_without_a_good_key_nobody_gets_in_where_keys_exist(headers: dict[str, str]) -> None:
    answer = service().get(headers=headers)
    assert answer.status_code == 401
    assert answer.json()["type"] == "urn:fedrec:error:unauthorized"
    assert answer.headers["www-authenticate"] == "Bearer"


def test_a_browser_is_asked_for_a_key_as_password() -> None:
    assert service().get("/", headers={"accept": "text/html"}).headers["www-authenticate"].startswith("Basic")


@pytest.mark.parametrize(
    ("secret", "method", "url", "status"),
    [
        ("r", "GET", "/v1/recommend/u", 200),
        ("r", "POST", "/v1/recommend/u", 200),
        ("r", "POST", "/v1/events", 403),
        ("w", "POST", "/v1/events", 200),
        ("w", "GET", "/v1/recommend/u", 403),
        ("w", "DELETE", "/v1/users/u", 403),
        ("a", "DELETE", "/v1/users/u", 200),
        ("a", "POST", "/v1/events", 200),
        ("r", "GET", "/v1/none", 403),
        ("a", "GET", "/v1/none", 404),
    ],
)
def test_a_key_may_do_what_its_scopes_say(secret: str, method: str, url: str, status: int) -> None:
    assert service().get(url, method=method, headers=key(secret)).status_code == status


@pytest.mark.parametrize(
    ("call", "need"),
    [
        ("GET /health", "open"),
        ("GET /api/health/ready", "open"),
        ("POST /health", "admin"),
        ("GET /metrics", "read"),
        ("HEAD /api/recommend/u", "read"),
        ("POST /api/session/recommend", "read"),
        ("GET /api/item/i/neighbors/", "read"),
        ("GET /api/item/i/feedback/", "admin"),
        ("GET /api/item-to-item/neighbors/i", "read"),
        ("PUT /api/feedback", "write"),
        ("GET /api/feedback", "admin"),
        ("DELETE /api/feedback/t/u/i", "write"),
        ("PATCH /api/user/u", "write"),
        ("GET /api/user/u", "admin"),
        ("DELETE /api/user/u", "admin"),
        ("GET /api/users", "admin"),
        ("GET /api/dashboard/stats", "admin"),
        ("POST /v1/users", "write"),
        ("POST /v1/users/u/export", "admin"),
        ("GET /v1/users/u/export/all", "admin"),
        ("POST /v1/rules", "admin"),
        ("POST /v1/keys", "admin"),
        ("GET /", "admin"),
        ("GET /v1/recommendable", "admin"),
        ("GET /v1/recommend/../keys", "read"),
        ("GET //v1/keys", "admin"),
        ("GET /v1/docs\n", "admin"),
        ("POST /feedback", "write"),
        ("POST /rank/xgboost", "read"),
        ("POST /train/xgboost", "admin"),
        ("OPTIONS /v1/recommend/u", "admin"),
    ],
)
def test_the_table_of_scopes(call: str, need: str) -> None:
    method, _, path = call.partition(" ")
    assert scope_needed(method, path) == need


def test_scopes_that_are_not_known_grant_nothing() -> None:
    assert granted(frozenset({"root"})) == frozenset()
    assert granted(frozenset({"write", "read"})) == {"read", "write"}
    assert granted(frozenset({"admin"})) == {"read", "write", "admin"}


def test_without_keys_the_loopback_is_open() -> None:
    answer = without_keys().get()
    assert answer.json() == {"tenant": "default", "key": "", "scopes": ["admin", "read", "write"]}
    # Gorse's clients always send a key, though it may be anything.
    assert without_keys().get(headers=key("whatever")).status_code == 200


def test_without_keys_nothing_else_is() -> None:
    assert without_keys(host="0.0.0.0").get().status_code == 401
    assert without_keys(behind_proxy=True).get().status_code == 401, "a proxy may pass on no header that tells it"
    several = {"tenants": [{"name": "a"}, {"name": "b"}]}
    assert service(Book({}), several).get().status_code == 401


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil", "", "[", "10.0.0.1"])
def test_without_keys_a_name_that_leads_here_is_refused(host: str) -> None:
    assert without_keys().get(headers={"host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8088", "[::1]:8088"])
def test_without_keys_this_machines_own_names_are_taken(host: str) -> None:
    assert without_keys().get(headers={"host": host}).status_code == 200


@pytest.mark.parametrize("name", ["X-Forwarded-For", "Forwarded", "X-Real-IP"])
def test_without_keys_what_a_proxy_passes_on_is_refused(name: str) -> None:
    assert without_keys().get(headers={name: "10.0.0.1"}).status_code == 401
    assert service().get(headers=key("r", **{name: "10.0.0.1"})).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": PLACE}, 200),
        ({"origin": "https://shop.example"}, 200),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "none", "sec-fetch-mode": "navigate"}, 200),
    ],
)
def test_pages_of_other_sites_cannot_use_what_a_browser_adds_by_itself(headers: dict[str, str], status: int) -> None:
    allowed = ("https://shop.example",)
    assert without_keys(cors_origins=allowed).get(headers=headers).status_code == status
    basic = {"authorization": "Basic " + b64encode(b"me:r").decode()}
    assert service(cors_origins=allowed).get(headers=basic | headers).status_code == status
    # A header that a page must set by its own program says that it means it.
    assert service(cors_origins=allowed).get(headers=key("r", **headers)).status_code == 200


def test_a_link_may_lead_to_a_page() -> None:
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert without_keys().get("/", headers=link).status_code == 404
    assert without_keys().get("/", headers=link, method="POST").status_code == 403


def test_only_named_origins_may_read_from_a_browser() -> None:
    served = service(cors_origins=("https://shop.example",))
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "x-api-key"}
    own, other = {"origin": "https://shop.example"}, {"origin": "https://evil.example"}
    before = served.get("/v1/recommend/u", method="OPTIONS", headers=own | asked)
    assert before.status_code == 200
    assert before.headers["access-control-allow-origin"] == "https://shop.example"
    assert served.get(method="OPTIONS", headers=other | asked).status_code == 400
    assert served.get(headers=key("r", **own)).headers["access-control-allow-origin"] == "https://shop.example"
    assert "access-control-allow-origin" not in served.get(headers=key("r", **other)).headers
    refused = served.get(headers=own)
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, "https://shop.example")
    assert "access-control-allow-origin" not in service().get(headers=key("r", **own)).headers


def test_a_key_is_looked_up_once_in_some_seconds() -> None:
    served = service()
    for _ in range(3):
        served.get(headers=key("r"))
    assert served.book.asked == ["r"]
    del served.book.keys["r"]
    assert served.get(headers=key("r")).status_code == 200
    served.clock.now += 5.0
    assert served.get(headers=key("r")).status_code == 401


def test_a_revoked_key_opens_nothing_once_it_is_forgotten() -> None:
    served = service()
    served.get(headers=key("r"))
    del served.book.keys["r"]
    served.ring.forget()
    assert served.get(headers=key("r")).status_code == 401


def test_the_first_key_closes_the_service() -> None:
    served = without_keys()
    assert served.get().status_code == 200
    served.book.keys["r"] = KEYS["r"]
    served.ring.forget()
    assert served.get().status_code == 401


def test_many_who_wait_for_the_same_key_ask_once() -> None:
    served = service()
    answers = served.ask(*[{"url": "/v1/recommend/u", "headers": key("r")}] * 20)
    assert [answer.status_code for answer in answers] == [200] * 20
    assert served.book.asked == ["r"]


def test_wrong_keys_are_looked_up_only_so_often() -> None:
    served = service()
    served.get(headers=key("r"))
    statuses = [served.get(headers=key(f"wrong{i}")).status_code for i in range(25)]
    assert statuses == [401] * 20 + [429] * 5
    assert len(served.book.asked) == 21
    assert served.get(headers=key("r")).status_code == 200, "a key that is known does not suffer"
    served.clock.now += 1.0
    assert served.get(headers=key("w"), method="POST", url="/v1/events").status_code == 200
    assert served.get(headers=key("x" * 300)).status_code == 401


def test_a_store_that_cannot_be_read_lets_nobody_in() -> None:
    def fail(_: str) -> None:
        raise StorageError("/secret/path: no permission")

    served = service()
    served.ring._find = fail
    answer = served.get(headers=key("r"))
    assert answer.status_code == 503
    assert "/secret/path" not in answer.text


def test_a_key_may_send_only_so_often(monkeypatch: pytest.MonkeyPatch) -> None:
    served = service(requests_per_s=2.0)
    buckets = Buckets(2.0, 4.0, served.clock)
    monkeypatch.setattr("fedrec_client.serving.http.guard.Buckets", lambda *_: buckets)
    served = service(requests_per_s=2.0)
    statuses = [served.get(headers=key("r")).status_code for _ in range(5)]
    assert statuses == [200] * 4 + [429]
    refused = served.get(headers=key("r"))
    assert refused.headers["retry-after"] == "1"
    assert served.get("/metrics", headers=key("r")).status_code == 200
    assert served.get("/v1/events", method="POST", headers=key("w")).status_code == 200, "another key has its own"


def test_a_bucket_says_when_to_come_again() -> None:
    clock = Clock()
    buckets = Buckets(0.1, 1.0, clock)
    assert buckets.take("a") == 0
    assert (buckets.take("a"), buckets.wait_s("a"), buckets.wait_s("b")) == (10, 10, 0)
    clock.now += 9.5
    assert buckets.take("a") == 1
    clock.now += 0.5
    assert buckets.take("a") == 0


async def in_parts(n: int) -> AsyncIterator[bytes]:
    for _ in range(n):
        yield b"x" * (1 << 19)


@pytest.mark.parametrize("url", ["/v1/events", "/feedback"])
def test_a_body_that_is_too_large_is_refused_whatever_length_it_claims(url: str) -> None:
    served = service(body_mb=1)
    small = served.get(url, method="POST", headers=key("w"), content=in_parts(2))
    assert (small.status_code, small.json()) == (200, 1 << 20)
    for content in (in_parts(3), b"x" * ((1 << 20) + 1)):
        large = served.get(url, method="POST", headers=key("w"), content=content)
        assert large.status_code == 413
        assert "larger than 1048576 bytes" in large.text
    assert b'fedrec_serving_refused_total{reason="too-large"} 2.0' in served.metrics.exposition()[0]


def test_beyond_what_may_wait_there_is_503_but_health_answers() -> None:
    served = service(waiting=2)
    slow = {"url": "/v1/rank/0.2", "method": "POST", "headers": key("r")}
    watched = [{"url": url, "headers": key("r")} for url in ("/health", "/api/health/live", "/metrics")]
    *answers, health, live, metrics = served.ask(slow, slow, slow, *watched)
    assert [answer.status_code for answer in answers] == [200, 200, 503]
    assert answers[2].headers["retry-after"] == "1"
    assert (health.status_code, live.status_code, metrics.status_code) == (200, 200, 200)
    assert "fedrec_serving_requests_under_way 2.0" in metrics.text
    assert "fedrec_serving_requests_under_way 0.0" in served.get("/metrics", headers=key("r")).text
    assert served.get(headers=key("r")).status_code == 200


def test_what_takes_too_long_is_ended() -> None:
    answer = service(timeout_s=0.05).get("/v1/rank/5", method="POST", headers=key("r"))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["type"] == "urn:fedrec:error:timeout"


def test_a_body_that_does_not_come_is_the_senders_fault() -> None:
    async def never() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.sleep(5)

    answer = service(timeout_s=0.05).get("/v1/events", method="POST", headers=key("w"), content=never())
    assert answer.status_code == 408


@pytest.mark.parametrize(
    ("given", "is_kept"), [("abc-1.2_3:4", True), ("x" * 65, False), ("a b", False), ('a"b', False), ("", False)]
)
def test_every_answer_has_an_id(given: str, is_kept: bool) -> None:
    for headers in (key("r"), {}):
        one, other = (
            service().get(headers={**headers, "x-request-id": given}).headers["x-request-id"] for _ in range(2)
        )
        assert (one == other == given) if is_kept else (one != other and given not in (one, other))


def test_answers_are_for_nobodys_cache_and_pages_run_nothing_from_elsewhere() -> None:
    answer = service().get(headers=key("r"))
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    page = service().get("/v1/docs")
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-frame-options"] == "DENY"


def test_a_websocket_is_not_answered() -> None:
    async def call() -> None:
        async def nothing(*_: Any) -> Any:
            raise AssertionError

        await service().app({"type": "websocket", "path": "/", "headers": []}, nothing, nothing)

    asyncio.run(call())


def test_the_secret_is_found_where_clients_put_it() -> None:
    assert secret_in({b"x-api-key": b"a", b"authorization": b"Bearer b"}) == ("a", False)
    assert secret_in({b"authorization": b"bearer  b"}) == ("b", False)
    assert secret_in({b"authorization": b"Basic " + b64encode("é:s".encode())}) == ("s", True)
    assert secret_in({b"authorization": b"Digest x"}) == ("", False)


def test_a_look_up_that_fails_is_not_remembered() -> None:
    seen: list[Callable[[], Awaitable[Any]]] = []

    def find(_: str) -> Key | None:
        seen.append(find)
        if len(seen) == 1:
            raise StorageError("locked")
        return KEYS["r"]

    async def twice() -> Any:
        ring = KeyRing(find, lambda: True)
        with pytest.raises(StorageError):
            await ring.find("r", "a")
        return await ring.find("r", "a")

    assert asyncio.run(twice()) == KEYS["r"]


def test_a_refusal_names_its_problem() -> None:
    async def guess() -> None:
        ring = KeyRing(lambda _: None, lambda: True)
        for i in range(30):
            await ring.find(str(i), "a")

    with pytest.raises(RefusalError, match="too-often"):
        asyncio.run(guess())


def test_what_was_asked_before_a_key_was_revoked_is_not_remembered_after() -> None:
    begun, may_end, book = threading.Event(), threading.Event(), Book()

    def slowly(secret: str) -> Key | None:
        found = book.find(secret)
        begun.set()
        may_end.wait(5)
        return found

    async def revoke_meanwhile() -> tuple[Any, Any]:
        ring = KeyRing(slowly, lambda: True)
        first = asyncio.create_task(ring.find("r", "a"))
        await asyncio.to_thread(begun.wait, 5)
        del book.keys["r"]
        ring.forget()
        may_end.set()
        return await first, await ring.find("r", "a")

    assert asyncio.run(revoke_meanwhile()) == (KEYS["r"], None)


def test_who_goes_away_ends_nobody_elses_look_up() -> None:
    may_end = threading.Event()

    def slowly(secret: str) -> Key | None:
        may_end.wait(5)
        return KEYS.get(secret)

    async def leave() -> Any:
        ring = KeyRing(slowly, lambda: True)
        gone, stays = (asyncio.create_task(ring.find("r", "a")) for _ in range(2))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        may_end.set()
        found = await stays
        assert not ring._looking
        return found

    assert asyncio.run(leave()) == KEYS["r"]
