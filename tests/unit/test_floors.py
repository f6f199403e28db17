"""Floors of exposure: what groups are owed they get, at the least cost, and in their own order."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedrec.errors import DataError
from fedrec.recommend.arrangement import ArrangementSettings, Audience, arrange
from fedrec.recommend.compiled_rules import RuleTable
from fedrec.recommend.diversity import Plain, choose
from fedrec.recommend.filters import Filters
from fedrec.recommend.floors import FairShares, FloorController, Floors, place_weights
from fedrec.recommend.popularity import Popularity
from fedrec.recommend.rules import RuleBook
from fedrec.recommend.shelf import Item, Shelf


def fair_shares(shares: list[float], members: np.ndarray, *, is_each: bool = True) -> FairShares:
    names = tuple(f"g{at}" for at in range(len(shares)))
    return FairShares(names, np.array(shares), members, np.zeros(len(shares)), is_each)


def greedy(scores: np.ndarray, fair: FairShares, n: int) -> list[int]:
    floors = Floors(fair, np.arange(len(scores)), n)
    everything = np.ones(len(scores), bool)
    return choose(n, [Plain(scores), floors], lambda: floors.may_take(everything))


def keeps(listed: tuple[int, ...], fair: FairShares) -> bool:
    """Every prefix, one by one."""
    for length in range(1, len(listed) + 1):
        for share, members in zip(fair.shares, fair.members, strict=True):
            owed = min(int(share * length + 1e-9), int(members.sum()))
            if sum(members[item] for item in listed[:length]) < owed:
                return False
    return True


SHARES = st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.3, 0.34, 0.5]), min_size=1, max_size=3).filter(
    lambda shares: sum(shares) <= 1
)


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, FairShares, int]:
    shares = draw(SHARES)
    groups = draw(st.lists(st.integers(-1, len(shares) - 1), min_size=2, max_size=6))
    members = np.array([[group == own for group in groups] for own in range(len(shares))])
    scores = np.array(draw(st.permutations(range(len(groups)))), float)
    return scores, fair_shares(shares, members), draw(st.integers(1, len(groups)))


@given(cases())
def test_it_is_the_best_list_of_all_that_keep_to_the_floors(case: tuple[np.ndarray, FairShares, int]) -> None:
    """Best place by place, by trying every list that there is."""
    scores, fair, n = case
    lawful = [one for one in permutations(range(len(scores)), n) if keeps(one, fair)]
    assert lawful, "with groups apart there always is one"
    assert tuple(greedy(scores, fair, n)) == max(lawful, key=lambda one: [scores[item] for item in one])


@given(st.data())
def test_the_order_within_a_group_stays_and_nothing_is_lost(data: st.DataObject) -> None:
    m, n_groups = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 4))
    rng = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    members = rng.random((n_groups, m)) < 0.3  # overlapping
    fair = fair_shares([0.9 / n_groups] * n_groups, members)
    scores, n = rng.permutation(m).astype(float), data.draw(st.integers(1, 20))
    listed = greedy(scores, fair, n)
    assert len(listed) == len(set(listed)) == min(n, m)
    kinds = members.T[listed]
    for kind in np.unique(kinds, axis=0):
        own = scores[listed][(kinds == kind).all(1)]
        assert (np.diff(own) < 0).all()
    counts, whole = members[:, listed].sum(1), min(n, m)
    assert (counts >= np.minimum(fair.least(whole) if n <= m else 0, members.sum(1))).all()


def test_without_shares_it_is_the_order_of_scores() -> None:
    scores = np.random.default_rng(0).normal(size=30)
    assert greedy(scores, fair_shares([0.0], np.ones((1, 30), bool)), 10) == np.argsort(-scores)[:10].tolist()


def shelf() -> Shelf:
    return Shelf(Item(f"i{n}", categories=("rare",) if n >= 25 else ("common",)) for n in range(30))


def arranged(fair: FairShares | None, *rules: dict[str, object]) -> list[int]:
    place, scores = shelf(), -np.arange(30, dtype=np.float32)
    book = RuleBook.model_validate({"rules": [{"name": f"r{at}", **rule} for at, rule in enumerate(rules)]})
    compiled = RuleTable(place, Filters(place), book).in_force(0.0)
    codes = np.arange(30, dtype=np.int32)
    popularity = Popularity.of(np.ones(30))
    settings, nobody = ArrangementSettings(), Audience()
    found = arrange(
        place, codes, scores, lambda c: np.zeros((len(c), 1), np.float32), 10, settings, compiled, popularity, nobody,
        0.0, 0, fair,
    )  # fmt: skip
    return [one.code for one in found]


RARE = (np.arange(30) >= 25)[None]


def test_in_a_list_floors_stand_below_quotas_and_pins_count() -> None:
    fair = fair_shares([0.2], RARE)
    assert [code for code in arranged(fair) if code >= 25] == [25, 26]
    assert arranged(fair).index(25) == 4  # the first place by which it is due, not earlier
    assert arranged(None) == list(range(10))
    pinned = arranged(fair, {"action": "pin", "items": ["i29"], "position": 10})
    assert [code for code in pinned if code >= 25] == [25, 29]
    limited = arranged(fair, {"action": "quota", "category": "rare", "limit": 1})
    assert [code for code in limited if code >= 25] == [25]
    assert len(limited) == 10


def test_a_price_is_paid_by_the_scores() -> None:
    dear = FairShares(("rare",), np.array([0.2]), RARE, np.array([20.5]), is_each=False)
    assert arranged(dear)[:6] == [0, 1, 2, 3, 4, 25]


def test_the_controller_brings_a_group_to_its_share_and_lets_go_when_it_has_more() -> None:
    """Made people, of whom a tenth likes the group: these come to carry it."""
    rng = np.random.default_rng(3)
    members = np.arange(60)[None] >= 50
    controller = FloorController({"rare": 0.15})
    shown = []
    for _ in range(1500):
        likes = (rng.random() < 0.1) * 3.0
        scores = rng.normal(size=60) + np.where(members[0], likes - 2.5, 0.0)
        fair = FairShares(("rare",), np.array([0.15]), members, controller.prices.copy(), is_each=False)
        listed = np.argsort(-(scores + fair.boost(np.arange(60))))[:10]
        controller.note(members[:, listed])
        weights = place_weights(10)
        shown.append(float(members[0, listed] @ weights / weights.sum()))
    assert np.mean(shown[500:]) == pytest.approx(0.15, abs=0.01)
    assert controller.given()["rare"] == pytest.approx(np.mean(shown))
    assert controller.prices[0] > 0
    for _ in range(1000):
        controller.note(np.ones((1, 10), bool))
    assert controller.prices[0] == 0


@pytest.mark.parametrize("shares", [[0.6, 0.6], [-0.1, 0.2], [float("nan"), 0.1]])
def test_shares_that_cannot_be_are_refused(shares: list[float]) -> None:
    with pytest.raises(DataError, match="add up to 1"):
        fair_shares(shares, np.zeros((2, 3), bool))
