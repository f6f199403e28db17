"""What the harness masks, skips, counts and refuses."""

import json
from collections.abc import Sequence

import numpy as np
import pytest

from fedrec.data.splits import EvaluationSplit
from fedrec.errors import ConfigError, DataError, ModelError
from fedrec.evaluation.cold_scorers import PopularToStrangers
from fedrec.evaluation.protocol import Report, cold_users, evaluate, evaluate_users

N_ITEMS = 30


class Descending:
    """Prefers low item codes."""

    def score(self, histories: Sequence[np.ndarray]) -> np.ndarray:
        return np.tile(-np.arange(N_ITEMS, dtype=np.float32), (len(histories), 1))


def split(user: str, train: list[int], validation: list[int], test: list[int]) -> EvaluationSplit:
    return EvaluationSplit(
        user=user,
        train=np.array(train, np.int32),
        validation=np.array(validation, np.int32),
        test=np.array(test, np.int32),
    )


def report(splits: Sequence[EvaluationSplit], which: str = "test", protocol: str = "B") -> Report:
    return evaluate(
        Descending(),
        splits,
        which,
        protocol=protocol,
        n_items=N_ITEMS,
        tie_seed=1,
        popularity=np.ones(N_ITEMS),
    )


def test_the_history_is_no_candidate_and_grows_by_the_validation_item() -> None:
    user = split("a", train=[0, 1, 2], validation=[3], test=[5])
    assert report([user], "validation").means["mrr@10"] == 1.0  # first unseen
    assert report([user], "test").means["mrr@10"] == 0.5  # 4 is above, 3 is seen


def test_a_user_without_test_items_is_skipped_and_counted() -> None:
    users = [split("a", [0], [1], [2]), split("b", [3], [], []), split("c", [4], [5], [])]
    summary = report(users).to_dict()
    assert (summary["users"], summary["skipped_users"]) == (1, 2)
    kept = evaluate_users(Descending(), users[::-1], "test", n_items=N_ITEMS, tie_seed=1)
    assert kept.positions.tolist() == [2]


def test_users_of_whom_nothing_is_known_are_asked_and_counted() -> None:
    users = [split("a", [], [], [2]), split("b", [], [1], [2]), split("c", [], [], []), split("d", [1], [], [3])]
    assert (report(users).n_cold, report(users).to_dict()["users"]) == (1, 3)
    assert cold_users(users, "validation") == 1  # b


def test_many_targets_by_hand() -> None:
    # The unseen items in order: 1, 3, 4, 6, 7, ...; asked for are those at ranks 1, 3 and 12.
    user = split("a", train=[0, 2], validation=[5], test=[1, 4, 14])
    means = report([user]).means
    assert means["ndcg@10"] == pytest.approx((1 + 1 / 2) / (1 + 1 / np.log2(3) + 1 / 2))
    assert means["ndcg@20"] == pytest.approx((1 + 1 / 2 + 1 / np.log2(13)) / (1 + 1 / np.log2(3) + 1 / 2))
    assert (means["hr@10"], means["precision@10"], means["recall@10"]) == (1.0, 0.2, pytest.approx(2 / 3))
    everything = report([split("a", [], [], list(range(7)))]).means
    assert (everything["ndcg@5"], everything["recall@5"], everything["precision@10"]) == (1.0, 5 / 7, 0.7)


def test_a_scorer_sees_the_history_in_order_of_time() -> None:
    class Last:
        def score(self, histories: Sequence[np.ndarray]) -> np.ndarray:
            return np.eye(N_ITEMS, dtype=np.float32)[[(h[-1] + 1) % N_ITEMS for h in histories]]

    codes = {name: np.array(part, np.int32) for name, part in (("train", [3, 8]), ("validation", [5]), ("test", [9]))}
    mixed = EvaluationSplit("a", **codes, before_test=np.array([3, 5, 8], np.int32))
    found = evaluate_users(Last(), [mixed], "test", n_items=N_ITEMS, tie_seed=1)
    assert found.column("mrr@5").tolist() == [1.0]  # after 8 comes 9; after validation's 5 would come 6


def test_strangers_are_given_what_is_popular() -> None:
    class Constant:
        def score(self, histories: Sequence[np.ndarray]) -> np.ndarray:
            return np.zeros((len(histories), N_ITEMS), np.float32)

    scorer = PopularToStrangers(Constant(), np.arange(N_ITEMS, dtype=np.float32))
    scores = scorer.score([np.array([1], np.int32), np.zeros(0, np.int32)])
    assert scores.tolist() == [[0.0] * N_ITEMS, list(map(float, range(N_ITEMS)))]


def test_many_users_equal_one_user_at_a_time() -> None:
    class ByHistory:
        def score(self, histories: Sequence[np.ndarray]) -> np.ndarray:
            return np.stack([np.random.default_rng(h[0]).integers(0, 9, N_ITEMS) * 0.5 for h in histories])

    users = [split(f"u{u}", [u % N_ITEMS], [], [(u * 7 + 1) % N_ITEMS]) for u in range(300)]
    together = evaluate_users(ByHistory(), users, "test", n_items=N_ITEMS, tie_seed=3)
    single = [evaluate_users(ByHistory(), [user], "test", n_items=N_ITEMS, tie_seed=3) for user in users]
    np.testing.assert_array_equal(together.table, np.concatenate([one.table for one in single]))
    np.testing.assert_array_equal(together.exposure, sum(one.exposure for one in single))
    assert together.positions.size == sum(one.positions.size for one in single) > 256


def test_an_item_that_the_user_already_had_is_not_asked_for() -> None:
    whole = report([split("a", [0, 1], [], [1, 1, 9, 9])])
    assert (whole.means["recall@10"], whole.means["precision@10"]) == (1.0, 0.1)  # 9, once; 1 is seen
    assert report([split("a", [0, 1], [], [1]), split("b", [0], [], [1])]).n_skipped == 1


def test_the_report_holds_no_single_user() -> None:
    users = evaluate_users(Descending(), [split("a", [0], [1], [2])], "test", n_items=N_ITEMS, tie_seed=1)
    assert users.column("hr@10").tolist() == users.column("ndcg@10").tolist() == [1.0]
    assert "array" not in repr(users)
    summary = report([split("secret-name", [0], [1], [2])]).to_dict()
    assert json.loads(json.dumps(summary)) == summary
    assert "secret-name" not in json.dumps(summary)
    assert set(summary) == {
        "protocol", "which", "users", "skipped_users", "cold_users", "means", "coverage@10", "novelty@10"
    }  # fmt: skip


def test_ranking_among_sampled_items_says_so_in_its_protocol() -> None:
    sampled = evaluate(
        Descending(),
        [split("a", [0], [], [29])],
        "test",
        protocol="B",
        n_items=N_ITEMS,
        tie_seed=1,
        popularity=np.ones(N_ITEMS),
        sampled_negatives=4,
    )
    assert sampled.protocol == "B-sampled4"
    assert sampled.means["mrr@5"] == pytest.approx(1 / 5)  # last of four negatives and itself
    assert sampled.coverage_at_10 == pytest.approx(5 / N_ITEMS)


@pytest.mark.parametrize("bad", [-1, N_ITEMS])
@pytest.mark.parametrize("place", ["train", "test"])
def test_codes_outside_the_catalogue_are_refused(bad: int, place: str) -> None:
    with pytest.raises(DataError, match="outside the catalogue") as caught:
        report([split("who", *(([bad], [], [1]) if place == "train" else ([1], [], [bad])))])
    assert "who" not in str(caught.value)


def test_wrong_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown protocol 'C'"):
        report([split("a", [0], [1], [2])], protocol="C")
    with pytest.raises(ConfigError, match="cannot evaluate 'train'"):
        report([split("a", [0], [1], [2])], which="train")


@pytest.mark.parametrize(
    "scores", [np.zeros((1, N_ITEMS + 1), np.float32), np.zeros(N_ITEMS), np.zeros((1, N_ITEMS), int)]
)
def test_scores_of_wrong_shape_or_kind_are_refused(scores: np.ndarray) -> None:
    class Wrong:
        def score(self, histories: Sequence[np.ndarray]) -> np.ndarray:
            return scores

    with pytest.raises(ModelError, match="Wrong scored"):
        evaluate_users(Wrong(), [split("a", [0], [1], [2])], "test", n_items=N_ITEMS, tie_seed=1)


def test_the_scorers_own_array_is_left_alone() -> None:
    table = np.zeros((1, N_ITEMS), np.float32)

    class Kept:
        def score(self, histories: Sequence[np.ndarray]) -> np.ndarray:
            return table

    evaluate_users(Kept(), [split("a", [0], [1], [2])], "test", n_items=N_ITEMS, tie_seed=1)
    assert not table.any()
