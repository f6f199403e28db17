"""Exposure and quality by group: exact figures by hand, bounded rows, and what noise leaves of them."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedrec.data.catalog import ItemCatalog
from fedrec.data.movielens_people import FILE, load_people
from fedrec.errors import BudgetError, DataError
from fedrec.fairness.figures import NOTHING, Served, exact_figures, exposure_rows, exposure_shares, unequal
from fedrec.fairness.groups import PeopleGroups, by_bounds, by_category, by_label, by_labels, popularity_tiers
from fedrec.fairness.release import (
    PART,
    FairnessQuery,
    Released,
    bounded_rows,
    figures_of,
    release_fairness,
    threshold,
)
from fedrec.privacy.ledger import PrivacyLedger
from fedrec.privacy.noise import NoiseSource

GENRES = by_labels("genre", [("a",), ("a", "b"), ("b",), ("c",)])
TIERS = popularity_tiers(np.array([60.0, 20.0, 19.0, -1.0]))
SEX = ("F", "M")


def served_of(lists: list[list[int]], quality: list[float], sex: str) -> Served:
    return Served(np.array(lists, np.int64), np.array(quality), (by_label("sex", list(sex), SEX),))


def crowd(n: int, seed: int = 0) -> Served:
    """Made people; women, a third, are served worse."""
    rng = np.random.default_rng(seed)
    is_man = (rng.random(n) < 0.67).astype(np.int64)
    lists = np.array([rng.permutation(4)[:3] for _ in range(n)])
    quality = (rng.random(n) < np.where(is_man, 0.3, 0.1)).astype(float)
    return Served(lists, quality, (PeopleGroups("sex", SEX, is_man),))


QUERY = FairnessQuery("hr@10", (GENRES, TIERS), (("sex", SEX),))


def test_exposure_by_hand() -> None:
    served = served_of([[0, 1], [2, NOTHING]], [1.0, 0.0], "FM")
    first, second = 1.0, 1 / math.log2(3)
    share_of_a = (first + second / 2) / (first + second)
    rows = exposure_rows(served.lists, GENRES)
    assert rows[0] == pytest.approx([share_of_a, 1 - share_of_a, 0])
    assert rows[1] == pytest.approx([0, 1, 0])
    assert exposure_shares(served, GENRES)["a"] == pytest.approx(share_of_a / 2)
    figures = exact_figures(served, [GENRES, TIERS])
    assert figures["quality_by_group"]["sex"] == {
        "groups": {"F": {"people": 1, "mean": 1.0}, "M": {"people": 1, "mean": 0.0}},
        **unequal([1.0, 0.0]),
    }


def test_tiers_are_those_of_the_released_counts_and_genres_those_of_the_catalogue() -> None:
    assert TIERS.members.tolist() == [
        [True, False, False, False],
        [False, True, False, False],
        [False, False, True, True],
    ]
    catalog = ItemCatalog(("1", "2"), ("A", "B"), ("A", "B"), (("x", "y"), ()), (None, None))
    assert by_category(catalog).names == ("none", "x", "y")
    assert by_category(catalog).weights.tolist() == [[0, 1], [0.5, 0], [0.5, 0]]


@given(st.integers(0, 30), st.integers(0, 10_000))
def test_nobody_moves_the_sum_further_than_the_query_says(n: int, seed: int) -> None:
    served = crowd(n + 1, seed)
    rows = QUERY.rows(served)
    assert (np.linalg.norm(rows, axis=1) <= QUERY.l2_norm + 1e-9).all()
    # As it is summed: with and without the last of them.
    with_all = bounded_rows(QUERY, served, QUERY.l2_norm).consume().numpy()
    without = bounded_rows(QUERY, served.of(np.arange(n)), QUERY.l2_norm).consume().numpy()
    assert np.linalg.norm(with_all - without) <= QUERY.l2_norm + 1e-4


def test_the_bound_is_reached_so_that_no_noise_is_wasted() -> None:
    hit = Served(np.array([[2]]), np.ones(1), (PeopleGroups("sex", SEX, np.array([1])),))
    assert np.linalg.norm(QUERY.rows(hit)) == pytest.approx(QUERY.l2_norm)


def ledger_of(folder: Path, epsilon: float) -> PrivacyLedger:
    return PrivacyLedger.create(
        folder / "ledger.sqlite", partner="p", dataset="d", budget_epsilon=epsilon, budget_delta=1e-4
    )


def test_it_is_paid_before_anything_is_read_and_noted_before_it_leaves(tmp_path: Path) -> None:
    ledger, plan, reads = ledger_of(tmp_path, 2.5), QUERY.plan(2.0, 1e-4), list[bool]()

    def read() -> Served:
        seen = PrivacyLedger(ledger.path).chain()
        reads.append("event" in seen.reserved and "event" not in seen.released)
        return crowd(50)

    source = NoiseSource.from_root(bytes(32), b"event")
    first = release_fairness(QUERY, read, plan, ledger, source, run="r", event="event")
    assert reads == [True]
    assert "event" in ledger.chain().released
    assert ledger.spent()[0] == pytest.approx(2.0, abs=0.02)
    again = NoiseSource.from_root(bytes(32), b"event")
    assert (release_fairness(QUERY, read, plan, ledger, again, run="r", event="event").total == first.total).all()
    assert ledger.spent()[0] == pytest.approx(2.0, abs=0.02)
    with pytest.raises(BudgetError):
        release_fairness(QUERY, read, plan, ledger, source, run="r2", event="other")
    assert len(reads) == 2, "what cannot be paid is not read"


def test_intervals_hold_the_noise_and_small_groups_are_not_shown() -> None:
    served, plan = crowd(900), QUERY.plan(2.0, 1e-4)
    exact, std = exact_figures(served, [GENRES, TIERS]), plan.noise_std(PART)
    total = QUERY.rows(served).sum(0)
    noise = np.random.default_rng(1)
    within, shares = list[bool](), list[bool]()
    for _ in range(400):
        told = figures_of(QUERY, Released(total + std * noise.standard_normal(len(total)), std))
        for name, group in told["quality_by_group"]["sex"]["groups"].items():
            true = exact["quality_by_group"]["sex"]["groups"][name]["mean"]
            within.append(abs(group["mean"] - true) <= group["noise"])
        for name, group in told["exposure"]["genre"]["groups"].items():
            shares.append(group["low"] <= exact["exposure"]["genre"][name] <= group["high"])
    assert 0.92 <= np.mean(within) <= 0.98
    assert 0.92 <= np.mean(shares) <= 0.98
    few = figures_of(QUERY, Released(QUERY.rows(crowd(20)).sum(0), std))["quality_by_group"]["sex"]
    assert few["groups"] == {"F": {"is_shown": False}, "M": {"is_shown": False}}
    assert few["threshold"] == threshold(std) > 40


def test_partners_add_up() -> None:
    parts = [Released(QUERY.rows(crowd(100, seed)).sum(0), 3.0) for seed in range(4)]
    whole = parts[0].plus(parts[1]).plus(parts[2]).plus(parts[3])
    assert whole.noise_std == pytest.approx(6.0)
    assert whole.total == pytest.approx(sum(part.total for part in parts))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: by_label("sex", ["X"], SEX), "not among the names"),
        (lambda: by_bounds("age", np.ones(2), {"all": 30.0}), "rise to infinity"),
        (lambda: served_of([[0]], [1.5], "F"), "outside"),
        (lambda: served_of([[0], [1]], [1.0], "F"), "different people"),
    ],
)
def test_wrong_input_is_named(make: object, words: str) -> None:
    with pytest.raises(DataError, match=words):
        make()  # type: ignore[operator]


def test_people_of_movielens_are_read_and_faults_told_by_line(tmp_path: Path) -> None:
    head = "user_id:token\tage:token\tgender:token\toccupation:token\n"
    (tmp_path / FILE).write_text(head + "7\t24\tF\tartist\n")
    assert (load_people(tmp_path)["7"].age, load_people(tmp_path)["7"].gender) == (24, "F")
    (tmp_path / FILE).write_text(head + "7\t24\tF\tx\n8\told\tM\tx\n9\t3\tQ\tx\n")
    with pytest.raises(DataError) as found:
        load_people(tmp_path)
    assert {"line 3", "line 4"} <= set(str(found.value).replace(":", "\n").replace("- ", "\n").split("\n"))
    assert "old" not in str(found.value)
    (tmp_path / FILE).write_text("id\n")
    with pytest.raises(DataError, match="lacks"):
        load_people(tmp_path)
