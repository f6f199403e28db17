"""What the guard remembers and bounds: look-ups of keys, guesses, rates, sizes, times, requests under way."""

import asyncio
import threading
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from fedrec.errors import StorageError
from fedrec_client.serving.http.keys import KeyRing, secret_in
from fedrec_client.serving.http.problems import RefusalError
from fedrec_client.serving.http.rates import Buckets
from tests.unit.guarded_service import KEYS, Book, Clock, Key, key, service, without_keys


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
