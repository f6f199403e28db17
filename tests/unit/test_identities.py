"""A partner that claims to be another one, and calls that are played again."""

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto.fleet_pb2 import PullMessagesRequest
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from fedrec.signing import SigningKey
from fedrec_server.gateway.app import FLEET_CALLS
from fedrec_server.gateway.proofs import UsedRequests, is_nodes_signature

World = Any
MUSIC = SigningKey(bytes([2] * 32))
MUSIC_NODE = ec.derive_private_key(11, ec.SECP384R1())
MUSIC_NODE_KEY = base64.b64encode(public_key_to_bytes(MUSIC_NODE.public_key())).decode()


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """With a second approved partner, who is up to no good."""
    world = make_world(held_s=0.1, look_s=0.05, calls_per_s=0.001, burst=3)
    secret = world.book.invite("music", valid_for=timedelta(hours=1), is_approved=True)
    world.book.enrol("music", secret, node_key=MUSIC_NODE_KEY, signing_key=MUSIC.public.hex())
    world.book.set_status("music", "approved", who="test")
    return world


def status_of(world: World, name: str) -> str:
    return str(world.book.partner(name).status)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/fedrec/v1/me"),
        ("GET", "/fedrec/v1/terms"),
        ("GET", "/fedrec/v1/catalog"),
        ("GET", "/fedrec/v1/adapter"),
        ("GET", "/fedrec/v1/adapter/tensors?hash=x"),
        ("POST", "/fedrec/v1/leave"),
    ],
)
def test_a_call_under_anothers_name_is_a_strangers(world: World, method: str, path: str) -> None:
    own = world.headers(method, path, key=MUSIC, name="shop")
    renamed = {**world.headers(method, path, key=MUSIC, name="music"), "fedrec-partner": "shop"}
    for headers in (own, renamed):
        for _ in range(5):
            assert world.call(method, path, headers=headers).status_code == 401
    assert status_of(world, "shop") == status_of(world, "music") == "approved"
    assert world.signed("/fedrec/v1/me").status_code == 200  # and nothing of its allowance is gone


def test_a_signature_is_for_one_call_alone(world: World) -> None:
    """Not for another method, path or query, and not with another time in the header."""
    asked = world.headers("GET", "/fedrec/v1/me")
    assert world.call("POST", "/fedrec/v1/leave", headers=asked).status_code == 401
    assert world.call("GET", "/fedrec/v1/terms", headers=asked).status_code == 401
    assert world.call("GET", "/fedrec/v1/me?x=1", headers=asked).status_code == 401
    later = {**asked, "fedrec-time": (datetime.now(UTC) + timedelta(seconds=1)).isoformat()}
    assert world.call("GET", "/fedrec/v1/me", headers=later).status_code == 401
    assert status_of(world, "shop") == "approved"


@pytest.mark.parametrize("name", FLEET_CALLS)
def test_anothers_node_key_with_an_own_signature_never_reaches_flower(world: World, name: str) -> None:
    headers = world.node_headers(secret=MUSIC_NODE)
    unsigned = {FLEET_HTTP_PUBLIC_KEY_HEADER: world.node_key}
    garbled = {**world.node_headers(), FLEET_HTTP_SIGNATURE_HEADER: "A" * 4_000}
    for wrong in (headers, unsigned, garbled):
        for _ in range(2):
            assert world.call("POST", f"/v1/fleet/{name}", content=b"x", headers=wrong).status_code == 401
    assert world.upstream.calls == []
    assert world.book.partner("shop").last_seen == ""
    assert world.fleet("push-object").status_code == 200  # and nothing of its allowance is gone


def test_a_partner_uses_up_its_own_allowance_alone(world: World) -> None:
    music = [
        world.call("POST", "/v1/fleet/push-object", headers=world.node_headers(MUSIC_NODE_KEY, secret=MUSIC_NODE))
        for _ in range(5)
    ]
    assert [answer.status_code for answer in music] == [200, 200, 200, 429, 429]
    body = PullMessagesRequest().SerializeToString()
    assert world.fleet("pull-messages", body).status_code == 200


@pytest.mark.parametrize("changed", ["name", "node_key", "signing_key"])
def test_an_invitation_gives_nobody_anothers_name_or_keys(world: World, changed: str) -> None:
    """And is not spent on the attempt."""
    secret = world.book.invite("books", valid_for=timedelta(hours=1), is_approved=True)
    fresh = ec.derive_private_key(13, ec.SECP384R1()).public_key()
    own = {
        "name": "books",
        "secret": secret,
        "node_key": base64.b64encode(public_key_to_bytes(fresh)).decode(),
        "signing_key": SigningKey(bytes([3] * 32)).public.hex(),
    }
    shops = {"name": "shop", "node_key": world.node_key, "signing_key": world.key.public.hex()}
    wrong = json.dumps({**own, changed: shops[changed]})
    assert world.call("POST", "/fedrec/v1/enrol", content=wrong).status_code == 403
    assert world.call("POST", "/fedrec/v1/enrol", content=json.dumps(own)).json()["status"] == "approved"
    assert world.book.partner("shop").node_key == world.node_key


def test_a_call_that_leaves_is_good_once(world: World) -> None:
    """Also while the gateway still remembers the partner as approved, and if somebody put it back by hand."""
    headers = world.headers("POST", "/fedrec/v1/leave")
    assert world.call("POST", "/fedrec/v1/leave", headers=headers).json()["status"] == "removed"
    assert world.call("POST", "/fedrec/v1/leave", headers=headers).status_code == 401
    assert world.signed("/fedrec/v1/me").status_code == 401  # at once
    before = world.book.partner("shop")
    world.gateway.desk.book = Unchanged(world.gateway.desk.book, before)
    world.gateway.desk._forget()
    respelled = {**headers, "fedrec-signature": respell(headers["fedrec-signature"])}
    for again in (headers, respelled):
        refused = world.call("POST", "/fedrec/v1/leave", headers=again)
        assert (refused.status_code, refused.json()) == (409, {"error": "this very request came before"})
    assert world.gateway.desk.book.changes == 0


def test_beyond_the_window_a_call_is_refused_whether_it_is_remembered_or_not(world: World) -> None:
    for shift in (timedelta(seconds=-61), timedelta(seconds=61)):
        headers = world.headers("POST", "/fedrec/v1/leave", at=datetime.now(UTC) + shift)
        assert world.call("POST", "/fedrec/v1/leave", headers=headers).status_code == 401
    assert status_of(world, "shop") == "approved"


def test_a_call_from_the_clocks_future_is_remembered_until_it_is_too_old() -> None:
    used, now = UsedRequests(good_s=60.0), datetime.now(UTC)
    ahead = now + timedelta(seconds=59)
    assert used.take("shop", "leave", ahead) == "first"
    assert used.take("shop", "leave", ahead) == "again"
    assert used.take("music", "leave", ahead) == "first"


def test_what_is_remembered_of_calls_is_bounded_and_one_partner_costs_no_other() -> None:
    used, now = UsedRequests(good_s=60.0), datetime.now(UTC)
    told = [used.take("shop", f"leave {number}", now) for number in range(2_000)]
    assert told.count("first") == 64
    assert set(told) == {"first", "too many"}
    assert used.take("shop", "leave 0", now) == "again"
    assert used.take("music", "leave", now) == "first"
    old = now - timedelta(seconds=61)
    for number in range(2_000):
        assert used.take("books", f"leave {number}", old) == "first"
    assert len(used._used["books"]) == 1


@pytest.mark.parametrize("key", ["", "AAAA", "é", base64.b64encode(b"-----BEGIN PUBLIC KEY-----").decode()])
def test_no_key_signs_nothing(key: str) -> None:
    assert not is_nodes_signature(key, "now", "AAAA")


class Unchanged:
    """A book in which a partner is approved, whatever happens; counts what would have been changed."""

    def __init__(self, inner: Any, partner: Any) -> None:
        self._inner, self._partner, self.changes = inner, partner, 0

    def partners(self, *statuses: str) -> list[Any]:
        return [type(self._partner)(**{**vars(self._partner), "status": "approved"})]

    def set_status(self, *_: Any, **__: Any) -> Any:
        self.changes += 1
        return self._partner


def respell(signature: str) -> str:
    """The same bytes in other letters: base64 of 64 bytes leaves four bits unused."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = signature.rstrip("=")[-1]
    other = letters[letters.index(last) ^ 1]
    changed = signature.rstrip("=")[:-1] + other + "=="
    assert base64.b64decode(changed) == base64.b64decode(signature)
    assert changed != signature
    return changed
