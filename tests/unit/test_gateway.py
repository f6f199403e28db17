"""The gateway: only what is named exists, only partners pass, and nobody takes more than is theirs."""

import asyncio
import base64
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto.fleet_pb2 import PullMessagesRequest, PullMessagesResponse
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedrec.signing import SigningKey
from fedrec_server.gateway.app import FLEET_CALLS
from fedrec_server.gateway.bell import Bell
from fedrec_server.gateway.limits import Buckets

MakeWorld = Callable[..., Any]
World = Any


@pytest.mark.parametrize(
    "path",
    [
        "/v1/fleet/register-node",
        "/v1/fleet/unregister-node",
        "/v1/control/start-run",
        "/v1/runtime/acquire-task",
        "/v1/fleet/../control/start-run",
        "/v1/fleet/%2e%2e/control/start-run",
        "//v1/control/list-nodes",
        "/docs",
        "/openapi.json",
        "/internal/ring",
        "/ring",
        "/answers",
        "/metrics",
    ],
)
def test_what_is_not_named_does_not_exist(world: World, path: str) -> None:
    for method in ("GET", "POST", "PUT", "DELETE"):
        assert world.call(method, path, headers=world.node_headers()).status_code in (404, 405)
    assert world.upstream.calls == []


@pytest.mark.parametrize("name", FLEET_CALLS)
def test_an_approved_node_is_passed_on_and_nobody_else(world: World, name: str) -> None:
    answer = world.fleet(name)
    assert answer.status_code == 200
    assert "x-inner" not in answer.headers
    passed = len(world.upstream.calls)
    for key in ("", "nonsense", base64.b64encode(b"another").decode()):
        assert world.fleet(name, key=key).status_code == 401
    assert len(world.upstream.calls) == passed


def test_a_suspended_partner_is_cut_off(world: World) -> None:
    world.book.set_status("shop", "suspended", who="test")
    assert world.fleet("push-messages").status_code == 403
    assert world.signed("/fedrec/v1/terms").status_code == 403
    assert world.signed("/fedrec/v1/me").json()["status"] == "suspended"
    assert world.upstream.calls == []


def test_a_question_for_work_is_held_until_there_is_some(world: World) -> None:
    world.upstream.work_after = 2
    answer = world.fleet("pull-messages", PullMessagesRequest().SerializeToString())
    assert PullMessagesResponse.FromString(answer.content).messages_list
    assert len(world.upstream.calls) == 3


def test_a_question_for_work_is_answered_with_nothing_after_a_while(world: World) -> None:
    world.upstream.work_after = 10**6
    answer = world.fleet("pull-messages", PullMessagesRequest().SerializeToString())
    assert not PullMessagesResponse.FromString(answer.content).messages_list
    assert 2 <= len(world.upstream.calls) <= 8


def test_who_was_told_that_there_is_no_work_is_not_asked_for_again_but_must_sign(make_world: MakeWorld) -> None:
    """A thousand idle nodes would keep the SuperLink busy; what it does not see, the gateway checks as it does."""
    world = make_world(held_s=0.1, look_s=30.0)
    world.upstream.work_after = 10**6
    hour, foreign = timedelta(hours=1), ec.generate_private_key(ec.SECP384R1())

    async def run() -> list[tuple[int, int]]:
        """Status, and calls that the SuperLink has seen by then."""
        transport, found = httpx.ASGITransport(world.app), []
        async with httpx.AsyncClient(transport=transport, base_url="https://gateway") as client:
            stale = [world.node_headers(at=datetime.now(UTC) + shift) for shift in (-hour, hour)]
            unsigned = {FLEET_HTTP_PUBLIC_KEY_HEADER: world.node_key}
            fresh = [world.node_headers() for _ in range(2)]
            for headers in (*fresh, *stale, world.node_headers(secret=foreign), unsigned):
                status = (await client.post("/v1/fleet/pull-messages", headers=headers)).status_code
                found.append((status, len(world.upstream.calls)))
            world.gateway.bell.ring()
            await client.post("/v1/fleet/pull-messages", headers=world.node_headers())
            return [*found, (0, len(world.upstream.calls))]

    assert asyncio.run(run()) == [(200, 1), (200, 1), (401, 1), (401, 1), (401, 1), (401, 1), (0, 2)]


def test_few_calls_reach_the_superlink_at_once_and_heartbeats_pass_the_others(make_world: MakeWorld) -> None:
    world = make_world(at_once=3, beats_at_once=1)
    under_way, most, order = [0], [0], list[str]()

    async def slowly(request: httpx.Request) -> httpx.Response:
        under_way[0] += 1
        most[0] = max(most[0], under_way[0])
        await asyncio.sleep(0.02)
        under_way[0] -= 1
        order.append(request.url.path)
        return httpx.Response(200)

    world.gateway.lane.client = httpx.AsyncClient(transport=httpx.MockTransport(slowly), base_url="https://superlink")

    async def run() -> None:
        transport = httpx.ASGITransport(world.app)
        async with httpx.AsyncClient(transport=transport, base_url="https://gateway") as client:
            names = [*["push-messages"] * 12, "send-node-heartbeat"]
            calls = [client.post(f"/v1/fleet/{name}", headers=world.node_headers()) for name in names]
            await asyncio.gather(*calls)

    asyncio.run(run())
    assert most[0] <= 4
    assert order.index("/v1/fleet/send-node-heartbeat") < 6


def test_heartbeats_of_a_node_do_not_pile_up(world: World) -> None:
    arrived = [0]

    async def slowly(_: httpx.Request) -> httpx.Response:
        arrived[0] += 1
        await asyncio.sleep(0.1)
        return httpx.Response(200)

    world.gateway.lane.client = httpx.AsyncClient(transport=httpx.MockTransport(slowly), base_url="https://superlink")

    async def run() -> list[int]:
        transport = httpx.ASGITransport(world.app)
        async with httpx.AsyncClient(transport=transport, base_url="https://gateway") as client:
            beat = "/v1/fleet/send-node-heartbeat"
            beats = [client.post(beat, headers=world.node_headers()) for _ in range(5)]
            together = [answer.status_code for answer in await asyncio.gather(*beats)]
            return [*together, (await client.post(beat, headers=world.node_headers())).status_code]

    statuses = asyncio.run(run())
    assert sorted(statuses[:5]) == [200, 503, 503, 503, 503]
    assert statuses[5] == 200
    assert arrived[0] == 2


def test_the_bell_ends_the_wait_at_once(make_world: MakeWorld) -> None:
    world = make_world(held_s=30.0, look_s=30.0)
    world.upstream.work_after = 1

    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(world.app)
        async with httpx.AsyncClient(transport=transport, base_url="https://gateway", timeout=20.0) as client:
            asked = asyncio.create_task(client.post("/v1/fleet/pull-messages", headers=world.node_headers()))
            while not world.upstream.calls:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            world.gateway.bell.ring()
            return await asked

    assert PullMessagesResponse.FromString(asyncio.run(run()).content).messages_list


@pytest.mark.parametrize("held", ["waits", "asks the SuperLink"])
def test_a_held_question_is_answered_with_nothing_when_the_gateway_stops(make_world: MakeWorld, held: str) -> None:
    world = make_world(held_s=30.0, look_s=30.0 if held == "waits" else 0.01)
    world.upstream.work_after = 10**6

    async def run() -> tuple[httpx.Response, httpx.Response]:
        transport = httpx.ASGITransport(world.app)
        async with httpx.AsyncClient(transport=transport, base_url="https://gateway", timeout=20.0) as client:
            asked = asyncio.create_task(client.post("/v1/fleet/pull-messages", headers=world.node_headers()))
            while not world.upstream.calls:
                await asyncio.sleep(0.01)
            world.gateway.stop()
            late = await client.post("/v1/fleet/pull-messages", headers=world.node_headers())
            return await asked, late

    started = time.monotonic()
    for answer in asyncio.run(run()):
        assert answer.status_code == 200
        assert not PullMessagesResponse.FromString(answer.content).messages_list
    assert time.monotonic() - started < 5.0


def test_an_answer_is_heard_once_it_is_whole() -> None:
    """The driver looks when a node is done pushing, also if that was before it began to listen."""

    async def run() -> tuple[int, int, float]:
        bell, started = Bell(), time.monotonic()

        async def push() -> None:
            for _ in range(3):
                await asyncio.sleep(0.02)
                bell.ring()

        asyncio.create_task(push()).add_done_callback(lambda _: None)
        whole = await bell.settle(0, 10.0)
        bell.ring()
        late = await bell.settle(whole, 10.0)
        return whole, late, time.monotonic() - started

    whole, late, seconds = asyncio.run(run())
    assert (whole, late) == (3, 4)
    assert seconds < 5
    assert asyncio.run(Bell().settle(0, 0.05)) == 0


@pytest.mark.parametrize("path", ["/fedrec/v1/me", "/fedrec/v1/terms", "/fedrec/v1/catalog", "/fedrec/v1/adapter"])
def test_what_is_ours_needs_a_partners_fresh_signature(world: World, path: str) -> None:
    assert world.signed(path).status_code == 200
    hour = timedelta(hours=1)
    late, early = (world.signed(path, at=datetime.now(UTC) + shift) for shift in (-hour, hour))
    foreign = world.signed(path, key=SigningKey(bytes([1] * 32)))
    moved = world.signed("/fedrec/v1/me?x=1", **{"fedrec-signature": "AAAA"})
    named = world.signed(path, **{"fedrec-partner": "nobody"})
    naive = world.signed(path, at=datetime.now())
    unsigned = world.call("GET", path)
    refused = [late, early, foreign, moved, named, naive, unsigned]
    assert {answer.status_code for answer in refused} == {401}
    assert len({answer.text for answer in refused}) == 1


def test_an_approved_partner_wishes_for_a_round_and_nobody_else(world: World) -> None:
    path = "/fedrec/v1/wish"
    assert world.book.partner("shop").wished_at == ""
    headers = world.headers("POST", path)
    assert world.call("POST", path, headers=headers, content=b"what nobody reads").status_code == 200
    wished_at = world.book.partner("shop").wished_at
    assert abs((datetime.now(UTC) - datetime.fromisoformat(wished_at)).total_seconds()) < 60
    assert world.call("POST", path, headers=headers).status_code == 409
    assert world.call("POST", path).status_code == 401
    assert world.call("POST", path, headers=world.headers("POST", path, name="nobody")).status_code == 401
    world.book.set_status("shop", "suspended", who="anna")
    time.sleep(1.1)  # a status is remembered for a second
    assert world.call("POST", path, headers=world.headers("POST", path)).status_code == 403
    assert world.book.partner("shop").wished_at == wished_at


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        json.dumps({"name": "shop2"}).encode(),
        json.dumps({"name": "../x", "secret": "s" * 20, "node_key": "A" * 200, "signing_key": "0" * 64}).encode(),
        json.dumps({"name": "x", "secret": "s" * 20, "node_key": "A" * 200, "signing_key": "0" * 64}).encode(),
    ],
)
def test_a_bad_enrolment_is_refused_in_words(world: World, body: bytes) -> None:
    answer = world.call("POST", "/fedrec/v1/enrol", content=body)
    assert answer.status_code == 403
    assert answer.json()["error"].startswith("not an enrolment")


def test_a_body_too_large_is_refused_whether_it_says_so_or_not(make_world: MakeWorld) -> None:
    world = make_world(object_bytes=100)
    assert world.fleet("push-object", b"x" * 100).status_code == 200
    assert world.fleet("push-object", b"x" * 101).status_code == 413

    async def unsaid() -> Any:
        for _ in range(3):
            yield b"x" * 50

    headers = world.node_headers()
    assert world.call("POST", "/v1/fleet/push-object", content=unsaid(), headers=headers).status_code == 413
    assert len(world.upstream.calls) == 1


def test_a_partner_has_so_many_bytes_under_way_and_others_have_their_own(make_world: MakeWorld) -> None:
    world = make_world(object_bytes=100)
    bodies = world.gateway._bodies
    with bodies.hold("shop", 60), bodies.hold("shop", 60):
        assert world.fleet("push-object", b"x" * 80).status_code == 200
        assert world.fleet("push-object", b"x" * 81).status_code == 429
        assert world.fleet("push-messages", b"x" * 81).status_code == 200  # small ones are not counted
        with bodies.hold("music", 200):
            pass
    assert bodies._held == {}
    assert world.fleet("push-object", b"x" * 100).status_code == 200
    assert bodies._held == {}


def test_who_calls_too_often_waits(make_world: MakeWorld) -> None:
    world = make_world(calls_per_s=0.001, burst=2, strangers_per_s=0.1)
    assert [world.fleet("push-object").status_code for _ in range(3)] == [200, 200, 429]
    assert [world.call("GET", "/fedrec/v1/authority").status_code for _ in range(2)] == [200, 429]


def test_a_bucket_fills_up_again_and_forgets_callers() -> None:
    buckets = Buckets(per_s=1e9, burst=2)
    assert all(buckets.take(str(number)) for number in range(20_001))
    assert len(buckets._left) <= 10_000


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(["/fedrec/v1/enrol", "/v1/fleet/pull-messages", "/v1/fleet/push-object", "/fedrec/v1/me"]),
    body=st.binary(max_size=300),
    headers=st.dictionaries(
        st.sampled_from(["fedrec-partner", "fedrec-time", "fedrec-signature", "flwr-public-key", "content-length"]),
        st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60),
    ),
)
def test_no_request_makes_it_fail(world: World, path: str, body: bytes, headers: dict[str, str]) -> None:
    world.upstream.calls.clear()
    answer = world.call("GET" if path.endswith("me") else "POST", path, content=body, headers=headers)
    assert 400 <= answer.status_code < 500
    assert world.upstream.calls == []
