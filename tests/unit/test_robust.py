"""Robust aggregators beside slow and obvious ones, and which configurations may use them."""

import math
import statistics
import tomllib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fedrec.aggregation.robust import (
    coordinate_median,
    geometric_median,
    krum_scores,
    multi_krum,
    norm_clipped_mean,
    trimmed_mean,
)
from fedrec.config import parse_config
from fedrec.defence import AggregatorName, Defence, least_answers
from fedrec.errors import ConfigError
from fedrec_sim.cli_output import DEMO


def drawn(seed: int, n: int, d: int = 4) -> np.ndarray:
    """Answers with heavy tails, so that sorting, trimming and choosing matter."""
    return np.random.default_rng(seed).standard_t(2, (n, d)).astype(np.float32)


def slow_trimmed_mean(rows: np.ndarray, hostile: int) -> list[float]:
    kept = [sorted(column)[hostile : len(column) - hostile] for column in rows.T.tolist()]
    return [statistics.fmean(column) for column in kept]


def slow_krum(rows: np.ndarray, hostile: int) -> tuple[list[float], list[float]]:
    points, n = rows.tolist(), len(rows)
    scores = [
        sum(sorted(math.dist(points[i], points[j]) ** 2 for j in range(n) if j != i)[: n - hostile - 2])
        for i in range(n)
    ]
    chosen = sorted(range(n), key=lambda i: scores[i])[: n - hostile]
    return scores, [statistics.fmean(points[i][c] for i in chosen) for c in range(rows.shape[1])]


def slow_clipping(rows: np.ndarray, bound: float) -> list[float]:
    points = rows.tolist()
    scales = [min(1.0, bound / math.hypot(*point)) for point in points]
    return [statistics.fmean(s * p[c] for s, p in zip(scales, points, strict=True)) for c in range(rows.shape[1])]


@pytest.mark.parametrize("n", [5, 8])
@pytest.mark.parametrize("seed", range(5))
def test_each_is_what_the_slow_one_says(n: int, seed: int) -> None:
    rows = drawn(seed, n)
    close: Callable[..., None] = np.testing.assert_allclose
    close(coordinate_median(rows), [statistics.median(column) for column in rows.T.tolist()], rtol=1e-12)
    for hostile in (1, 2):
        close(trimmed_mean(rows, hostile), slow_trimmed_mean(rows, hostile), rtol=1e-12)
    scores, mean = slow_krum(rows, 1)
    close(krum_scores(rows.astype(float), 1), scores, rtol=1e-12)
    close(multi_krum(rows, 1), mean, rtol=1e-12)
    norms = [math.hypot(*row) for row in rows.tolist()]
    close(norm_clipped_mean(rows, 0.0), slow_clipping(rows, statistics.median(norms)), rtol=1e-12)
    close(norm_clipped_mean(rows, 0.7), slow_clipping(rows, 0.7), rtol=1e-12)


@pytest.mark.parametrize("n", [5, 8])
@pytest.mark.parametrize("seed", range(5))
def test_no_step_from_the_geometric_median_comes_nearer_to_all(n: int, seed: int) -> None:
    rows = drawn(seed, n)
    found = geometric_median(rows)

    def distance(point: np.ndarray) -> float:
        return sum(math.dist(row, point) for row in rows.tolist())

    steps = np.random.default_rng(seed).standard_normal((200, 4))
    least = distance(found)
    for size in (1e-4, 1e-2, 1.0):
        assert all(distance(found + size * step) > least - 1e-9 for step in steps)


def test_geometric_medians_that_are_known() -> None:
    corners = np.float32([[0, 0], [2, 0], [1, math.sqrt(3)]])
    np.testing.assert_allclose(geometric_median(corners), corners.mean(0), atol=1e-6)
    flat = np.float32([[-5, 0], [5, 0], [0, 1]])  # an angle beyond 120 degrees: the corner itself
    np.testing.assert_allclose(geometric_median(flat), [0, 1], atol=1e-4)
    line = np.float32([[1], [2], [4], [100], [1e6]])
    np.testing.assert_allclose(geometric_median(line), [4], atol=1e-4)


def test_many_columns_are_taken_in_pieces() -> None:
    rows = drawn(1, 3, 70_000)
    np.testing.assert_array_equal(coordinate_median(rows), np.median(rows.astype(float), axis=0))


def test_answers_without_length_stay_so() -> None:
    assert norm_clipped_mean(np.zeros((3, 2), np.float32), 0.0).tolist() == [0.0, 0.0]
    assert norm_clipped_mean(np.float32([[0, 0], [0, 0], [9, 9]]), 0.0).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(("aggregator", "least"), [("median", 5), ("trimmed-mean", 5), ("multi-krum", 7)])
def test_a_quorum_must_outvote_the_hostile(aggregator: AggregatorName, least: int) -> None:
    assert least_answers(aggregator, 2) == least
    defence = Defence(aggregator=aggregator, hostile=2)
    assert defence.problems(least, secagg=False) == []
    (problem,) = defence.problems(least - 1, secagg=False)
    assert f"= {least} answers, the quorum is {least - 1}: raise the quorum" in problem


def test_everything_that_does_not_fit_is_told_at_once() -> None:
    wrong = Defence(aggregator="median", clip_norm=1.0).problems(0, secagg=True)
    assert [problem.split()[0] for problem in wrong] == ["rounds.hostile", "rounds.clip_norm", "secagg", "median"]
    assert "bears none" in Defence(hostile=1).problems(3, secagg=True)[0]
    assert Defence().problems(1, secagg=True) == []
    assert Defence(aggregator="norm-clipping", clip_norm=1.0).problems(1, secagg=False) == []


def configured(rows: list[str], **rounds: Any) -> None:
    values = tomllib.loads(DEMO.read_text(encoding="utf-8"))
    parse_config({**values, "rows": rows, "rounds": {**values["rounds"], **rounds}}, "made")


def test_a_simulation_that_cannot_bear_its_hostile_partners_is_refused() -> None:
    configured(["federated_dp_inspect"], aggregator="multi-krum", hostile=2)
    with pytest.raises(ConfigError, match=r"clip_norm says nothing.*secagg mode allows the mean only.*= 9 answers"):
        configured(["federated_dp"], aggregator="multi-krum", hostile=3, clip_norm=2.0)
