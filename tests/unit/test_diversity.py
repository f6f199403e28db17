"""Greedy choice, beside slow and obvious oracles."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedrec.errors import DataError
from fedrec.recommend.diversity import RIDGE, Dpp, Gain, Mmr, Plain, Scaled, choose, unit
from fedrec.recommend.feedback import less_like, type_weights
from fedrec.recommend.popularity import Calibration, Popularity, divergence

CASES = st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 5), st.floats(0, 1))


def made(seed: int, m: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.normal(size=m), random.normal(size=(m, d)).astype(np.float32)


def all_open(m: int) -> np.ndarray:
    return np.ones(m, bool)


def chosen(gain: Gain, m: int, n: int) -> list[int]:
    return choose(n, [gain], lambda: all_open(m))


def slow_mmr(scores: np.ndarray, vectors: np.ndarray, relevance: float, n: int) -> list[int]:
    listed: list[int] = []

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))

    while len(listed) < min(n, len(scores)):
        values = {}
        for i in range(len(scores)):
            if i not in listed:
                near = max((cosine(vectors[i], vectors[j]) for j in listed), default=0.0)
                values[i] = relevance * scores[i] - (1 - relevance) * near
        listed.append(max(values, key=lambda i: values[i]))
    return listed


def slow_dpp(scores: np.ndarray, vectors: np.ndarray, relevance: float, n: int) -> list[int]:
    rows = unit(vectors).astype(np.float64)
    kernel = rows @ rows.T + RIDGE * np.eye(len(rows))
    listed: list[int] = []
    while len(listed) < min(n, len(scores)):
        values = {}
        for i in range(len(scores)):
            if i not in listed:
                at = [*listed, i]
                logdet = np.linalg.slogdet(kernel[np.ix_(at, at)])[1]
                values[i] = relevance * scores[at].sum() + (1 - relevance) * logdet
        listed.append(max(values, key=lambda i: values[i]))
    return listed


@given(CASES)
def test_mmr_is_the_slow_one(case: tuple[int, int, int, float]) -> None:
    seed, m, d, relevance = case
    scores, vectors = made(seed, m, d + 1)
    assert chosen(Mmr(scores, vectors, relevance), m, 6)[1:] == slow_mmr(scores, vectors, relevance, 6)[1:]


@given(CASES)
def test_dpp_is_the_slow_one(case: tuple[int, int, int, float]) -> None:
    seed, m, d, relevance = case
    scores, vectors = made(seed, m, d + 1)
    relevance = max(relevance, 0.01)
    assert chosen(Dpp(scores, vectors, relevance), m, 5) == slow_dpp(scores, vectors, relevance, 5)


@given(CASES)
def test_relevance_alone_is_the_plain_order(case: tuple[int, int, int, float]) -> None:
    seed, m, d, _ = case
    scores, vectors = made(seed, m, d)
    scores = np.round(scores)  # with ties
    plain = np.argsort(-scores, kind="stable").tolist()
    for gain in (Mmr(scores, vectors, 1.0), Dpp(scores, vectors, 1.0), Plain(scores), Scaled(Plain(scores), 0.5)):
        assert chosen(gain, m, m) == plain


@pytest.mark.parametrize("kind", [Mmr, Dpp])
def test_what_says_the_same_comes_late(kind: type[Mmr] | type[Dpp]) -> None:
    scores, vectors = np.array([1.0, 0.99, 0.5]), np.array([[1.0, 0], [1, 0], [0, 1]], np.float32)
    assert chosen(kind(scores, vectors, 0.5), 3, 3) == [0, 2, 1]
    zero = np.array([[1.0, 0], [np.nan, 0], [0, 0]], np.float32)
    assert sorted(chosen(kind(scores, zero, 0.5), 3, 3)) == [0, 1, 2]


def test_what_is_taken_or_closed_is_not_chosen() -> None:
    scores = np.array([3.0, 2.0, 1.0])
    assert choose(3, [Plain(scores)], lambda: np.array([True, False, True]), taken=[2]) == [0]
    assert choose(3, [Plain(np.zeros(0))], lambda: all_open(0)) == []
    vectors = np.array([[1.0, 0], [0, 1], [1, 0]], np.float32)
    assert choose(1, [Mmr(scores, vectors, 0.3)], lambda: all_open(3), taken=[2]) == [1]


def test_head_middle_and_tail() -> None:
    counts = np.array([50, 20, 10, 10, 5, 3, 2])
    assert Popularity.of(counts).classes.tolist() == [0, 1, 1, 2, 2, 2, 2]
    assert Popularity.of(np.zeros(3)).share_of(np.array([], np.int32)) is None
    share = Popularity.of(counts).share_of(np.array([0, 0, 1, 6]))
    assert share is not None
    assert share.tolist() == [0.5, 0.25, 0.25]
    for bad in (np.array([-1.0]), np.array([np.nan])):
        with pytest.raises(DataError):
            Popularity.of(bad)


@given(st.integers(0, 2**32 - 1), st.integers(1, 8))
def test_calibration_takes_what_a_slow_one_takes(seed: int, n: int) -> None:
    random = np.random.default_rng(seed)
    classes, wanted, scores = (
        random.integers(0, 3, 15).astype(np.int8),
        random.dirichlet(np.ones(3)),
        random.normal(size=15),
    )
    gains = [Scaled(Plain(scores), 0.4), Calibration(classes, wanted, 0.6)]
    listed: list[int] = []
    while len(listed) < n:
        values = {
            i: 0.4 * scores[i] - 0.6 * divergence(wanted, np.bincount(classes[[*listed, i]], minlength=3).astype(float))
            for i in range(15)
            if i not in listed
        }
        listed.append(max(values, key=lambda i: values[i]))
    assert choose(n, gains, lambda: all_open(15)) == listed


def test_full_calibration_gives_the_history_its_shares() -> None:
    classes = np.repeat(np.array([0, 1, 2], np.int8), 20)
    gains = [Scaled(Plain(-np.arange(60.0)), 1e-6), Calibration(classes, np.array([0.2, 0.3, 0.5]), 1.0)]
    listed = choose(10, gains, lambda: all_open(60))
    assert np.bincount(classes[listed], minlength=3).tolist() == [2, 3, 5]


def test_divergence_is_none_of_equal_shares_and_finite_of_none() -> None:
    assert divergence(np.array([0.5, 0.5, 0]), np.array([2.0, 2, 0])) == pytest.approx(0)
    assert 0 < divergence(np.array([0.0, 0, 1]), np.array([4.0, 0, 0])) < 10


def test_less_like_is_the_largest_cosine() -> None:
    candidates = np.array([[1.0, 0], [0, 2], [-1, 0], [1, 1]])
    assert less_like(np.array([[3.0, 0]]), candidates) == pytest.approx([1, 0, 0, 0.5**0.5])
    assert less_like(np.zeros((0, 2)), candidates).tolist() == [0, 0, 0, 0]
    assert type_weights([], {}).tolist() == []
