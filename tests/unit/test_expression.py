"""Expressions: what they may say, what an item that lacks something means, and what they may cost."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedrec.errors import ConfigError
from fedrec.recommend.expression import Condition, parse, reads
from fedrec.recommend.filters import Filters
from fedrec.recommend.shelf import Item, Shelf

SHELF = [
    Item("a", "Alpha", categories=("Drama",), timestamp=100.0, fields={"price": 10, "brand": "x", "tags": ["new"]}),
    Item("b", "Beta", categories=("Comedy", "Drama"), timestamp=5000.0, fields={"price": 19.5, "brand": "y"}),
    Item("c", "Gamma", is_hidden=True, fields={"brand": "x", "sale": True}),
    Item("d", "Delta", fields={"price": "20", "size": {"width": 3}, "nan": float("nan")}),
]


def matching(text: str, now: float = 6000.0, items: list[Item] = SHELF) -> str:
    return "".join(item.id for item, is_in in zip(items, Filters(Shelf(items)).mask(text, now), strict=True) if is_in)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('item.price < 20.0 && "Drama" in categories', "ab"),
        ("item.price < 20", "ab"),
        ("item.price == 10", "a"),
        ("item.price == 10.0", "a"),
        ("item.price != 10", "b"),
        ("!(item.price < 15)", "b"),
        ('item.price < 15 || item.brand == "x"', "ac"),
        ("item.missing > 1", ""),
        ("!(item.missing > 1)", ""),
        ("has(item.price) && !has(item.tags)", "bd"),
        ("item.sale", "c"),
        ("is_hidden", "c"),
        ("!is_hidden", "abd"),
        ('item.tags.exists(t, t == "new")', "a"),
        ("size(categories) > 1", "b"),
        ("now - timestamp < 1500", "b"),
        ('title.startsWith("A") || id == "d"', "ad"),
        ('title.matches("^(Al|Be)")', "ab"),
        ('id in ["a", "c"]', "ac"),
        ('item["price"] * 2 + 1 == 21', "a"),
        ("item.size.width > 2", "d"),
        ('item.price == "20"', "d"),
        ("item.nan < 3 || item.nan >= 3", ""),
        ("item.price > 15 ? true : is_hidden", "b"),
        ("true", "abcd"),
        ("1 < 2", "abcd"),
        ("item.price / 4 > 2.6", "b"),
        ("-item.price < -15.0", "b"),
    ],
)
def test_what_matches(text: str, expected: str) -> None:
    assert matching(text) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("item.price <", "not CEL"),
        ("", "characters"),
        ("true || " * 200 + "true", "characters"),
        ("nope > 1", "unknown name 'nope'"),
        ("__import__('os')", "unknown function '__import__'"),
        ("item.keys()", "unknown method 'keys'"),
        ('["a"].reduce(r, i, "a", r + r)', "unknown method 'reduce'"),
        ("google.protobuf.Int32Value{value: 1}", "messages"),
        (".id == 'a'", "messages"),
        ("categories.exists(item, true)", "a new name"),
        ("categories.exists()", "a new name"),
        ("(" * 300 + "true" + ")" * 300, "too deep"),
        ("!" * 900 + "true", "too deep"),
    ],
)
def test_a_faulty_expression_is_named(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as raised:
        Filters(Shelf(SHELF)).mask(text, 0.0, "rule cheap")
    assert raised.value.problem.startswith("rule cheap: ")
    assert raised.value.remedy


def test_the_place_of_a_fault_is_named() -> None:
    with pytest.raises(ConfigError, match="line 1, column 14"):
        parse("item.price < < 3", "query")


@pytest.mark.parametrize("text", ["item.price", "size(title)", '"a"', "1 + 2"])
def test_what_is_no_condition_is_refused(text: str) -> None:
    filters = Filters(Shelf(SHELF))
    for _ in range(2):
        with pytest.raises(ConfigError, match="else than true or false"):
            filters.mask(text, 0.0)


@pytest.mark.parametrize(
    "text",
    [
        "[1,2,3,4,5,6,7,8,9,10]" + ".map(x, [1,2,3,4,5,6,7,8,9,10]" * 6 + ")" * 6 + " == []",
        '["a"]' + ".map(a, a + a + a + a + a + a + a + a)" * 12 + ' == ["b"]',
    ],
)
def test_an_expression_that_explodes_is_stopped(text: str) -> None:
    with pytest.raises(ConfigError, match="takes too long"):
        Filters(Shelf(SHELF)).mask(text, 0.0)


def test_the_steps_of_all_items_add_up() -> None:
    items = [Item(f"i{i}") for i in range(300)]
    assert Filters(Shelf(items)).mask('id.contains("7")', 0.0).sum() == sum("7" in item.id for item in items)
    with pytest.raises(ConfigError, match="takes too long"):
        Filters(Shelf(items), steps=1000).mask('id.contains("7")', 0.0)


def test_a_mask_is_kept_until_items_change_and_now_counts_in_minutes() -> None:
    shelf = Shelf(SHELF)
    filters = Filters(shelf, capacity=2)
    first = filters.mask("item.price < 15", 0.0)
    assert filters.mask("item.price < 15", 1e6) is first
    shelf.put(Item("e", fields={"price": 1}))
    assert filters.mask("item.price < 15", 0.0).tolist() == [True, False, False, False, True]
    aged = filters.mask("now - timestamp > 5000.0", 5990.0)
    assert filters.mask("now - timestamp > 5000.0", 6019.0) is not filters.mask("now - timestamp > 5000.0", 10080.0)
    assert aged.tolist() == [True, False, True, True, True]
    assert filters.mask("now - timestamp > 5000.0", 10080.0).tolist() == [True] * 5
    with pytest.raises(ValueError, match="read-only"):
        aged[0] = False


def test_the_longest_unused_is_forgotten() -> None:
    filters = Filters(Shelf(SHELF), capacity=2)
    first = filters.mask("item.price < 15", 0.0)
    filters.mask("item.price < 16", 0.0)
    filters.mask("item.price < 17", 0.0)
    assert filters.mask("item.price < 15", 0.0) is not first


FIELDS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from([-1.5, 0.0, 1.0, 2.5]), st.sampled_from(["a", ""])
)
TERMS = ["item.p", "item.q", "1", "2.5", "timestamp", "now", "item.p + 1", "item.q * 2.0", "item.p - item.q", '"a"']
LEAVES = [f"{a} {op} {b}" for a, op, b in product(TERMS, ["<", "<=", ">", ">=", "==", "!="], TERMS)]
LEAVES += ["is_hidden", "true", "has(item.p)", '"x" in categories']
EXPRESSIONS = st.recursive(
    st.sampled_from(LEAVES),
    lambda part: st.one_of(
        st.tuples(part, st.sampled_from(["&&", "||"]), part).map(lambda p: f"({p[0]} {p[1]} {p[2]})"),
        part.map(lambda p: f"!({p})"),
    ),
    max_leaves=4,
)


@given(EXPRESSIONS, st.lists(st.dictionaries(st.sampled_from(["p", "q"]), FIELDS), min_size=1, max_size=5))
def test_columns_say_what_celpy_says_of_one_item(text: str, fields: list[dict[str, Any]]) -> None:
    items = [Item(f"i{n}", timestamp=float(n), categories=("x",) * (n % 2), fields=f) for n, f in enumerate(fields)]
    tree = parse(text, "test")
    whole = Condition(tree, reads(tree))
    slow = [whole.answer(whole.values(item, 60.0))[0] is True for item in items]
    np.testing.assert_array_equal(Filters(Shelf(items)).mask(text, 60.0), slow)
