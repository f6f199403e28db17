"""Who cannot show the coordinator's certificate gets nothing: no secret, no key; and the partner is told why."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fedrec.errors import ConfigError
from fedrec.invitation import Invitation
from fedrec.processes import holder_of
from fedrec_client.authority import pinned_authority
from fedrec_client.cli import app as client
from fedrec_client.coordinator_link import CertificateError, CoordinatorLink, UnreachableError
from fedrec_client.node import RunningNode
from fedrec_client.settings import Node, make_node
from fedrec_server.keys.certificates import authority_fingerprint

Listen = Callable[..., Any]
Issue = Callable[..., Path]
World = Any


@pytest.fixture
def asked(world: World) -> list[str]:
    """Every path that somebody asked the gateway for, and its bodies."""
    found: list[str] = []
    inner = world.app

    async def listening(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            found.append(scope["path"])
        await inner(scope, receive, send)

    world.app = listening
    return found


def invitation(world: World, port: int, authority: Path, host: str = "localhost") -> Invitation:
    secret = world.book.invite("music", valid_for=timedelta(hours=1), is_approved=False)
    fingerprint = authority_fingerprint((authority / "ca.pem").read_bytes())
    return Invitation(f"{host}:{port}", "music", secret, fingerprint, "cd" * 32)


def init(folder: Path, invited: Invitation) -> BaseException | None:
    return CliRunner().invoke(client, ["init", str(folder), "--invite", invited.to_token()]).exception


def test_the_right_coordinator_is_enrolled_with(
    world: World, listen: Listen, true: Path, tmp_path: Path, asked: list[str]
) -> None:
    world.gateway.authority = (true / "ca.pem").read_bytes()
    listener = listen(world, keys=true)
    assert init(tmp_path / "node", invitation(world, listener.port, true)) is None
    assert asked == ["/fedrec/v1/authority", "/health", "/fedrec/v1/enrol"]
    assert (tmp_path / "node" / "keys" / "ca.pem").read_bytes() == world.gateway.authority


@pytest.mark.parametrize(
    ("hosts", "days", "words"),
    [
        (["localhost"], (-3, -1), "has expired"),
        (["localhost"], (1, 3), "is not valid yet"),
        (["other.example"], (-1, 1), "is for other host names"),
        (["127.0.0.1"], (-1, 1), "is for other host names"),
    ],
)
def test_a_certificate_that_does_not_hold_ends_it_before_anything_is_sent(
    world: World,
    listen: Listen,
    true: Path,
    tmp_path: Path,
    asked: list[str],
    issue: Issue,
    hosts: list[str],
    days: tuple[float, float],
    words: str,
) -> None:
    world.gateway.authority = (true / "ca.pem").read_bytes()
    listener = listen(world, keys=issue(tmp_path / "keys", true, hosts, days=days))
    error = init(tmp_path / "node", invitation(world, listener.port, true))
    assert isinstance(error, CertificateError)
    assert words in error.problem
    assert error.remedy
    assert asked == ["/fedrec/v1/authority"]
    assert not (tmp_path / "node").exists()


def test_who_shows_the_true_authority_and_a_foreign_certificate_gets_no_secret(
    world: World, listen: Listen, true: Path, foreign: Path, tmp_path: Path, asked: list[str]
) -> None:
    """The authority is public: everybody can hand it out."""
    world.gateway.authority = (true / "ca.pem").read_bytes()
    listener = listen(world, keys=foreign)
    error = init(tmp_path / "node", invitation(world, listener.port, true))
    assert isinstance(error, CertificateError)
    assert "of another authority" in error.problem
    assert asked == ["/fedrec/v1/authority"]
    assert not (tmp_path / "node").exists()


@pytest.mark.parametrize("shown", ["foreign", "true and foreign", "foreign and true", "true twice", "nothing", "much"])
def test_an_authority_that_is_not_the_invitations_alone_is_not_taken(
    world: World, listen: Listen, true: Path, foreign: Path, tmp_path: Path, asked: list[str], shown: str
) -> None:
    """A second certificate behind the right one would be trusted as much."""
    pems = {"true": (true / "ca.pem").read_bytes(), "foreign": (foreign / "ca.pem").read_bytes()}
    shows = {
        "foreign": pems["foreign"],
        "true and foreign": pems["true"] + pems["foreign"],
        "foreign and true": pems["foreign"] + pems["true"],
        "true twice": pems["true"] * 2,
        "nothing": b"",
        "much": b"#" * 1_000_000 + pems["true"],
    }
    world.gateway.authority = shows[shown]
    listener = listen(world, keys=foreign)
    error = init(tmp_path / "node", invitation(world, listener.port, true))
    assert isinstance(error, ConfigError)
    assert error.remedy.count("ask the coordinator")
    assert asked == ["/fedrec/v1/authority"]
    assert not (tmp_path / "node").exists()


def test_words_around_the_right_certificate_are_dropped(true: Path) -> None:
    content = (true / "ca.pem").read_bytes()
    fingerprint = authority_fingerprint(content)
    assert pinned_authority(b"words\n" + content + b"more words\n", fingerprint, "here") == content


def made_node(folder: Path, true: Path, port: int) -> Node:
    content = (true / "ca.pem").read_bytes()
    invited = Invitation(f"localhost:{port}", "shop", "s" * 20, authority_fingerprint(content), "cd" * 32)
    return make_node(folder, invited, content, 9094)


@pytest.mark.parametrize("wrong", ["foreign", "both"])
def test_a_node_that_was_given_the_wrong_authority_says_so_and_calls_nobody(
    world: World, listen: Listen, true: Path, foreign: Path, tmp_path: Path, asked: list[str], wrong: str
) -> None:
    listener = listen(world, keys=foreign)
    node = made_node(tmp_path / "node", true, listener.port)
    other = (foreign / "ca.pem").read_bytes()
    (node.keys / "ca.pem").write_bytes(other if wrong == "foreign" else (true / "ca.pem").read_bytes() + other)
    node.data.mkdir()
    with pytest.raises(ConfigError, match=r"ca\.pem"):
        CoordinatorLink(node)
    with pytest.raises(ConfigError, match=r"ca\.pem"):
        RunningNode(node).run()
    assert asked == []
    assert holder_of(node.state / "running.lock") is None
    assert not list(node.logs.iterdir())  # no process was started


def test_an_enrolled_node_sends_no_signature_to_somebody_else(
    world: World, listen: Listen, true: Path, foreign: Path, tmp_path: Path, asked: list[str]
) -> None:
    listener = listen(world, keys=foreign)
    link = CoordinatorLink(made_node(tmp_path / "node", true, listener.port))
    for call in (link.me, link.terms, link.adapter, link.leave):
        with pytest.raises(CertificateError, match="nothing was sent"):
            call()
    link.close()
    assert asked == []


def test_nobody_there_is_no_matter_of_certificates(true: Path, tmp_path: Path) -> None:
    link = CoordinatorLink(made_node(tmp_path / "node", true, 1))
    with pytest.raises(UnreachableError) as found:
        link.me()
    link.close()
    assert not isinstance(found.value, CertificateError)
