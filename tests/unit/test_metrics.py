"""The metric kernels agree with ir-measures, and metric sums refuse what no evaluation gives."""

import ir_measures
import numpy as np
import pytest
from ir_measures import RR, P, R, Success, nDCG

from fedrec.errors import DataError, ProtocolError
from fedrec.evaluation.metrics import (
    CUTOFFS,
    METRICS,
    MetricSums,
    metric_table,
    pad_ranks,
    target_ranks,
    top_items,
)

N_ITEMS = 60
THEIRS = {
    f"{ours}@{k}": theirs @ k
    for ours, theirs in (("hr", Success), ("ndcg", nDCG), ("mrr", RR), ("recall", R), ("precision", P))
    for k in CUTOFFS
}


def _random_rankings(n_users: int, n_candidates: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Per user: scores without ties, `-inf` off the candidates; and one to thirty targets among them."""
    rng, users = np.random.default_rng(n_candidates), []
    for _ in range(n_users):
        scores = rng.permutation(N_ITEMS).astype(np.float32)
        candidates = rng.choice(N_ITEMS, n_candidates, replace=False)
        scores[np.setdiff1d(np.arange(N_ITEMS), candidates)] = -np.inf
        users.append((scores, rng.choice(candidates, rng.integers(1, min(31, n_candidates)), replace=False)))
    return users


@pytest.mark.parametrize("n_candidates", [N_ITEMS, 12])
def test_kernels_equal_ir_measures(n_candidates: int) -> None:
    users = _random_rankings(40, n_candidates)
    ranks = [target_ranks(scores, targets, np.arange(N_ITEMS) / N_ITEMS) for scores, targets in users]
    ours = metric_table(pad_ranks(ranks))

    qrels = {str(u): {str(item): 1 for item in targets} for u, (_, targets) in enumerate(users)}
    run = {
        str(u): {str(item): float(scores[item]) for item in np.flatnonzero(np.isfinite(scores))}
        for u, (scores, _) in enumerate(users)
    }
    names = {measure: name for name, measure in THEIRS.items()}
    compared = 0
    for result in ir_measures.iter_calc(list(THEIRS.values()), qrels, run):
        name = names[result.measure]
        assert ours[int(result.query_id), METRICS.index(name)] == pytest.approx(result.value, abs=1e-9), name
        compared += 1
    assert compared == len(users) * len(METRICS)


def test_names_are_lower_case_with_their_cutoff() -> None:
    assert set(METRICS) == set(THEIRS)


def test_a_list_is_cut_at_the_candidates() -> None:
    scores = np.array([0.1, -np.inf, 0.3, 0.2], np.float32)
    assert top_items(scores, 10, np.zeros(4)).tolist() == [2, 3, 0]
    assert top_items(np.full(4, -np.inf), 10, np.zeros(4)).size == 0


def test_coverage_counts_items_once_and_novelty_weighs_exposure() -> None:
    sums = MetricSums(2, np.zeros(len(METRICS)), np.array([2, 1, 0, 0]))
    assert sums.coverage() == 0.5
    # Counts + 1 are 4, 2, 1, 1: shares 1/2, 1/4, 1/8, 1/8, so 1, 2, 3 and 3 bits. A noised -5 counts as zero.
    assert sums.novelty(np.array([3, 1, 0, -5])) == pytest.approx((2 * 1 + 1 * 2) / 3)


def test_nobody_has_no_mean() -> None:
    with pytest.raises(DataError, match="no user"):
        MetricSums.empty(3).means()


@pytest.mark.parametrize(
    ("n_users", "totals", "exposure"),
    [
        (-1, np.zeros(len(METRICS)), np.zeros(3, np.int64)),
        (1, np.full(len(METRICS), 1.1), np.zeros(3, np.int64)),
        (1, np.full(len(METRICS), np.nan), np.zeros(3, np.int64)),
        (1, np.zeros(2), np.zeros(3, np.int64)),
        (1, np.zeros(len(METRICS)), np.full(3, 2)),
    ],
)
def test_sums_that_no_evaluation_gives_are_refused(n_users: int, totals: np.ndarray, exposure: np.ndarray) -> None:
    with pytest.raises(ProtocolError, match="metric sums"):
        MetricSums(n_users, totals, exposure)


def test_sums_over_two_catalogues_do_not_add() -> None:
    with pytest.raises(ProtocolError, match="different size"):
        MetricSums.empty(3) + MetricSums.empty(4)
