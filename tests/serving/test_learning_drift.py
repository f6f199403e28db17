"""Drift: quiet on what stays the same, loud on what does not, and the same after a restart."""

import math
from collections import Counter

import numpy as np
import pytest

from fedrec_client.serving.learning.drift import Stream, histogram_drift, population_stability

BINS = ["a", "b", "c", "d", "e", "f"]
SHARES = [0.4, 0.25, 0.15, 0.1, 0.06, 0.04]
MOVED = [0.15, 0.15, 0.15, 0.15, 0.2, 0.2]


def drawn(rng: np.random.Generator, n: int, shares: list[float] = SHARES) -> Counter[str]:
    return Counter(rng.choice(BINS, n, p=shares).tolist())


def test_the_index_is_the_one_of_the_books() -> None:
    p, q = {"a": 6000, "b": 4000}, {"a": 4000, "b": 6000}
    index, _ = population_stability(p, q)
    assert index == pytest.approx(2 * 0.2 * math.log(1.5), rel=1e-3)
    assert population_stability(p, q)[0] == pytest.approx(population_stability(q, p)[0])


def test_rare_and_new_bins_are_counted_together_and_nothing_is_no_drift() -> None:
    many = {"a": 900.0, **{f"rare{i}": 1.0 for i in range(100)}}
    other = {"a": 900.0, **{f"new{i}": 1.0 for i in range(100)}}
    assert population_stability(many, other)[0] == pytest.approx(0)
    assert histogram_drift("x", {}, {"a": 5}, 0.2, 0, 0) is None
    assert histogram_drift("x", {"a": 5}, {}, 0.2, 0, 0) is None


@pytest.mark.parametrize("n", [30, 200, 2000])
def test_histograms_of_the_same_source_hardly_ever_alarm(n: int) -> None:
    alarms = 0
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        alarms += histogram_drift("x", drawn(rng, n), drawn(rng, n), 0.001, 0, 0) is not None
    assert alarms <= 3  # 0.1 expected, at a bound so low that chance alone counts


def test_a_moved_histogram_is_found_in_every_draw() -> None:
    for seed in range(50):
        rng = np.random.default_rng(seed)
        found = histogram_drift("events by type", drawn(rng, 300), drawn(rng, 300, MOVED), 0.2, 5.0, 9.0)
        assert found is not None
        assert found.value > found.bound >= 0.2
        assert found.to_dict()["since"] == 5.0


def test_a_crowd_of_different_tastes_hardly_ever_alarms() -> None:
    """Fifty people with twenty events each: the counts are far less independent than they are many."""

    def day(rng: np.random.Generator) -> Counter[str]:
        found: Counter[str] = Counter()
        for _ in range(50):
            found.update(rng.choice(BINS, 20, p=rng.dirichlet(np.array(SHARES) * 2)).tolist())
        return found

    alarms: Counter[str] = Counter()
    for seed in range(300):
        rng = np.random.default_rng(seed)
        one, other = day(rng), day(rng)
        alarms["by events"] += histogram_drift("x", one, other, 0.01, 0, 0) is not None
        alarms["by people"] += histogram_drift("x", one, other, 0.01, 0, 0, (50, 50)) is not None
    assert alarms["by people"] <= 1
    assert alarms["by events"] > 20  # what counting people is for


def alarms_of(values: list[float], *, only_down: bool = False) -> list[int]:
    stream = Stream("hits", only_down)
    return [place for place, value in enumerate(values) if stream.update(value, place) is not None]


def test_a_steady_stream_hardly_ever_alarms() -> None:
    n_false = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        n_false += bool(alarms_of((rng.random(1500) < 0.2).astype(float).tolist()))
    assert n_false <= 1


def test_a_fall_is_found_soon_and_a_rise_of_hits_is_good_news() -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        high, low = ((rng.random(1200) < rate).astype(float).tolist() for rate in (0.4, 0.15))
        fall = alarms_of(high + low, only_down=True)
        assert fall
        assert 1200 <= fall[0] < 1700
        assert not alarms_of(low + high, only_down=True)
        assert alarms_of(low + high)


def test_a_restart_goes_on_from_what_was_kept() -> None:
    rng = np.random.default_rng(0)
    values = (rng.random(800) < 0.4).astype(float).tolist() + (rng.random(800) < 0.1).astype(float).tolist()
    kept, restarted = Stream("hits"), Stream("hits")
    found: dict[str, list[int]] = {"kept": [], "restarted": []}
    for place, value in enumerate(values):
        if place == 700:
            again = Stream("hits")
            again.restore(restarted.values())
            restarted = again
        for name, stream in (("kept", kept), ("restarted", restarted)):
            if stream.update(value, place) is not None:
                found[name].append(place)
    assert found["kept"] == found["restarted"]
    assert found["kept"]
    assert len(restarted.values()) < 1500  # what was before the fall is forgotten
