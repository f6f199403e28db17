"""A partner's keys change, by itself or after a loss; ledger and rows stay."""

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import serialization

from fedrec.errors import ConfigError, ProtocolError, RunError, StorageError
from fedrec.invitation import ENROL, REPLACE_KEYS, Invitation
from fedrec.key_statements import partner_keys
from fedrec.processes import only_one
from fedrec.signing import SigningKey, fingerprint
from fedrec_client import own_keys
from fedrec_client.coordinator_link import UnreachableError, node_public_key
from fedrec_client.node_key import make_node_key
from fedrec_client.settings import make_node
from fedrec_server.admin.overview import partners_told

HOUR = timedelta(hours=1)


def test_new_keys_count_at_once_old_ones_no_more_and_the_partner_stays_approved(world: Any) -> None:
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


def test_only_public_halves_leave(world: Any) -> None:
    world.rotate()
    sent = b"".join(world.wire.bodies)
    for name in ("signing.key", "node.key", "noise.key"):
        secret = (world.node.keys / name).read_bytes()
        assert secret not in sent
        assert secret.hex().encode() not in sent


@pytest.mark.parametrize("loses", ["question", "answer"])
def test_a_lost_answer_is_made_up_for_by_asking_again(world: Any, loses: str) -> None:
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
    world: Any, monkeypatch: pytest.MonkeyPatch, survives: int
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


def test_a_node_that_runs_is_told_to_stop_first(world: Any) -> None:
    with only_one(world.node.state / "running.lock", ""), pytest.raises(RunError, match="runs already") as found:
        world.rotate()
    assert "flower-client stop" in found.value.remedy
    assert not (world.node.keys / "next").exists()


def test_a_suspended_partner_keeps_its_keys_until_the_coordinator_has_decided(world: Any) -> None:
    """Whoever stole the old key must not be able to move on with it."""
    old = world.node.signing_key().public
    world.book.set_status("shop", "suspended", who="test")
    with pytest.raises(ProtocolError, match="is suspended") as found:
        world.rotate()
    assert "old keys stay" in found.value.remedy
    assert world.node.signing_key().public == old
    own_keys.refuse_unfinished(world.node)


def message(world: Any, *, old: SigningKey, new: SigningKey, at: datetime | None = None, **changed: str) -> Any:
    """As a node sends it, and then changed."""
    node_key = base64.b64encode(_public_pem()).decode()
    told = {"old_key": old.public.hex(), "signing_key": new.public.hex(), "node_key": node_key}
    told["time"] = (at or datetime.now(UTC)).isoformat()
    signed = partner_keys("shop", **told)
    signatures = {"old_signature": old.sign("partner-keys", signed), "new_signature": new.sign("partner-keys", signed)}
    body = json.dumps({"name": "shop", **told, **signatures, **changed}).encode()
    return httpx.Client(transport=world.wire, base_url="https://gateway").post("/fedrec/v1/rotate", content=body)


def _public_pem() -> bytes:

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
def test_a_change_that_is_not_signed_by_both_keys_now_is_refused_in_the_same_words(world: Any, case: str) -> None:
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
def test_what_is_no_change_of_keys_is_refused_in_words(world: Any, changed: dict[str, str]) -> None:
    answer = message(world, old=world.node.signing_key(), new=SigningKey(bytes([2] * 32)), **changed)
    assert (answer.status_code, answer.json()["error"][:22]) == (
        403,
        "not a change of keys: " if "node_key" in changed else "not a change of keys; ",
    )


def test_a_change_that_is_sent_again_after_the_next_one_changes_nothing(world: Any) -> None:
    own, second, third = world.node.signing_key(), SigningKey(bytes([2] * 32)), SigningKey(bytes([3] * 32))
    first = message(world, old=own, new=second)
    assert first.status_code == 200
    assert message(world, old=second, new=third).status_code == 200
    again = httpx.Client(transport=world.wire, base_url="https://gateway")
    assert again.post("/fedrec/v1/rotate", content=first.request.content).status_code == 403
    assert message(world, old=third, new=own).status_code == 403  # a retired key never counts again
    assert world.book.partner("shop").signing_key == third.public.hex()


def test_a_preapproved_partner_that_enrols_again_does_not_undo_its_suspension(world: Any) -> None:
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


def test_with_a_replacing_invitation_the_same_folder_goes_on_with_its_ledger(world: Any) -> None:
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


def test_a_lost_answer_to_a_replacement_is_made_up_for(world: Any) -> None:
    invitation = world.invitation(kind=REPLACE_KEYS)
    world.wire.loses = "answer"
    with pytest.raises(UnreachableError):
        own_keys.rekey(world.node, invitation, link=world.link())
    world.wire.loses = ""
    own_keys.rekey(world.node, invitation, link=world.link())
    assert world.link().me()["status"] == "pending"


def test_after_a_theft_later_noise_comes_from_another_key(world: Any) -> None:
    before = world.state()
    own_keys.rekey(world.node, world.invitation(kind=REPLACE_KEYS), new_noise_key=True, link=world.link())
    after = world.state()
    assert after["keys/noise.key"] != before["keys/noise.key"]
    assert after["state/ledger.sqlite"] == before["state/ledger.sqlite"]
    assert len(after["keys/noise.key"]) == 32


def test_a_replacing_invitation_begins_no_new_folder(world: Any, tmp_path: Path) -> None:
    """A new folder would begin with a new ledger: the budget would be forgotten."""
    invitation = world.invitation(kind=REPLACE_KEYS)
    assert Invitation.from_token(invitation.to_token()).kind == REPLACE_KEYS
    with pytest.raises(ConfigError, match="replaces a partner's keys") as found:
        make_node(tmp_path / "new", Invitation.from_token(invitation.to_token()), b"PEM", 9094)
    assert "flower-client rekey" in found.value.remedy
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("case", ["enrols", "another name", "another authority"])
def test_another_invitation_is_refused_with_what_to_do(world: Any, case: str) -> None:
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


def test_a_refused_replacement_leaves_keys_that_count(world: Any) -> None:
    invitation = Invitation(**{**vars(world.invitation(name="x")), "name": "shop", "kind": REPLACE_KEYS})
    with pytest.raises(ProtocolError, match="not valid"):
        own_keys.rekey(world.node, invitation, link=world.link())
    own_keys.refuse_unfinished(world.node)
    assert world.link().me()["status"] == "approved"
