"""Whom a node adds up with: keys that its owner accepts by hand, and nobody else."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fedrec.errors import ConfigError, ProtocolError, RunError
from fedrec.invitation import Invitation
from fedrec.signing import SigningKey, fingerprint
from fedrec_client.cli import app
from fedrec_client.peers import Peers, refuse_too_few
from fedrec_client.settings import Node, make_node

HASH = "0" * 64
ONE, OTHER = (SigningKey(bytes([number] * 32)).public for number in (1, 2))


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return make_node(tmp_path / "node", Invitation("localhost:8443", "shop", "s" * 20, HASH, HASH), b"PEM", 9094)


def test_peers_are_kept_on_disk_and_told_at_once(node: Node) -> None:
    peers = Peers(node)
    assert peers.keys() == {}
    assert peers.add("books", ONE.hex()) == fingerprint(ONE)
    assert peers.add("music", f"  {OTHER.hex().upper()}\n") == fingerprint(OTHER)
    assert Peers(node).keys() == {"books": ONE, "music": OTHER}
    peers.add("books", ONE.hex())  # the same again is nothing new
    peers.remove("books")
    assert Peers(node).keys() == {"music": OTHER}


def test_another_key_is_accepted_on_purpose_alone(node: Node) -> None:
    peers = Peers(node)
    peers.add("books", ONE.hex())
    with pytest.raises(ConfigError, match=f"known with another key, {fingerprint(ONE)}; --replace"):
        peers.add("books", OTHER.hex())
    assert peers.keys() == {"books": ONE}
    assert peers.add("books", OTHER.hex(), replace=True) == fingerprint(OTHER)
    assert peers.keys() == {"books": OTHER}


@pytest.mark.parametrize(
    ("name", "key", "words"),
    [
        ("Books", ONE.hex(), "'Books' is no partner's name"),
        ("", ONE.hex(), "'' is no partner's name"),
        ("../x", ONE.hex(), "no partner's name"),
        ("shop", ONE.hex(), "shop is this node's own name"),
        ("books", ONE.hex()[:-1], "64 hex digits"),
        ("books", "g" * 64, "64 hex digits"),
        ("books", "", "64 hex digits"),
        ("books", "é" * 64, "64 hex digits"),
    ],
)
def test_what_is_no_peer_is_refused(node: Node, name: str, key: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as found:
        Peers(node).add(name, key)
    assert "ask the partner itself" in found.value.remedy
    assert Peers(node).keys() == {}


def test_all_that_is_wrong_is_told_at_once(node: Node) -> None:
    with pytest.raises(ConfigError, match="2 problems"):
        Peers(node).add("Books", "x")


def test_one_key_stands_under_one_name_alone(node: Node) -> None:
    """A partner that counts twice among the survivors adds its noise once."""
    peers = Peers(node)
    peers.add("books", ONE.hex())
    for replace in (False, True):
        with pytest.raises(ConfigError, match="that key is known as books's: a partner counts once"):
            peers.add("music", ONE.hex(), replace=replace)
    peers.add("music", OTHER.hex())
    with pytest.raises(ConfigError, match="known as books's"):
        peers.add("music", ONE.hex(), replace=True)
    own = node.signing_key().public.hex()
    for key in (own, own.upper()):
        with pytest.raises(ConfigError, match="that key is this node's own"):
            peers.add("films", key)
    assert peers.keys() == {"books": ONE, "music": OTHER}
    peers.remove("books")
    peers.add("films", ONE.hex())  # under another name, once it stands under none


def test_a_stranger_cannot_be_removed(node: Node) -> None:
    Peers(node).add("books", ONE.hex())
    with pytest.raises(ConfigError, match="music is no peer") as found:
        Peers(node).remove("music")
    assert "books" in found.value.remedy


def test_too_few_peers_are_told_before_the_first_round(node: Node) -> None:
    peers = Peers(node)
    peers.add("books", ONE.hex())
    refuse_too_few(peers, 2)
    with pytest.raises(ProtocolError, match="need 3 partners, 2 are accepted") as found:
        refuse_too_few(peers, 3)
    assert "flower-client peers add" in found.value.remedy


def test_a_damaged_file_is_named(node: Node) -> None:
    (node.state / "peers.json").write_text("{")
    with pytest.raises(RunError, match="peers"):
        Peers(node).keys()


def run(node: Node, *arguments: str) -> Any:
    return CliRunner().invoke(app, ["peers", *arguments, "--dir", str(node.folder)])


def test_the_commands(node: Node) -> None:
    own = node.signing_key().public
    assert run(node, "key").output.split() == ["shop", own.hex()]
    assert json.loads(run(node, "key", "--json").output)["fingerprint"] == fingerprint(own)
    assert run(node, "list").output.strip() == "no peers yet: flower-client peers add NAME KEY"
    added = run(node, "add", "books", ONE.hex())
    assert (added.exit_code, added.output.strip()) == (0, f"books is accepted with key {fingerprint(ONE)}")
    assert run(node, "list").output.split() == ["books", fingerprint(ONE)]
    told = json.loads(run(node, "list", "--json").output)
    assert told == {"peers": {"books": {"key": ONE.hex(), "fingerprint": fingerprint(ONE)}}}
    refused = run(node, "add", "books", OTHER.hex())
    assert isinstance(refused.exception, ConfigError)
    replaced = run(node, "add", "books", OTHER.hex(), "--replace", "--json")
    assert json.loads(replaced.output) == {"name": "books", "fingerprint": fingerprint(OTHER)}
    assert run(node, "remove", "books").output.strip() == "books is no peer any more"
    assert isinstance(run(node, "remove", "books").exception, ConfigError)
    assert Peers(node).keys() == {}


def test_commands_need_a_node(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["peers", "list", "--dir", str(tmp_path)])
    assert isinstance(result.exception, ConfigError)
