"""A partner follows the keys and authorities of its coordinator, forwards only."""

import json
from typing import Any, cast

import httpx
import pytest

from fedrec.errors import ConfigError, FedrecError, PrivacyError, ProtocolError
from fedrec.signing import SigningKey, fingerprint, verify
from fedrec_client import own_keys
from fedrec_client.coordinator_keys import CoordinatorKeys, authority_fingerprints, describe_key
from fedrec_client.coordinator_link import CoordinatorLink
from fedrec_client.settings import Node
from fedrec_server.keys.authority_rotation import begin_authority, finish_authority
from fedrec_server.keys.key_rotation import key_papers, rotate_signing_key


def test_partners_follow_the_coordinators_key_by_themselves_and_refuse_the_old_one(world: Any) -> None:
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


def test_a_policy_may_ask_for_a_person(world: Any) -> None:
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


def test_a_key_pinned_anew_makes_the_chain_void(world: Any) -> None:
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


def test_authorities_are_trusted_side_by_side_and_then_the_new_one_alone(world: Any) -> None:
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
def test_authorities_that_the_key_does_not_name_are_refused(world: Any, case: str) -> None:
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


def test_whoever_is_no_partner_is_told_no_chain(world: Any) -> None:
    with httpx.Client(transport=world.wire, base_url="https://gateway") as client:
        assert client.get("/fedrec/v1/keys").status_code == 401
    assert world.link().keys()["statements"] == []


def test_trust_needs_the_very_fingerprint(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_every_refusal_of_a_change_names_a_remedy(world: Any) -> None:
    world.wire.loses = "question"
    with pytest.raises(FedrecError) as found:
        world.rotate()
    assert found.value.remedy
