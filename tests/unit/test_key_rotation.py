"""Keys change without anybody being told anew whom to trust, and without a budget being forgotten."""

import asyncio
import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.primitives.asymmetric import sign_message

from fedrec.errors import ConfigError, FedrecError, PrivacyError, ProtocolError, RunError, StorageError
from fedrec.invitation import ENROL, REPLACE_KEYS, Invitation
from fedrec.key_statements import partner_keys
from fedrec.processes import only_one
from fedrec.signing import SigningKey, fingerprint, verify
from fedrec_client import own_keys
from fedrec_client.coordinator_keys import CoordinatorKeys, authority_fingerprints, describe_key
from fedrec_client.coordinator_link import CoordinatorLink, UnreachableError, node_public_key
from fedrec_client.node_key import make_node_key, public_part
from fedrec_client.settings import Node, make_node, mark_enrolled
from fedrec_server.admin.overview import partners_told
from fedrec_server.gateway.app import Gateway
from fedrec_server.gateway.limits import GatewayLimits
from fedrec_server.gateway.partner_desk import PartnerDesk
from fedrec_server.keys.authority_rotation import begin_authority, finish_authority
from fedrec_server.keys.certificates import authority_fingerprint
from fedrec_server.keys.key_rotation import key_papers, rotate_signing_key
from fedrec_server.rounds.federation import Federation
from fedrec_server.settings import Coordinator, make_coordinator
from fedrec_server.state.key_book import KeyBook
from fedrec_server.state.partner_book import PartnerBook

PORTS = {"GATEWAY_PORT": 8443, "SUPERLINK_PORT": 9191, "ADMIN_PORT": 8444}
FEDERATION = SimpleNamespace(
    terms=SimpleNamespace(name="films", to_dict=lambda: {"name": "films"}), catalog=b"PAR1", catalog_sha256="c"
)
HOUR = timedelta(hours=1)


class Wire(httpx.BaseTransport):
    """Between a node and the gateway, both in this process; it may lose a question, or an answer."""

    def __init__(self, app: Any) -> None:
        self.app, self.loses, self.bodies = app, "", list[bytes]()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        content = request.read()
        self.bodies.append(content)
        if self.loses == "question":
            raise httpx.ConnectError("lost")

        async def run() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, client=("1.2.3.4", 5))
            async with httpx.AsyncClient(transport=transport, base_url="https://gateway") as client:
                return await client.request(request.method, request.url, content=content, headers=request.headers)

        answer = asyncio.run(run())
        if self.loses == "answer":
            raise httpx.ReadError("lost")
        return httpx.Response(answer.status_code, content=answer.content)


class World:
    """A coordinator's folder and its gateway, and one partner's folder with a ledger that must not change."""

    def __init__(self, folder: Path) -> None:
        self.coordinator = make_coordinator(folder / "coordinator", name="films", hosts=("localhost",), ports=PORTS)
        self.coordinator = Coordinator(self.coordinator.folder)
        self.book, self.keys = PartnerBook(self.coordinator.database), KeyBook(self.coordinator.database)
        papers = partial(key_papers, self.coordinator)
        desk = PartnerDesk(self.book, cast(Federation, FEDERATION), "sig", self.coordinator.heads, papers)
        inner = httpx.AsyncClient(
            transport=httpx.MockTransport(lambda _: httpx.Response(200)), base_url="https://flower"
        )
        gateway = Gateway(inner, desk, b"PEM", GatewayLimits(strangers_per_s=1000.0))
        self.wire = Wire(gateway.app())
        invitation = self.invitation()
        self.node = make_node(folder / "node", invitation, (self.coordinator.keys / "ca.pem").read_bytes(), 9094)
        self.link().enrol(invitation.secret, self.node.keys)
        mark_enrolled(self.node)
        self.book.set_status("shop", "approved", who="test")
        (self.node.state / "ledger.sqlite").write_bytes(b"what was paid")

    def invitation(self, *, kind: str = ENROL, name: str = "shop") -> Invitation:
        secret = self.book.invite(name, valid_for=HOUR, is_approved=False, replaces_keys=kind == REPLACE_KEYS)
        authority = authority_fingerprint((self.coordinator.keys / "ca.pem").read_bytes())
        key = self.coordinator.signing_key().public.hex()
        return Invitation("localhost:8443", name, secret, authority, key, kind)

    def link(self, node: Node | None = None) -> CoordinatorLink:
        made = CoordinatorLink(node or self.node)
        made._client.close()
        made._client = httpx.Client(transport=self.wire, base_url="https://gateway")
        return made

    def rotate(self) -> dict[str, Any]:
        return own_keys.rotate(self.node, self.link())

    def fleet(self, node_key: bytes) -> int:
        """Status of a call that a node signs; 401 is how strangers are met."""
        key, moment = serialization.load_ssh_private_key(node_key, None), datetime.now(UTC).isoformat()
        signature = sign_message(cast(Any, key), moment.encode())
        headers = {
            FLEET_HTTP_PUBLIC_KEY_HEADER: base64.b64encode(public_part(node_key)).decode(),
            TIMESTAMP_HEADER: moment,
            FLEET_HTTP_SIGNATURE_HEADER: base64.b64encode(signature).decode(),
        }
        client = httpx.Client(transport=self.wire, base_url="https://gateway")
        return client.post("/v1/fleet/get-run", headers=headers).status_code

    def state(self) -> dict[str, bytes]:
        """What no change of keys may touch."""
        return {name: (self.node.folder / name).read_bytes() for name in ("state/ledger.sqlite", "keys/noise.key")}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.coordinator.database.close()


# The partner's own keys


def test_new_keys_count_at_once_old_ones_no_more_and_the_partner_stays_approved(world: World) -> None:
    before, old = world.state(), world.link()
    old_node, old_print = (world.node.keys / "node.key").read_bytes(), fingerprint(world.node.signing_key().public)
    world.book.give_node("shop", "7")
    assert old.me()["status"] == "approved"  # the gateway remembers the key for a while
    told = world.rotate()
    assert told["status"] == "approved"
    assert world.link().me()["status"] == "approved"
    with pytest.raises(ProtocolError, match="no partner's signature"):
        old.me()
    assert world.fleet(old_node) == 401
    assert world.fleet((world.node.keys / "node.key").read_bytes()) == 200
    assert world.keys.retired_nodes() == ["7"]
    (shown,) = partners_told(world.coordinator)
    assert shown["fingerprint"] == fingerprint(world.node.signing_key().public) != old_print
    assert world.state() == before
    assert not (world.node.keys / "next").exists()
    own_keys.refuse_unfinished(world.node)


def test_only_public_halves_leave(world: World) -> None:
    world.rotate()
    sent = b"".join(world.wire.bodies)
    for name in ("signing.key", "node.key", "noise.key"):
        secret = (world.node.keys / name).read_bytes()
        assert secret not in sent
        assert secret.hex().encode() not in sent


@pytest.mark.parametrize("loses", ["question", "answer"])
def test_a_lost_answer_is_made_up_for_by_asking_again(world: World, loses: str) -> None:
    old = world.node.signing_key().public
    world.wire.loses = loses
    with pytest.raises(UnreachableError):
        world.rotate()
    assert world.node.signing_key().public == old
    with pytest.raises(RunError, match="half changed") as found:
        own_keys.refuse_unfinished(world.node)
    assert "flower-client rotate" in found.value.remedy
    world.wire.loses = ""
    world.rotate()
    assert world.link().me()["status"] == "approved"
    assert world.node.signing_key().public != old
    own_keys.refuse_unfinished(world.node)


@pytest.mark.parametrize("survives", range(7))
def test_a_crash_at_any_write_leaves_keys_that_the_next_try_puts_in_place(
    world: World, monkeypatch: pytest.MonkeyPatch, survives: int
) -> None:
    before, writes, real = world.state(), iter(range(100)), own_keys.replace_file

    def fail(path: Path, content: bytes) -> None:
        if next(writes) >= survives:
            raise OSError(28, "No space left on device")
        real(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(own_keys, "replace_file", fail)
        if survives < 4:  # two to make the keys besides the signing key's, two to put them in place
            with pytest.raises(StorageError):
                world.rotate()
        else:
            world.rotate()
    world.rotate()
    assert world.link().me()["status"] == "approved"
    assert world.book.partner("shop").node_key == node_public_key(world.node.keys)
    assert world.state() == before


def test_a_node_that_runs_is_told_to_stop_first(world: World) -> None:
    with only_one(world.node.state / "running.lock", ""), pytest.raises(RunError, match="runs already") as found:
        world.rotate()
    assert "flower-client stop" in found.value.remedy
    assert not (world.node.keys / "next").exists()


def test_a_suspended_partner_keeps_its_keys_until_the_coordinator_has_decided(world: World) -> None:
    """Whoever stole the old key must not be able to move on with it."""
    old = world.node.signing_key().public
    world.book.set_status("shop", "suspended", who="test")
    with pytest.raises(ProtocolError, match="is suspended") as found:
        world.rotate()
    assert "old keys stay" in found.value.remedy
    assert world.node.signing_key().public == old
    own_keys.refuse_unfinished(world.node)


def message(world: World, *, old: SigningKey, new: SigningKey, at: datetime | None = None, **changed: str) -> Any:
    """As a node sends it, and then changed."""
    node_key = base64.b64encode(_public_pem()).decode()
    told = {"old_key": old.public.hex(), "signing_key": new.public.hex(), "node_key": node_key}
    told["time"] = (at or datetime.now(UTC)).isoformat()
    signed = partner_keys("shop", **told)
    signatures = {"old_signature": old.sign("partner-keys", signed), "new_signature": new.sign("partner-keys", signed)}
    body = json.dumps({"name": "shop", **told, **signatures, **changed}).encode()
    return httpx.Client(transport=world.wire, base_url="https://gateway").post("/fedrec/v1/rotate", content=body)


def _public_pem() -> bytes:
    from cryptography.hazmat.primitives import serialization

    public = serialization.load_ssh_private_key(make_node_key(), None).public_key()
    return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(
    "case",
    [
        "other old key",
        "forged",
        "no new key",
        "swapped",
        "late",
        "early",
        "naive",
        "moved name",
        "other node",
        "nobody",
    ],
)
def test_a_change_that_is_not_signed_by_both_keys_now_is_refused_in_the_same_words(world: World, case: str) -> None:
    own, new, mallory = world.node.signing_key(), SigningKey(bytes([2] * 32)), SigningKey(bytes([3] * 32))
    before = world.book.partners()
    good = json.loads(message(world, old=mallory, new=new).request.content)
    if case == "other old key":
        answer = message(world, old=mallory, new=new)
    elif case == "forged":  # whoever knows the public keys, but not the old private one
        answer = message(world, old=own, new=new, old_signature=good["new_signature"])
    elif case == "no new key":
        answer = message(world, old=own, new=new, new_signature=good["old_signature"])
    elif case == "swapped":
        answer = message(world, old=own, new=new, signing_key=mallory.public.hex())
    elif case in ("late", "early"):
        answer = message(world, old=own, new=new, at=datetime.now(UTC) + (HOUR if case == "early" else -HOUR))
    elif case == "naive":
        answer = message(world, old=own, new=new, at=datetime.now())
    elif case == "moved name":
        world.book.enrol("video", world.invitation(name="video").secret, node_key="n", signing_key="1" * 64)
        before = world.book.partners()
        answer = message(world, old=own, new=new, name="video")
    elif case == "other node":
        answer = message(world, old=own, new=new, node_key=base64.b64encode(_public_pem()).decode())
    else:
        answer = message(world, old=own, new=new, name="nobody")
    assert answer.status_code == 403
    assert answer.json()["error"] == "not signed by the key that counts, or clocks differ by over a minute"
    assert world.book.partners() == before


@pytest.mark.parametrize("changed", [{"x": "y"}, {"node_key": "A" * 200}, {"signing_key": "Z" * 64}, {"name": "../x"}])
def test_what_is_no_change_of_keys_is_refused_in_words(world: World, changed: dict[str, str]) -> None:
    answer = message(world, old=world.node.signing_key(), new=SigningKey(bytes([2] * 32)), **changed)
    assert (answer.status_code, answer.json()["error"][:22]) == (
        403,
        "not a change of keys: " if "node_key" in changed else "not a change of keys; ",
    )


def test_a_change_that_is_sent_again_after_the_next_one_changes_nothing(world: World) -> None:
    own, second, third = world.node.signing_key(), SigningKey(bytes([2] * 32)), SigningKey(bytes([3] * 32))
    first = message(world, old=own, new=second)
    assert first.status_code == 200
    assert message(world, old=second, new=third).status_code == 200
    again = httpx.Client(transport=world.wire, base_url="https://gateway")
    assert again.post("/fedrec/v1/rotate", content=first.request.content).status_code == 403
    assert message(world, old=third, new=own).status_code == 403  # a retired key never counts again
    assert world.book.partner("shop").signing_key == third.public.hex()


def test_a_preapproved_partner_that_enrols_again_does_not_undo_its_suspension(world: World) -> None:
    secret = world.book.invite("video", valid_for=HOUR, is_approved=True)
    keys = {
        "node_key": base64.b64encode(_public_pem()).decode(),
        "signing_key": SigningKey(bytes([5] * 32)).public.hex(),
    }
    client = httpx.Client(transport=world.wire, base_url="https://gateway")
    body = {"name": "video", "secret": secret, **keys}
    assert client.post("/fedrec/v1/enrol", json=body).json()["status"] == "approved"
    world.book.set_status("video", "suspended", who="test")
    assert client.post("/fedrec/v1/enrol", json=body).json()["status"] == "suspended"


# Lost or stolen ones


def test_with_a_replacing_invitation_the_same_folder_goes_on_with_its_ledger(world: World) -> None:
    before, old, thief = world.state(), world.node.signing_key().public, world.link()
    invitation = world.invitation(kind=REPLACE_KEYS)
    for call in (thief.me, thief.leave, world.rotate):  # the old keys stopped counting when it was made
        with pytest.raises(ProtocolError):
            call()
    told = own_keys.rekey(world.node, invitation, link=world.link())
    assert told["status"] == "pending"
    world.book.set_status("shop", "approved", who="test")
    assert world.link().me()["status"] == "approved"
    assert world.node.signing_key().public != old
    assert world.state() == before


def test_a_lost_answer_to_a_replacement_is_made_up_for(world: World) -> None:
    invitation = world.invitation(kind=REPLACE_KEYS)
    world.wire.loses = "answer"
    with pytest.raises(UnreachableError):
        own_keys.rekey(world.node, invitation, link=world.link())
    world.wire.loses = ""
    own_keys.rekey(world.node, invitation, link=world.link())
    assert world.link().me()["status"] == "pending"


def test_after_a_theft_later_noise_comes_from_another_key(world: World) -> None:
    before = world.state()
    own_keys.rekey(world.node, world.invitation(kind=REPLACE_KEYS), new_noise_key=True, link=world.link())
    after = world.state()
    assert after["keys/noise.key"] != before["keys/noise.key"]
    assert after["state/ledger.sqlite"] == before["state/ledger.sqlite"]
    assert len(after["keys/noise.key"]) == 32


def test_a_replacing_invitation_begins_no_new_folder(world: World, tmp_path: Path) -> None:
    """A new folder would begin with a new ledger: the budget would be forgotten."""
    invitation = world.invitation(kind=REPLACE_KEYS)
    assert Invitation.from_token(invitation.to_token()).kind == REPLACE_KEYS
    with pytest.raises(ConfigError, match="replaces a partner's keys") as found:
        make_node(tmp_path / "new", Invitation.from_token(invitation.to_token()), b"PEM", 9094)
    assert "flower-client rekey" in found.value.remedy
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("case", ["enrols", "another name", "another authority"])
def test_another_invitation_is_refused_with_what_to_do(world: World, case: str) -> None:
    invitation = world.invitation(
        kind=ENROL if case == "enrols" else REPLACE_KEYS, name="x" if case == "enrols" else "shop"
    )
    values = {**vars(invitation)}
    if case == "another name":
        values["name"] = "music"
    elif case == "another authority":
        values["authority"] = "0" * 64
    with pytest.raises(ConfigError) as found:
        own_keys.rekey(world.node, Invitation(**values), link=world.link())
    assert found.value.remedy
    assert not (world.node.keys / "next").exists()


def test_a_refused_replacement_leaves_keys_that_count(world: World) -> None:
    invitation = Invitation(**{**vars(world.invitation(name="x")), "name": "shop", "kind": REPLACE_KEYS})
    with pytest.raises(ProtocolError, match="not valid"):
        own_keys.rekey(world.node, invitation, link=world.link())
    own_keys.refuse_unfinished(world.node)
    assert world.link().me()["status"] == "approved"


# The coordinator's


def test_partners_follow_the_coordinators_key_by_themselves_and_refuse_the_old_one(world: World) -> None:
    keys, old = CoordinatorKeys(world.node), world.coordinator.signing_key()
    assert not keys.follow(world.link())
    for number in (1, 2):
        statement = rotate_signing_key(world.coordinator)
        assert statement.sequence == number
        new = world.coordinator.signing_key()
        signature = new.sign("round-plan", {"round": 1})

        def check(signature: str = signature) -> bool:
            verify(keys.current(), "round-plan", {"round": 1}, signature)
            return True

        assert keys.heard(check, world.link())
        assert keys.current() == new.public
        with pytest.raises(ProtocolError, match="is not that of"):
            keys.heard(lambda: check(old.sign("round-plan", {"round": 1})), world.link())
    assert CoordinatorKeys(world.node).known()[0] == old.public
    assert describe_key(keys)["sequence"] == 2


def test_a_policy_may_ask_for_a_person(world: World) -> None:
    path = world.node.folder / "client.toml"
    path.write_text(path.read_text().replace("accept_new_keys = true ", "accept_new_keys = false "))
    node = Node(world.node.folder)
    keys, old = CoordinatorKeys(node), world.coordinator.signing_key().public
    rotate_signing_key(world.coordinator)
    with pytest.raises(PrivacyError, match="accept_new_keys is false") as found:
        keys.follow(world.link())
    assert fingerprint(world.coordinator.signing_key().public) in found.value.problem
    assert "flower-client agree" in found.value.remedy
    assert keys.current() == old
    assert keys.follow(world.link(), is_agreed=True)
    assert keys.current() == world.coordinator.signing_key().public


def test_a_key_pinned_anew_makes_the_chain_void(world: World) -> None:
    """After a theft of the coordinator's key its owner puts the word of a person above that of the old key."""
    rotate_signing_key(world.coordinator)
    CoordinatorKeys(world.node).follow(world.link())
    pinned = SigningKey(bytes([9] * 32)).public
    path, old = world.node.folder / "client.toml", world.node.settings.coordinator.key
    path.write_text(path.read_text().replace(old, pinned.hex()))
    assert CoordinatorKeys(Node(world.node.folder)).current() == pinned
    with pytest.raises(ProtocolError, match="does not lead on") as found:
        CoordinatorKeys(Node(world.node.folder)).follow(world.link())
    assert "by another way" in found.value.remedy


def test_authorities_are_trusted_side_by_side_and_then_the_new_one_alone(world: World) -> None:
    keys, bundle = CoordinatorKeys(world.node), world.node.keys / "ca.pem"
    (first,) = authority_fingerprints(bundle.read_bytes())
    following = begin_authority(world.coordinator)
    assert begin_authority(world.coordinator) == following
    assert keys.follow(world.link())
    assert authority_fingerprints(bundle.read_bytes()) == [first, following]
    rotate_signing_key(world.coordinator)  # signs the list anew
    assert keys.follow(world.link())
    assert not keys.follow(world.link())
    assert finish_authority(world.coordinator) == following
    assert keys.follow(world.link())
    assert authority_fingerprints(bundle.read_bytes()) == [following]
    CoordinatorLink(world.node).close()  # the bundle is one that TLS takes
    with pytest.raises(ConfigError, match="no next authority") as found:
        finish_authority(world.coordinator)
    assert "rotate-authority first" in found.value.remedy


class Telling:
    """A coordinator that tells what it is made to."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.told = told

    def keys(self) -> dict[str, Any]:
        return self.told


@pytest.mark.parametrize("case", ["signature", "other certificate", "older", "no certificate", "too many", "no list"])
def test_authorities_that_the_key_does_not_name_are_refused(world: World, case: str) -> None:
    keys, bundle = CoordinatorKeys(world.node), world.node.keys / "ca.pem"
    begin_authority(world.coordinator)
    keys.follow(world.link())
    finish_authority(world.coordinator)
    before, told = bundle.read_bytes(), json.loads(json.dumps(key_papers(world.coordinator)))
    listed, own = told["authorities"], world.coordinator.signing_key()

    def sign(sequence: int, certificates: list[str]) -> None:
        values = {"sequence": sequence, "certificates": certificates}
        listed.update(values, signature=own.sign("authorities", values))

    match case:
        case "signature":
            listed["signature"] = SigningKey(bytes([4] * 32)).sign("authorities", {})
        case "other certificate":
            listed["certificates"] = [before.decode()]
        case "older":
            sign(0, listed["certificates"])
        case "no certificate":
            sign(9, ["nonsense"])
        case "too many":
            sign(9, listed["certificates"] * 5)
        case _:
            told["authorities"] = {"sequence": "9"}
    with pytest.raises(ProtocolError):
        keys.follow(cast(CoordinatorLink, Telling(told)))
    assert bundle.read_bytes() == before


def test_whoever_is_no_partner_is_told_no_chain(world: World) -> None:
    with httpx.Client(transport=world.wire, base_url="https://gateway") as client:
        assert client.get("/fedrec/v1/keys").status_code == 401
    assert world.link().keys()["statements"] == []


def test_trust_needs_the_very_fingerprint(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []
    met: list[tuple[str, bytes]] = []

    def fetch(address: str, authority: str) -> bytes:
        asked.append((address, authority))
        return b"another PEM"

    monkeypatch.setattr(own_keys, "fetch_authority", fetch)
    monkeypatch.setattr(own_keys, "meet", lambda address, authority: met.append((address, authority)))
    own_keys.trust(world.node, "ab" * 32)
    assert asked == [("localhost:8443", "ab" * 32)]
    assert met == [("localhost:8443", b"another PEM")]
    assert (world.node.keys / "ca.pem").read_bytes() == world.node.authorities.read() == b"another PEM"
    (world.node.keys / "ca.pem").write_bytes(b"PEM before")  # as after a crash between the two files
    world.node.authorities.settle()
    assert (world.node.keys / "ca.pem").read_bytes() == b"another PEM"


def test_every_refusal_of_a_change_names_a_remedy(world: World) -> None:
    world.wire.loses = "question"
    with pytest.raises(FedrecError) as found:
        world.rotate()
    assert found.value.remedy
