"""Whatever is sent to the gateway: an answer, never an exception, and errors are short JSON without inner words."""

import asyncio
import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, x448
from flwr.proto.fleet_pb2 import PullMessagesResponse
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fedrec_server.gateway.app import FLEET_CALLS

World = Any
Headers = list[tuple[bytes, bytes]]

OURS = ["/health", *(f"/fedrec/v1/{name}" for name in ("authority", "me", "terms", "catalog", "adapter", "leave"))]
PATHS = [*OURS, "/fedrec/v1/enrol", "/fedrec/v1/adapter/tensors", *(f"/v1/fleet/{name}" for name in FLEET_CALLS)]
METHODS = ["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"]
NAMES = ["fedrec-partner", "fedrec-time", "fedrec-signature", "flwr-public-key", "flwr-timestamp", "flwr-signature"]
NAMES += ["content-length", "content-type", "user-agent", "accept", "host", "flwr-x", "x-forwarded-for", "expect"]
TIMES = ["2026-01-01T00:00:00+00:00", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "now", "2026-01-01"]
NUMBERS = ["0", "-1", "9" * 5_000, "1e9", "²", "12"]
# What a parser of HTTP lets through in a value: anything but control characters.
VALUE = st.one_of(
    st.sampled_from([*TIMES, *NUMBERS, "shop", "\x80\xff"]).map(lambda text: text.encode("latin-1", "replace")),
    st.binary(max_size=80).map(lambda raw: bytes(byte for byte in raw if byte >= 32 and byte != 127)),
)
HEADERS = st.lists(st.tuples(st.sampled_from(NAMES).map(str.encode), VALUE), max_size=8)
PATH = st.one_of(st.sampled_from(PATHS), st.text(max_size=30).map(lambda text: f"/{text}"))
QUERY = st.one_of(st.just(b"hash=" + b"0" * 64), st.binary(max_size=40).map(lambda raw: raw.replace(b"\0", b"")))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
BODY = st.one_of(st.lists(st.binary(max_size=200), max_size=4), JSON.map(lambda value: [json.dumps(value).encode()]))
FUZZ = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def world(make_world: Callable[..., World]) -> Iterator[World]:
    world = make_world(held_s=0.0, look_s=0.01, strangers_per_s=1e6, calls_per_s=1e6)
    with asyncio.Runner() as runner:
        world.runner = runner  # one event loop for all examples: a new one costs more than the call
        yield world


def ask(world: World, method: str, path: str, query: bytes, headers: Headers, chunks: list[bytes]) -> tuple[int, bytes]:
    """One request as the listener hands it on; an exception is this one's."""
    told: list[dict[str, Any]] = []
    parts = [{"type": "http.request", "body": part, "more_body": True} for part in chunks]
    parts += [{"type": "http.request", "body": b"", "more_body": False}, {"type": "http.disconnect"}]
    scope = {"type": "http", "http_version": "1.1", "method": method, "scheme": "https", "root_path": ""}
    scope |= {"path": path, "raw_path": path.encode("utf-8", "replace"), "query_string": query, "headers": headers}
    scope |= {"client": ("1.2.3.4", 5), "server": ("gateway", 8443), "asgi": {"version": "3.0"}, "state": {}}

    async def receive() -> dict[str, Any]:
        return parts.pop(0) if len(parts) > 1 else parts[0]

    async def send(message: dict[str, Any]) -> None:
        told.append(message)

    world.runner.run(world.app(scope, receive, send))
    body = b"".join(message.get("body", b"") for message in told[1:])
    return int(told[0]["status"]), body


def assert_decent(status: int, body: bytes, method: str) -> None:
    assert 200 <= status < 500
    if status < 400 or method == "HEAD":
        return
    words = json.loads(body)
    assert list(words) == ["error"]
    assert len(words["error"]) < 120
    for inner in ("Traceback", "sql", "SQL", "superlink", "flwr", ".py", "Error", "registry", "object at"):
        assert inner not in words["error"]


@FUZZ
@given(method=st.sampled_from(METHODS), path=PATH, query=QUERY, headers=HEADERS, chunks=BODY)
@example("POST", "/fedrec/v1/enrol", b"", [(b"content-length", b"9" * 5_000)], [b"{}"])
@example("GET", "/fedrec/v1/me", b"", [(b"fedrec-partner", b"shop"), (b"fedrec-time", TIMES[1].encode())], [])
@example("GET", "/fedrec/v1/me", b"", [(b"fedrec-partner", b"shop"), (b"fedrec-time", TIMES[2].encode())], [])
def test_a_stranger_gets_a_short_answer_and_reaches_nobody(
    world: World, method: str, path: str, query: bytes, headers: Headers, chunks: list[bytes]
) -> None:
    status, body = ask(world, method, path, query, headers, chunks)
    assert_decent(status, body, method)
    if status < 300:
        assert path in ("/health", "/fedrec/v1/authority")
    assert world.upstream.calls == []


@FUZZ
@given(
    call=st.sampled_from([name for name in FLEET_CALLS if name != "pull-messages"]),
    query=QUERY,
    headers=HEADERS,
    chunks=BODY,
)
@example("get-run", b"", [(b"user-agent", b"\xe9")], [])
@example("get-run", b"", [(b"flwr-x", b"\xff\xfe")], [])
@example("get-run", b"", [(b"flwr-public-key", b"twice")], [])
def test_an_approved_node_that_sends_nonsense_breaks_nothing(
    world: World, call: str, query: bytes, headers: Headers, chunks: list[bytes]
) -> None:
    """What is passed on carries Flower's headers only, and the path that was asked for without its query."""
    world.upstream.calls.clear()
    own = [(name.encode(), value.encode()) for name, value in world.node_headers().items()]
    status, body = ask(world, "POST", f"/v1/fleet/{call}", query, [*own, *headers], chunks)
    if status != 200:
        assert_decent(status, body, "POST")
    for passed in world.upstream.calls:
        assert passed.url.raw_path == f"/v1/fleet/{call}".encode()
        ours = {name for name in passed.headers if not name.startswith("flwr-")}
        assert ours <= {
            "host",
            "content-type",
            "accept",
            "user-agent",
            "content-length",
            "accept-encoding",
            "connection",
        }


def test_of_a_header_that_comes_twice_the_one_that_was_checked_is_passed_on(world: World) -> None:
    own = [(name.encode(), value.encode()) for name, value in world.node_headers().items()]
    twice = [*own, (b"flwr-public-key", b"another"), (b"flwr-signature", b"another")]
    assert ask(world, "POST", "/v1/fleet/get-run", b"", twice, [])[0] == 200
    assert ask(world, "POST", "/v1/fleet/get-run", b"", twice[::-1], [])[0] == 401
    (passed,) = world.upstream.calls
    assert [value for name, value in passed.headers.multi_items() if name == "flwr-public-key"] == [world.node_key]


@FUZZ
@given(chunks=BODY)
def test_a_question_for_work_of_any_form_is_answered(world: World, chunks: list[bytes]) -> None:
    world.upstream.work_after = 10**6
    own = [(name.encode(), value.encode()) for name, value in world.node_headers().items()]
    status, body = ask(world, "POST", "/v1/fleet/pull-messages", b"", own, chunks)
    if status == 200:
        assert not PullMessagesResponse.FromString(body).messages_list
    else:
        assert_decent(status, body, "POST")


@FUZZ
@given(
    method=st.sampled_from(METHODS),
    path=st.sampled_from([path for path in OURS if path != "/fedrec/v1/leave"] + ["/fedrec/v1/adapter/tensors"]),
    query=QUERY,
    headers=HEADERS,
    chunks=BODY,
)
def test_a_partner_that_signs_nonsense_breaks_nothing(
    world: World, method: str, path: str, query: bytes, headers: Headers, chunks: list[bytes]
) -> None:
    text = query.decode("latin-1")
    signed = world.headers(method, f"{path}?{text}" if text else path)
    own = [(name.encode(), value.encode("latin-1")) for name, value in signed.items()]
    assert_decent(*ask(world, method, path, query, [*own, *headers], chunks), method)


KEYS = [
    ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key(),
    x448.X448PrivateKey.generate().public_key(),
]
PEMS = [one.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo) for one in KEYS]
# A key of a kind that nobody knows: object identifier 1.2.3.4.
UNKNOWN = base64.b64encode(bytes.fromhex("300d300506032a0304030400010203")).decode()
PEMS.append(f"-----BEGIN PUBLIC KEY-----\n{UNKNOWN}\n-----END PUBLIC KEY-----\n".encode() + b"\n" * 60)


@FUZZ
@given(
    name=st.sampled_from(["shop", "music", "", "../x", "a" * 65]) | st.text(max_size=70),
    secret=st.text(min_size=16, max_size=30),
    node_key=st.sampled_from([base64.b64encode(pem).decode() for pem in PEMS]) | st.text(min_size=90, max_size=120),
    signing_key=st.just("0" * 64) | st.text(alphabet="0123456789abcdef", min_size=64, max_size=64),
)
def test_an_enrolment_of_any_values_is_refused_in_words(
    world: World, name: str, secret: str, node_key: str, signing_key: str
) -> None:
    values = {"name": name, "secret": secret, "node_key": node_key, "signing_key": signing_key}
    status, body = ask(world, "POST", "/fedrec/v1/enrol", b"", [], [json.dumps(values).encode()])
    assert status == 403
    assert_decent(status, body, "POST")


@pytest.mark.parametrize(
    "fault",
    [
        httpx.ReadTimeout("inner"),
        httpx.ConnectError("inner"),
        httpx.RemoteProtocolError("inner"),
        httpx.LocalProtocolError("inner"),
        httpx.DecodingError("inner"),
        httpx.TooManyRedirects("inner"),
    ],
    ids=lambda fault: type(fault).__name__,
)
def test_a_superlink_that_fails_in_any_way_is_a_matter_of_waiting(world: World, fault: Exception) -> None:
    def fail(_: httpx.Request) -> httpx.Response:
        raise fault

    world.gateway.lane.client = httpx.AsyncClient(transport=httpx.MockTransport(fail), base_url="https://superlink")
    answer = world.fleet("get-run")
    assert answer.status_code == 503
    assert "inner" not in answer.text


def test_what_nobody_foresaw_is_told_without_its_words(world: World, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: bytes) -> None:
        raise RuntimeError("a path and a secret")

    world.gateway.desk.enrol = fail
    answer = world.call("POST", "/fedrec/v1/enrol", content=b"{}")
    assert answer.status_code == 500
    assert answer.json() == {"error": "the coordinator failed; its log says how"}
    assert "RuntimeError" in caplog.text
