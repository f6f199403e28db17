"""Who is approved becomes a node of Flower's, who is removed stops being one; one listing serves all."""

import base64
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from fedrec_server.rounds.registrar import Registrar
from fedrec_server.rounds.superlink import SuperLinkError
from fedrec_server.state.key_book import KeyBook
from fedrec_server.state.partner_book import PartnerBook
from fedrec_server.state.store import Database


class MemoryNodes:
    """What the SuperLink knows."""

    def __init__(self) -> None:
        self.known: dict[bytes, int] = {}
        self.listings = 0
        self.refused = b""
        self.count = 100
        self.is_up = True
        self.meanwhile: Callable[[], None] = lambda: None

    def nodes(self) -> dict[bytes, int]:
        self.listings += 1
        if not self.is_up:
            raise SuperLinkError("does not answer")
        return dict(self.known)

    def register(self, public_key: bytes) -> int:
        assert public_key not in self.known
        if public_key == self.refused:
            raise SuperLinkError("refused")
        self.count += 1
        self.known[public_key] = number = self.count
        self.meanwhile()
        return number

    def unregister(self, node: int) -> None:
        (key,) = (key for key, known in self.known.items() if known == node)
        del self.known[key]


def registrar_of(book: PartnerBook, nodes: MemoryNodes) -> Registrar:
    return Registrar(book, KeyBook(book.database), nodes)


def rotate(book: PartnerBook, number: int) -> None:
    """The keys of partner-0 change, for the time of this number."""
    old = "0" * 64 if number == 1 else f"{number + 4}" * 64
    key = base64.b64encode(f"key {number}".encode()).decode()
    KeyBook(book.database).rotate("partner-0", old_key=old, node_key=key, signing_key=f"{number + 5}" * 64)


@pytest.fixture
def book(tmp_path: Path) -> PartnerBook:
    made = PartnerBook(Database.open(f"sqlite:///{tmp_path / 'state.sqlite'}"))
    for number in range(5):
        name = f"partner-{number}"
        secret = made.invite(name, valid_for=timedelta(hours=1), is_approved=True)
        made.enrol(name, secret, node_key=base64.b64encode(name.encode()).decode(), signing_key=str(number) * 64)
        made.set_status(name, "approved", who="test")
    return made


def test_all_are_registered_after_one_listing(book: PartnerBook) -> None:
    nodes = MemoryNodes()
    registrar = registrar_of(book, nodes)
    registrar.look()
    assert nodes.listings == 1
    assert {p.name: int(p.node_id) for p in book.partners()} == {k.decode(): n for k, n in nodes.known.items()}
    registrar.look()
    assert nodes.listings == 1  # nobody waits


def test_a_key_that_flower_knows_keeps_its_node(book: PartnerBook) -> None:
    nodes = MemoryNodes()
    nodes.known[b"partner-3"] = 7
    registrar_of(book, nodes).look()
    assert book.partner("partner-3").node_id == "7"


def test_one_that_cannot_be_registered_keeps_nobody_else_out(book: PartnerBook) -> None:
    nodes = MemoryNodes()
    nodes.refused = b"partner-1"
    registrar_of(book, nodes).look()
    assert [p.name for p in book.partners() if not p.node_id] == ["partner-1"]


def test_whoever_is_removed_is_forgotten_also_if_flower_does_not_know_it(book: PartnerBook) -> None:
    nodes = MemoryNodes()
    registrar = registrar_of(book, nodes)
    registrar.look()
    for name in ("partner-0", "partner-1"):
        book.set_status(name, "removed", who="test")
    del nodes.known[b"partner-1"]
    registrar.look()
    assert b"partner-0" not in nodes.known
    assert [p.node_id for p in book.partners("removed")] == ["", ""]


def test_of_changed_keys_the_old_node_goes_and_the_new_one_comes(book: PartnerBook) -> None:
    nodes = MemoryNodes()
    registrar = registrar_of(book, nodes)
    registrar.look()
    rotate(book, 1)
    registrar.look()
    assert b"key 1" in nodes.known
    assert b"partner-0" not in nodes.known
    before = dict(nodes.known)
    registrar.look()
    assert nodes.known == before


def test_a_key_that_changes_while_its_node_is_registered_leaves_no_node_behind(book: PartnerBook) -> None:
    nodes = MemoryNodes()

    def meanwhile() -> None:
        nodes.meanwhile = lambda: None
        rotate(book, 1)

    nodes.meanwhile = meanwhile
    registrar = registrar_of(book, nodes)
    registrar.look()
    assert b"partner-0" not in nodes.known
    registrar.look()
    assert b"key 1" in nodes.known


def test_a_superlink_that_is_away_is_asked_again(book: PartnerBook) -> None:
    nodes = MemoryNodes()
    registrar = registrar_of(book, nodes)
    registrar.look()
    rotate(book, 1)
    nodes.is_up = False
    with pytest.raises(SuperLinkError):
        registrar.look()
    assert len(KeyBook(book.database).retired_nodes()) == 1
    nodes.is_up = True
    registrar.look()
    assert b"partner-0" not in nodes.known
    assert b"key 1" in nodes.known


def test_keys_that_were_taken_away_are_forgotten_too(book: PartnerBook) -> None:
    nodes = MemoryNodes()
    registrar = registrar_of(book, nodes)
    registrar.look()
    book.invite("partner-0", valid_for=timedelta(hours=1), is_approved=False, replaces_keys=True)
    registrar.look()
    assert b"partner-0" not in nodes.known
