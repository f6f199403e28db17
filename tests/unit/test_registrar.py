"""Flower knows the nodes whose keys count, and no others, whenever a key changes."""

import base64
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from fedrec_server.driver import Driver
from fedrec_server.key_book import KeyBook
from fedrec_server.partner_book import PartnerBook
from fedrec_server.store import Database
from fedrec_server.superlink import SuperLinkControl, SuperLinkError

KEYS = [base64.b64encode(f"key {number}".encode()).decode() for number in range(3)]


class Control:
    """Flower's registry of nodes; something may happen while one is registered."""

    def __init__(self) -> None:
        self.nodes: dict[int, bytes] = {}
        self.meanwhile: Any = lambda: None
        self.is_up = True

    def register(self, key: bytes) -> int:
        self.nodes[len(self.nodes) + 1] = key
        self.meanwhile()
        return len(self.nodes)

    def unregister(self, node: int) -> None:
        if not self.is_up:
            raise SuperLinkError("does not answer")
        self.nodes.pop(node, None)


@pytest.fixture
def driver(tmp_path: Path) -> Driver:
    database = Database.open(f"sqlite:///{tmp_path / 'state.sqlite'}")
    made = Driver.__new__(Driver)
    made._book, made._keys = PartnerBook(database), KeyBook(database)
    made._control = cast(SuperLinkControl, Control())
    secret = made._book.invite("shop", valid_for=timedelta(hours=1), is_approved=False)
    made._book.enrol("shop", secret, node_key=KEYS[0], signing_key="0" * 64)
    made._book.set_status("shop", "approved", who="test")
    return made


def look(driver: Driver) -> dict[int, bytes]:
    driver._forget_retired()
    for partner in driver._known_partners():
        driver._register(partner)
    return cast(Control, driver._control).nodes


def rotate(driver: Driver, number: int) -> None:
    driver._keys.rotate("shop", old_key=str(number - 1) * 64, node_key=KEYS[number], signing_key=str(number) * 64)


def test_the_old_node_goes_and_the_new_one_comes(driver: Driver) -> None:
    assert look(driver) == {1: b"key 0"}
    rotate(driver, 1)
    assert list(look(driver).values()) == [b"key 1"]
    assert look(driver) == look(driver)


def test_a_key_that_changes_while_its_node_is_registered_leaves_no_node_behind(driver: Driver) -> None:
    control = cast(Control, driver._control)

    def meanwhile() -> None:
        control.meanwhile = lambda: None
        rotate(driver, 1)

    control.meanwhile = meanwhile
    assert look(driver) == {}
    assert list(look(driver).values()) == [b"key 1"]


def test_a_superlink_that_is_away_is_asked_again(driver: Driver) -> None:
    control = cast(Control, driver._control)
    look(driver)
    rotate(driver, 1)
    control.is_up = False
    driver._forget_retired()
    assert driver._keys.retired_nodes() == ["1"]
    control.is_up = True
    assert list(look(driver).values()) == [b"key 1"]


def test_keys_that_were_taken_away_are_forgotten_too(driver: Driver) -> None:
    look(driver)
    driver._book.invite("shop", valid_for=timedelta(hours=1), is_approved=False, replaces_keys=True)
    assert look(driver) == {}
