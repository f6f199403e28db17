"""Items by code: what was derived from them is made anew when they change."""

import pytest

from fedrec.errors import DataError
from fedrec.recommend.shelf import Item, Shelf


def test_a_code_is_never_used_again() -> None:
    shelf = Shelf([Item("a"), Item("b")])
    assert shelf.remove("a")
    assert not shelf.remove("a")
    assert shelf.put(Item("c")) == 2
    assert shelf.put(Item("a", title="back")) == 0
    assert shelf.item(0).title == "back"
    assert len(shelf) == shelf.n_open == 3


def test_columns_follow_the_items() -> None:
    shelf = Shelf([Item("a", categories=("x",), fields={"price": 2}), Item("b", is_hidden=True, fields={"price": "2"})])
    assert shelf.recommendable().tolist() == [True, False]
    assert shelf.in_category("x").tolist() == [True, False]
    assert shelf.numbers("price")[0] == 2
    assert shelf.numbers("price")[1] != shelf.numbers("price")[1]
    shelf.put(Item("b", categories=("x",), timestamp=5.0))
    assert shelf.recommendable().tolist() == [True, True]
    assert shelf.in_category("x").tolist() == [True, True]
    assert shelf.timestamps().tolist() == [0.0, 5.0]
    shelf.remove("a")
    assert shelf.recommendable().tolist() == [False, True]
    assert "a" not in shelf
    with pytest.raises(DataError, match="no such item"):
        shelf.code("a")
    assert shelf.find("a") == 0


def test_what_is_kept_is_not_to_be_written_to() -> None:
    with pytest.raises(ValueError, match="read-only"):
        Shelf([Item("a")]).timestamps()[0] = 1


@pytest.mark.parametrize("values", [{"id": ""}, {"id": "a\n"}, {"id": "a", "timestamp": float("nan")}])
def test_an_item_must_be_one(values: dict) -> None:
    with pytest.raises(DataError):
        Item(**values)
