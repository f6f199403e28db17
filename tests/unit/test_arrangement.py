"""Lists: no item twice, none that may not be, the same for the same request, page after page."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedrec.errors import DataError
from fedrec.recommend.arrangement import ArrangementSettings, Audience, Placed, arrange
from fedrec.recommend.compiled_rules import RuleTable
from fedrec.recommend.cursor import read_cursor, write_cursor
from fedrec.recommend.filters import Filters
from fedrec.recommend.final import FinalWeights
from fedrec.recommend.popularity import Popularity
from fedrec.recommend.rules import RuleBook
from fedrec.recommend.shelf import Item, Shelf

N = 40
SHELF = Shelf(
    Item(f"i{n}", categories=("abc"[n % 3], "xy"[n % 2]), is_hidden=n == 39, fields={"price": float(n)})
    for n in range(N)
)
FILTERS = Filters(SHELF)
VECTORS = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
POPULARITY = Popularity.of(np.arange(N) ** 2)
EVERY = np.arange(N, dtype=np.int32)
SCORES = np.random.default_rng(1).normal(size=N).astype(np.float32)


def listed(n: int, *rules: dict[str, Any], codes: np.ndarray = EVERY, **other: Any) -> list[Placed]:
    book = RuleBook.model_validate({"rules": [{"name": f"r{at}", **rule} for at, rule in enumerate(rules)]})
    compiled = RuleTable(SHELF, FILTERS, book).in_force(0.0)
    settings = other.pop("settings", ArrangementSettings())
    person = other.pop("person", Audience())
    scores = other.pop("scores", SCORES[codes])
    return arrange(SHELF, codes, scores, VECTORS.__getitem__, n, settings, compiled, POPULARITY, person, 0.0, **other)


def codes_of(places: list[Placed]) -> list[int]:
    return [place.code for place in places]


SETTINGS = st.builds(
    ArrangementSettings,
    weights=st.builds(
        FinalWeights, popularity=st.sampled_from([0.0, -1.0]), fields=st.sampled_from([{}, {"price": 1.0}])
    ),
    diversity=st.sampled_from(["none", "mmr", "dpp"]),
    relevance=st.sampled_from([0.0, 0.5, 1.0]),
    calibration=st.sampled_from([0.0, 0.5, 1.0]),
)
RULES = st.lists(
    st.sampled_from(
        [
            {"action": "filter", "where": "item.price < 30"},
            {"action": "exclude", "category": "a"},
            {"action": "boost", "category": "b", "amount": 3},
            {"action": "bury", "field": "price", "at_least": 20, "amount": 3},
            {"action": "pin", "items": ["i3", "i39", "i35", "i7"], "position": 2},
            {"action": "pin", "items": ["i7", "i8"], "position": 3},
            {"action": "quota", "category": "*", "limit": 4},
            {"action": "quota", "category": "b", "share": 0.2},
        ]
    ),
    max_size=6,
)


@given(SETTINGS, RULES, st.integers(0, 12), st.lists(st.integers(0, N - 1), max_size=15), st.integers(0, 3))
def test_a_list_holds_what_it_may(
    settings: ArrangementSettings, rules: list[dict[str, Any]], n: int, codes: list[int], offset: int
) -> None:
    blocked = np.arange(N) % 7 == 5
    person = Audience(EVERY[:9], blocked, VECTORS[:2])
    given_codes = np.array(codes, np.int32)
    request: dict[str, Any] = {"codes": given_codes, "settings": settings, "person": person, "offset": offset}
    places = listed(n, *rules, **request)
    assert places == listed(n, *rules, **request)
    found = codes_of(places)
    assert len(set(found)) == len(found) <= n
    assert all(np.isfinite(place.score) for place in places)
    assert not any(blocked[code] or code == 39 for code in found)
    if {"action": "filter", "where": "item.price < 30"} in rules:
        assert max(found, default=0) < 30
    if {"action": "exclude", "category": "a"} in rules:
        assert not any(code % 3 == 0 for code in found)
    assert all(place.is_pinned or place.code in codes for place in places)
    if not any(rule["action"] == "quota" for rule in rules):
        open_codes = {code for code in codes if listed(1, *rules, codes=np.array([code], np.int32), person=person)}
        assert len(found) >= min(n, len(open_codes - {3, 7, 8, 35}))


def test_the_plain_order_is_the_models() -> None:
    order = [int(code) for code in np.argsort(-SCORES, kind="stable") if code != 39]
    places = listed(39)
    assert codes_of(places) == order
    assert places[0].score == pytest.approx(float(SCORES[order[0]]))
    for diversity in ("mmr", "dpp"):
        assert codes_of(listed(39, settings=ArrangementSettings(diversity=diversity, relevance=1.0))) == order
    other = listed(39, settings=ArrangementSettings(diversity="mmr", relevance=0.3))
    assert codes_of(other) != order
    assert codes_of(listed(5, scores=np.zeros(N, np.float32), codes=EVERY[::-1])) == [0, 1, 2, 3, 4]


def test_boosts_are_nats_whatever_the_weights() -> None:
    plain = {
        place.code: place.score for place in listed(39, settings=ArrangementSettings(FinalWeights(0.0, popularity=2.0)))
    }
    rule = {"action": "boost", "category": "b", "amount": 0.75}
    for place in listed(39, rule, settings=ArrangementSettings(FinalWeights(0.0, popularity=2.0))):
        is_b = place.code % 3 == 1
        assert place.score - plain[place.code] == pytest.approx(0.75 if is_b else 0)
        assert place.rules == (("r0",) if is_b else ())


def test_pins_stand_at_their_places_or_not_at_all() -> None:
    pin = {"action": "pin", "items": ["i3", "i39", "i7"], "position": 2}
    places = listed(5, pin, codes=EVERY[10:20])
    assert [place.code for place in places if place.is_pinned] == codes_of(places)[1:3] == [3, 7]
    assert places[1].rules == ("r0",)
    blocked = np.arange(N) == 3
    assert codes_of(listed(5, pin, person=Audience(blocked=blocked)))[2] == 7
    assert not any(place.is_pinned for place in listed(5, pin, {"action": "exclude", "items": ["i3", "i7"]}))
    far = {"action": "pin", "items": ["i3"], "position": 12}
    assert 3 not in codes_of(listed(5, far, codes=EVERY[10:30]))
    assert codes_of(listed(5, far, codes=EVERY[10:30], offset=10))[1] == 3
    assert codes_of(listed(15, far, codes=EVERY[10:12]))[2:] == [3]
    assert codes_of(listed(3, far | {"position": 1}, {"action": "pin", "items": ["i4"], "position": 1}))[:2] == [3, 4]


def test_a_quota_is_a_hard_limit_and_others_fill_the_list() -> None:
    quota = {"action": "quota", "category": "*", "limit": 4}
    found = codes_of(listed(8, quota))
    assert len(found) == 8
    for modulus in (3, 2):
        assert max(np.bincount(np.array(found) % modulus)) <= 4
    assert len(listed(20, quota)) == 8
    shared = codes_of(listed(10, {"action": "quota", "category": "a", "share": 0.25}))
    assert sum(code % 3 == 0 for code in shared) == 2
    pin = {"action": "pin", "items": ["i0", "i3", "i6"], "position": 1}
    over = codes_of(listed(10, pin, {"action": "quota", "category": "a", "limit": 2}))
    assert over[:3] == [0, 3, 6]
    assert not any(code % 3 == 0 for code in over[3:])


def test_pages_cover_every_item_once() -> None:
    cursor, seen, key = "", [], bytes(32)
    settings = ArrangementSettings(diversity="mmr")
    pin = {"action": "pin", "items": ["i12"], "position": 14}
    while True:
        before = read_cursor(cursor, "ann", 0.0, key)
        person = Audience(blocked=before.is_shown(SHELF))
        page = listed(7, pin, settings=settings, person=person, offset=len(before.shown))
        if not page:
            break
        seen += codes_of(page)
        cursor = write_cursor(before, [SHELF.item(code).id for code in codes_of(page)], "ann", 0.0, key)
    assert sorted(seen) == list(range(39))


def test_what_is_like_unwanted_things_loses_nats() -> None:
    unwanted = VECTORS[[5]] * 3
    settings = ArrangementSettings(negative=2.0)
    before = {place.code: place.score for place in listed(39)}
    after = {place.code: place.score for place in listed(39, settings=settings, person=Audience(unwanted=unwanted))}
    assert before[5] - after[5] == pytest.approx(2.0, abs=1e-5)
    assert all(before[code] - after[code] + 1e-6 >= 0 for code in before)
    assert listed(39, settings=replace(settings, negative=0.0), person=Audience(unwanted=unwanted)) == listed(39)


def test_calibration_pulls_towards_the_history() -> None:
    tail = np.flatnonzero(POPULARITY.classes == 2).astype(np.int32)
    settings = ArrangementSettings(FinalWeights(0.0, popularity=1.0), calibration=1.0)
    plain = listed(10, settings=replace(settings, calibration=0.0), person=Audience(tail))
    pulled = listed(10, settings=settings, person=Audience(tail))
    assert all(POPULARITY.classes[place.code] == 2 for place in pulled)
    assert not any(POPULARITY.classes[place.code] == 2 for place in plain)
    assert listed(10, settings=settings, person=Audience()) == plain


def test_lengths_must_fit() -> None:
    with pytest.raises(DataError, match="different lengths"):
        listed(3, scores=SCORES[:2])


@given(
    st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0]), min_size=N, max_size=N),
    st.integers(1, N),
    st.lists(st.integers(0, N - 1), max_size=4, unique=True),
)
def test_by_score_alone_is_what_the_long_way_gives(scores: list[float], n: int, pinned: list[int]) -> None:
    """A quota that limits nothing takes the long way."""
    column = np.array(scores, np.float32)
    pins: list[dict[str, Any]] = [{"action": "pin", "items": [f"i{code}" for code in pinned], "position": 2}]
    pins = pins if pinned else []
    short = listed(n, *pins, scores=column)
    long = listed(n, *pins, {"action": "quota", "category": "a", "limit": N}, scores=column)
    assert codes_of(short) == codes_of(long)
    np.testing.assert_allclose([p.score for p in short], [p.score for p in long], atol=1e-6)
