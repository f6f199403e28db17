"""Cursors: what they carry, and what is refused."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedrec.errors import DataError
from fedrec.recommend.cursor import EMPTY, MAX_AGE_S, MAX_CHARACTERS, MAX_SHOWN, read_cursor, write_cursor
from fedrec.recommend.shelf import Item, Shelf

KEY = bytes(range(32))


@given(st.lists(st.integers(0, 99), unique=True, max_size=50), st.text(max_size=20))
def test_it_carries_what_was_shown_over_restarts(shown: list[int], owner: str) -> None:
    text = write_cursor(EMPTY, [f"item {i}" for i in shown], owner, 1000.0, KEY)
    shelf = Shelf([Item(f"item {i}") for i in reversed(range(100))])
    found = read_cursor(text, owner, 1500.0, KEY).is_shown(shelf)
    assert {99 - int(code) for code in found.nonzero()[0]} == set(shown)


def test_pages_cover_every_item_once() -> None:
    shelf = Shelf([Item(f"i{n}") for n in range(95)])
    cursor, seen = "", []
    while True:
        before = read_cursor(cursor, "ann", 10.0, KEY)
        page = [f"i{code}" for code in (~before.is_shown(shelf)).nonzero()[0][:10]]
        if not page:
            break
        seen += page
        cursor = write_cursor(before, page, "ann", 10.0, KEY)
    assert seen == [f"i{n}" for n in range(95)]


@given(st.data())
def test_a_changed_cursor_is_refused(data: st.DataObject) -> None:
    text = write_cursor(EMPTY, ["a", "b"], "ann", 1000.0, KEY)
    at = data.draw(st.integers(0, len(text) - 1))
    changed = text[:at] + data.draw(st.sampled_from("AZaz09-_").filter(lambda c: c != text[at])) + text[at + 1 :]
    for other in (changed, text[:at], text + "A"):
        if other:
            with pytest.raises(DataError, match=r"cursor: (changed|not one)"):
                read_cursor(other, "ann", 1000.0, KEY)


def test_another_owner_key_or_time_is_refused() -> None:
    text = write_cursor(EMPTY, ["a"], "ann", 1000.0, KEY)
    assert len(read_cursor(text, "ann", 1000.0 + MAX_AGE_S, KEY).shown) == 1
    with pytest.raises(DataError, match="another user") as raised:
        read_cursor(text, "bob", 1000.0, KEY)
    assert "first page" in raised.value.remedy
    assert "ann" not in str(raised.value)
    with pytest.raises(DataError, match="expired"):
        read_cursor(text, "ann", 1001.0 + MAX_AGE_S, KEY)
    with pytest.raises(DataError, match="expired"):
        read_cursor(text, "ann", 0.0, KEY)
    with pytest.raises(DataError, match="another key"):
        read_cursor(text, "ann", 1000.0, KEY[::-1])
    with pytest.raises(DataError, match="shorter than 32"):
        write_cursor(EMPTY, ["a"], "ann", 1000.0, b"short")
    for bad in ("ä", "a b", "A" * (MAX_CHARACTERS + 4), "=", "AAAA"):
        with pytest.raises(DataError, match="cursor"):
            read_cursor(bad, "ann", 1000.0, KEY)


def test_its_size_is_bounded() -> None:
    full = write_cursor(EMPTY, [str(i) for i in range(MAX_SHOWN)], "ann", 0.0, KEY)
    assert len(full) <= MAX_CHARACTERS < 14_000
    assert write_cursor(read_cursor(full, "ann", 0.0, KEY), ["one more"], "ann", 0.0, KEY) == ""
    assert b"ann" not in base64.urlsafe_b64decode(full + "=" * (-len(full) % 4))
    assert read_cursor("", "ann", 0.0, KEY) is EMPTY
