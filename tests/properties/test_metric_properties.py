"""What must hold for every evaluation: it adds up, forgets the order of users, and does not flatter ties."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedrec.data.splits import EvaluationSplit
from fedrec.errors import ModelError
from fedrec.evaluation.metrics import MetricSums, target_ranks, top_items
from fedrec.evaluation.protocol import evaluate_users

N_ITEMS = 14
# Few different scores, so that ties are everywhere.
few_scores = hnp.arrays(np.float32, N_ITEMS, elements=st.sampled_from([-1.0, 0.0, 0.5, 2.0]))


class TableScorer:
    """Scores that depend on the history alone, with many ties."""

    def __init__(self, table: np.ndarray) -> None:
        self.table = table

    def score(self, histories: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack([self.table[int(history.sum()) % len(self.table)] for history in histories])


scorers = hnp.arrays(np.float32, (5, N_ITEMS), elements=st.sampled_from([0.0, 1.0, 3.0])).map(TableScorer)


@st.composite
def populations(draw: st.DrawFn) -> list[EvaluationSplit]:
    """Up to nine users, some of them with nothing in their test."""
    users = []
    for number in range(draw(st.integers(0, 9))):
        items = np.array(draw(st.permutations(range(N_ITEMS))), np.int32)
        first, second, third = sorted(draw(st.tuples(*[st.integers(0, N_ITEMS)] * 3)))
        users.append(
            EvaluationSplit(
                user=f"u{number}",
                train=items[:first],
                validation=items[first:second],
                test=items[second:third],
            )
        )
    return users


def sums(scorer: TableScorer, splits: Sequence[EvaluationSplit], tie_seed: int = 7) -> MetricSums:
    return evaluate_users(scorer, splits, "test", n_items=N_ITEMS, tie_seed=tie_seed).sums()


def assert_same(a: MetricSums, b: MetricSums) -> None:
    assert a.n_users == b.n_users
    np.testing.assert_allclose(a.totals, b.totals, atol=1e-12)
    np.testing.assert_array_equal(a.exposure, b.exposure)


@given(scorers, populations(), st.integers(0, 9))
def test_the_parts_add_up_to_the_whole(scorer: TableScorer, splits: list[EvaluationSplit], cut: int) -> None:
    parts = sums(scorer, splits[:cut]) + sums(scorer, splits[cut:])
    assert_same(parts, sums(scorer, splits))
    assert_same(parts + MetricSums.empty(N_ITEMS), parts)


@given(scorers, populations(), st.randoms(use_true_random=False))
def test_the_order_of_users_does_not_matter(scorer: TableScorer, splits: list[EvaluationSplit], rng) -> None:
    shuffled = list(splits)
    rng.shuffle(shuffled)
    assert_same(sums(scorer, shuffled), sums(scorer, splits))


@given(few_scores, st.permutations(range(N_ITEMS)), st.sets(st.integers(0, N_ITEMS - 1)), st.integers(1, 20))
def test_ranks_and_lists_equal_a_sorted_list(scores: np.ndarray, keys: list[int], hidden: set[int], k: int) -> None:
    scores[list(hidden)] = -np.inf
    candidates = [item for item in range(N_ITEMS) if item not in hidden]
    ordered = sorted(candidates, key=lambda item: (-scores[item], keys[item]))
    tie_keys = np.array(keys) / N_ITEMS
    ranks = target_ranks(scores, np.array(candidates, np.int32), tie_keys)
    assert ranks.tolist() == [1 + ordered.index(item) for item in candidates]
    assert top_items(scores, k, tie_keys).tolist() == ordered[:k]


def _tied_users(n_users: int) -> list[EvaluationSplit]:
    """Twenty candidates of equal score, one target, at the first or the last code."""
    return [
        EvaluationSplit(
            user=str(u), train=np.arange(0, dtype=np.int32), validation=np.arange(0, dtype=np.int32),
            test=np.array([u % 2 * 19], np.int32),
        )
        for u in range(n_users)
    ]  # fmt: skip


def test_ties_are_fair_over_seeds_and_users() -> None:
    scorer, users = TableScorer(np.zeros((1, 20), np.float32)), _tied_users(200)
    runs = [evaluate_users(scorer, users, "test", n_items=20, tie_seed=seed) for seed in range(10)]
    for name, chance in (("hr@5", 5 / 20), ("hr@10", 10 / 20), ("mrr@20", np.mean(1 / np.arange(1.0, 21)))):
        assert np.mean([run.column(name) for run in runs]) == pytest.approx(chance, abs=0.04), name
    first_codes = np.mean([run.column("hr@10")[::2] for run in runs])
    assert first_codes == pytest.approx(0.5, abs=0.05)  # the lower code is not favoured
    # Fair for one user over seeds as well, not only on average over users.
    by_user = np.mean([run.column("hr@10") for run in runs], axis=0)
    assert ((by_user > 0) & (by_user < 1)).mean() > 0.95


def test_a_tie_seed_repeats_and_another_differs() -> None:
    scorer, users = TableScorer(np.zeros((1, 20), np.float32)), _tied_users(50)
    tables = [evaluate_users(scorer, users, "test", n_items=20, tie_seed=seed).table.tolist() for seed in (1, 1, 2)]
    assert tables[0] == tables[1] != tables[2]


@given(populations(), st.sampled_from([np.nan, np.inf, -np.inf]), st.integers(0, N_ITEMS - 1))
def test_scores_that_are_not_finite_are_refused(splits: list[EvaluationSplit], bad: float, item: int) -> None:
    table = np.zeros((1, N_ITEMS), np.float32)
    table[0, item] = bad
    # One user more, so that somebody is scored.
    asked = EvaluationSplit(
        user="x",
        train=np.array([0], np.int32),
        validation=np.array([1], np.int32),
        test=np.array([2], np.int32),
    )
    with pytest.raises(ModelError, match="NaN or infinite"):
        sums(TableScorer(table), [*splits, asked])
