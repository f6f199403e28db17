"""A chain of keys is followed forwards only, from any key of it, and only as it was signed."""

import itertools
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrec.errors import FedrecError, ProtocolError
from fedrec.invitation import Invitation
from fedrec.key_statements import KeyStatement, chain_from, keys_of, read_statements
from fedrec.signing import SigningKey
from fedrec_client.coordinator_keys import CoordinatorKeys
from fedrec_client.coordinator_link import CoordinatorLink
from fedrec_client.settings import make_node

KEYS = [SigningKey(bytes([number] * 32)) for number in range(7)]
CHAIN = tuple(
    KeyStatement.make(number, old, new.public, f"2026-01-0{number}")
    for number, (old, new) in enumerate(itertools.pairwise(KEYS), start=1)
)
PLACES = st.integers(0, len(CHAIN))


class Telling:
    """A coordinator that tells a chain."""

    def __init__(self, chain: Sequence[KeyStatement]) -> None:
        self.chain = chain

    def keys(self) -> dict[str, Any]:
        return {"statements": plain(self.chain), "authorities": None}


def plain(chain: Sequence[KeyStatement]) -> list[dict[str, Any]]:
    return [asdict(one) for one in chain]


@contextmanager
def keys_from(pinned: int) -> Iterator[CoordinatorKeys]:
    """Of a fresh node that was invited under the key of this place."""
    with tempfile.TemporaryDirectory() as folder:
        invitation = Invitation("localhost:1", "shop", "s", "0" * 64, KEYS[pinned].public.hex())
        yield CoordinatorKeys(make_node(Path(folder) / "node", invitation, b"PEM", 9094))


def follow(keys: CoordinatorKeys, chain: Sequence[KeyStatement]) -> bool:
    return keys.follow(cast(CoordinatorLink, Telling(chain)))


@settings(max_examples=60, deadline=None)
@given(pinned=PLACES, told=st.lists(PLACES, min_size=1, max_size=6))
def test_any_prefixes_in_any_order_lead_to_the_longest_one_and_never_back(pinned: int, told: list[int]) -> None:
    with keys_from(pinned) as keys:
        held = pinned
        for length in told:
            if length == 0 or pinned <= length:  # an empty chain knows no key at all
                offered = max(length, pinned)
                if offered < held:
                    with pytest.raises(ProtocolError, match="older chain") as found:
                        follow(keys, CHAIN[:length])
                    assert found.value.remedy
                else:
                    assert follow(keys, CHAIN[:length]) == (offered > held)
                    held = offered
            else:
                with pytest.raises(ProtocolError, match="does not lead on"):
                    follow(keys, CHAIN[:length])
            assert keys.current() == KEYS[held].public


@settings(max_examples=60, deadline=None)
@given(pinned=PLACES, fork=st.integers(1, len(CHAIN)), known=st.integers(1, len(CHAIN)))
def test_another_successor_than_the_accepted_one_is_refused(pinned: int, fork: int, known: int) -> None:
    """Whoever stole an old key can sign a rival statement, but not to those who followed the real one."""
    rival = KeyStatement.make(fork, KEYS[fork - 1], SigningKey(bytes([99] * 32)).public, "2026-01-01")
    with keys_from(pinned) as keys:
        if known < pinned or fork <= pinned or fork > known:
            return
        follow(keys, CHAIN[:known])
        with pytest.raises(ProtocolError, match="another chain"):
            follow(keys, (*CHAIN[: fork - 1], rival))
        assert keys.current() == KEYS[known].public


@settings(max_examples=150, deadline=None)
@given(
    place=st.integers(0, len(CHAIN) - 1),
    field=st.sampled_from(["sequence", "old_key", "new_key", "date", "signature", "more", "less"]),
    value=st.one_of(st.text(max_size=70), st.integers(-1, 9), st.none(), st.just(KEYS[0].public.hex())),
)
def test_a_statement_that_was_tampered_with_is_refused(place: int, field: str, value: object) -> None:
    values = plain(CHAIN)
    if field == "less":
        del values[place]["date"]
    else:
        if values[place].get(field) == value and type(value) is type(values[place].get(field)):
            return
        values[place][field] = value
    with pytest.raises(FedrecError) as found:
        read_statements(values)
    assert isinstance(found.value, ProtocolError)


@given(order=st.permutations(range(len(CHAIN))))
def test_a_chain_in_another_order_is_none(order: list[int]) -> None:
    moved = plain([CHAIN[place] for place in order])
    if order == sorted(order):
        assert read_statements(moved) == CHAIN
    else:
        with pytest.raises(ProtocolError):
            read_statements(moved)


@given(gone=st.integers(0, len(CHAIN) - 1))
def test_a_chain_with_a_gap_is_none(gone: int) -> None:
    shorter = plain([one for place, one in enumerate(CHAIN) if place != gone])
    if gone == len(CHAIN) - 1:
        assert read_statements(shorter) == CHAIN[:-1]
    else:
        with pytest.raises(ProtocolError):
            read_statements(shorter)


def test_a_chain_that_leads_back_to_an_old_key_is_none() -> None:
    back = KeyStatement.make(2, KEYS[1], KEYS[0].public, "2026-01-01")
    with pytest.raises(ProtocolError, match="breaks at 2"):
        read_statements(plain([CHAIN[0], back]))


@pytest.mark.parametrize("told", [None, {}, "x", [1], [[]], plain(CHAIN) * 300])
def test_what_is_no_chain_is_refused(told: object) -> None:
    with pytest.raises(ProtocolError):
        read_statements(told)


@given(pinned=PLACES)
def test_the_way_on_from_a_key(pinned: int) -> None:
    assert chain_from(KEYS[pinned].public, CHAIN) == CHAIN[pinned:]
    assert keys_of(CHAIN) == [key.public for key in KEYS]
    with pytest.raises(ProtocolError, match="does not lead on"):
        chain_from(SigningKey(bytes([99] * 32)).public, CHAIN)
