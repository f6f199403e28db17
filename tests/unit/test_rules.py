"""Rules: what is refused, when and for whom they hold, and what they do to a shelf."""

from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from fedrec.errors import ConfigError
from fedrec.recommend.compiled_rules import RuleTable
from fedrec.recommend.filters import Filters
from fedrec.recommend.rules import Rule, RuleBook, read_rules
from fedrec.recommend.shelf import Item, Shelf

ITEMS = [
    Item("a", categories=("Drama",), fields={"price": 5, "brand": "x", "sale": True}),
    Item("b", categories=("Drama", "Comedy"), fields={"price": 15, "brand": "y", "sale": 1}),
    Item("c", categories=("Comedy",), fields={"brand": "x"}),
    Item("d", is_hidden=True, fields={"price": 25}),
]


def table(*rules: dict[str, Any], shelf: Shelf | None = None) -> RuleTable:
    shelf = shelf or Shelf(ITEMS)
    named = [{"name": f"r{at}", **rule} for at, rule in enumerate(rules)]
    return RuleTable(shelf, Filters(shelf), RuleBook.model_validate({"rules": named}))


def ids(mask: Any) -> str:
    return "".join("abcd"[code] for code in mask.nonzero()[0])


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({"items": ["a", "d", "gone"]}, "ad"),
        ({"category": "Comedy"}, "bc"),
        ({"category": "None"}, ""),
        ({"field": "price", "at_least": 15}, "bd"),
        ({"field": "price", "at_least": 5, "at_most": 15}, "ab"),
        ({"field": "brand", "equals": "x"}, "ac"),
        ({"field": "price", "equals": 15}, "b"),
        ({"field": "sale", "equals": True}, "a"),
        ({"where": "item.price < 20"}, "ab"),
        ({"items": ["a", "b"], "category": "Drama", "field": "brand", "equals": "y", "where": "item.price > 1"}, "b"),
    ],
)
def test_which_items_a_rule_is_about(selection: dict[str, Any], expected: str) -> None:
    found = table({"action": "boost", "amount": 1.5, **selection}).in_force(0.0)
    assert ids(found.boost == 1.5) == expected
    assert all(found.names_of("abcd".index(item)) == ("r0",) for item in expected)


def test_what_the_actions_do() -> None:
    found = table(
        {"action": "filter", "where": "item.price > 0"},
        {"action": "exclude", "items": ["a"]},
        {"action": "boost", "category": "Drama", "amount": 2},
        {"action": "bury", "items": ["b"], "amount": 0.5},
        {"action": "pin", "items": ["a", "d", "b", "b"], "position": 3},
        {"action": "quota", "category": "*", "limit": 1},
        {"action": "quota", "field": "brand", "equals": "x", "share": 0.3},
    ).in_force(0.0)
    assert ids(found.open) == "b"
    assert found.boost.tolist() == [2, 1.5, 0, 0]
    assert [(pin.code, pin.position) for pin in found.pins] == [(1, 3)]
    assert [ids(row) for row in found.limited] == ["ab", "bc", "ac"]
    assert [quota.most(10) for quota in found.quotas] == [1, 1, 3]
    assert found.names_of(1) == ("r2", "r3", "r4")
    with pytest.raises(ValueError, match="read-only"):
        found.open[0] = True


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ({"action": "boost", "items": ["a"]}, "boost wants amount"),
        ({"action": "boost", "amount": 1}, "names no items"),
        ({"action": "boost", "amount": -1, "items": ["a"]}, "greater than 0"),
        ({"action": "boost", "amount": float("nan"), "items": ["a"]}, "finite"),
        ({"action": "pin", "position": 1, "category": "x"}, "pin wants items"),
        ({"action": "pin", "position": 0, "items": ["a"]}, "greater than or equal to 1"),
        ({"action": "exclude", "items": ["a"], "amount": 1}, "amount is not for exclude"),
        ({"action": "exclude", "category": "*"}, "is for a quota"),
        ({"action": "exclude", "field": "x"}, "field goes with"),
        ({"action": "exclude", "items": ["a"], "equals": 1}, "field goes with"),
        ({"action": "quota", "category": "*"}, "quota wants limit or share"),
        ({"action": "exclude", "where": "nope"}, "unknown name 'nope'"),
        ({"action": "exclude", "items": ["a"], "hours": "8-22h"}, "no hours"),
        ({"action": "exclude", "items": ["a"], "hours": "08:00-08:00"}, "no hours"),
        ({"action": "exclude", "items": ["a"], "timezone": "Mars/Olympus"}, "no time zone"),
        ({"action": "exclude", "items": ["a"], "timezone": "../etc"}, "no time zone"),
        ({"action": "exclude", "items": ["a"], "weekdays": ["Monday"]}, "'mon', 'tue'"),
        ({"action": "exclude", "items": ["a"], "starts": "2026-02-01", "ends": "2026-01-01T00:00:00Z"}, "ends before"),
        ({"action": "exclude", "items": ["a"], "colour": "red"}, "Extra inputs"),
        ({"action": "explode", "items": ["a"]}, "'pin', 'boost'"),
    ],
)
def test_a_faulty_rule_is_refused(rule: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        Rule.model_validate({"name": "r", **rule})


def test_a_file_names_all_that_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    assert read_rules(path).rules == ()
    rule = '[[rules]]\nname = "one"\naction = "exclude"\nwhere = "item.price <"\n'
    path.write_text(rule + rule.replace("one", "two") + '[[rules]]\nname = "three"\naction = "quota"\n')
    with pytest.raises(ConfigError, match="3 problems") as raised:
        read_rules(path)
    assert all(f"rule {name}" in str(raised.value) for name in ("one", "two", "three"))
    path.write_text(rule.replace("item.price <", "item.price < 3") * 2)
    with pytest.raises(ConfigError, match="names stand twice: one"):
        read_rules(path)
    path.write_text(rule.replace("item.price <", "item.price < 3") + "starts = 2026-01-01T00:00:00Z\n")
    assert read_rules(path).rules[0].starts is not None


def at(text: str, zone: str = "Europe/Berlin") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


@pytest.mark.parametrize(
    ("schedule", "due", "not_due"),
    [
        ({"starts": "2026-03-01T10:00:00"}, ["2026-03-01T10:00"], ["2026-03-01T09:59"]),
        ({"ends": "2026-03-01T10:00:00+01:00"}, ["2026-03-01T09:59"], ["2026-03-01T10:00"]),
        ({"hours": "08:00-22:00"}, ["2026-07-01T08:00", "2026-01-01T21:59"], ["2026-07-01T07:59", "2026-07-01T22:00"]),
        ({"hours": "22:00-02:00"}, ["2026-07-01T22:00", "2026-07-01T01:59"], ["2026-07-01T02:00"]),
        ({"weekdays": ["sat", "sun"]}, ["2026-03-07T00:00"], ["2026-03-06T23:59"]),
        ({"enabled": False}, [], ["2026-03-07T00:00"]),
    ],
)
def test_when_a_rule_is_due(schedule: dict[str, Any], due: list[str], not_due: list[str]) -> None:
    values = {"name": "r", "action": "exclude", "items": ["a"], "timezone": "Europe/Berlin", **schedule}
    rule = Rule.model_validate(values)
    assert all(rule.is_due(at(moment)) for moment in due)
    assert not any(rule.is_due(at(moment)) for moment in not_due)


def test_for_whom_a_rule_is() -> None:
    made = table(
        {"action": "boost", "amount": 1, "items": ["a"], "segment": {"plan": "gold"}},
        {"action": "boost", "amount": 2, "items": ["b"], "arm": "new"},
        {"action": "boost", "amount": 4, "items": ["c"], "segment": {"age": 18, "kid": False}},
    )
    assert made.in_force(0.0).boost.sum() == 0
    assert made.in_force(0.0, {"plan": "gold"}).boost.tolist() == [1, 0, 0, 0]
    assert made.in_force(0.0, {"plan": ["silver", "gold"]}, "new").boost.tolist() == [1, 2, 0, 0]
    assert made.in_force(0.0, {"age": 18, "kid": 0}).boost.sum() == 0
    assert made.in_force(0.0, {"age": 18, "kid": False}).boost.sum() == 4
    assert made.in_force(0.0, ["gold"]).boost.sum() == 0


def test_rules_are_compiled_once_until_something_changes() -> None:
    shelf = Shelf(ITEMS)
    made = table({"action": "exclude", "items": ["a"], "hours": "00:00-01:00"}, shelf=shelf)
    first = made.in_force(0.0)
    assert made.in_force(120.0, {"plan": "gold"}) is first
    assert ids(made.in_force(3600.0).open) == "abc"
    assert made.in_force(30.0) is first
    shelf.put(Item("e"))
    assert made.in_force(30.0).open.tolist() == [False, True, True, False, True]
    made.replace(RuleBook())
    assert made.in_force(30.0).open.sum() == 4
    ageing = table({"action": "exclude", "where": "now - timestamp > 90"}, shelf=Shelf(ITEMS))
    assert ids(ageing.in_force(60.0).open) == "abc"
    assert ids(ageing.in_force(180.0).open) == ""


def test_an_expression_that_takes_too_long_names_its_rule() -> None:
    shelf = Shelf([Item(f"i{n}") for n in range(50)])
    book = RuleBook.model_validate({"rules": [{"name": "slow", "action": "exclude", "where": 'id.contains("x")'}]})
    with pytest.raises(ConfigError, match="rule slow: where: takes too long"):
        RuleTable(shelf, Filters(shelf, steps=10), book).in_force(0.0)


def test_a_persons_own_list() -> None:
    made = table()
    assert ids(made.blocked(["a", "gone"], ["Comedy", "None"])) == "abc"
    assert ids(made.blocked([])) == ""
