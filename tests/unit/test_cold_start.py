"""What is withheld never reaches training, and who is asked knows what the experiment says and no more."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrec.config import ColdStartConfig
from fedrec.data.sequences import UserSequence
from fedrec.data.splits import EvaluationSplit
from fedrec.errors import DataError, ModelError
from fedrec.evaluation.baselines.linear import Popularity
from fedrec.evaluation.cold_scorers import Chance, GenrePopularity, NewItemsLast
from fedrec.evaluation.cold_start import (
    evaluate_new_items,
    evaluate_new_users,
    means_of,
    on_histories,
    withhold_items,
    withhold_users,
)

N_ITEMS = 30
populations = st.lists(st.lists(st.integers(0, N_ITEMS - 1), min_size=1, max_size=25), min_size=2, max_size=12).filter(
    lambda users: len({item for items in users for item in items}) > 1
)


def sequences(users: Sequence[Sequence[int]]) -> list[UserSequence]:
    return [
        UserSequence(f"u{number}", np.array(items, np.int32), np.arange(float(len(items))))
        for number, items in enumerate(users)
    ]


def made(n_users: int = 80) -> list[UserSequence]:
    """Users of 15 to 25 different items."""
    rng = np.random.default_rng(3)
    return sequences([rng.permutation(N_ITEMS)[: rng.integers(15, 26)].tolist() for _ in range(n_users)])


class Spy:
    """Remembers what it was given to read."""

    def __init__(self, answer: int = 0) -> None:
        self.read: list[np.ndarray] = []
        self.answer = answer

    def score(self, histories: Sequence[np.ndarray]) -> np.ndarray:
        self.read += list(histories)
        return np.tile(-abs(np.arange(N_ITEMS, dtype=np.float32) - self.answer), (len(histories), 1))


def everything(split: EvaluationSplit) -> list[int]:
    return [*split.history("test").tolist(), *split.test.tolist()]


@settings(max_examples=60)
@given(populations, st.floats(0.05, 0.9), st.integers(0, 5))
def test_no_withheld_item_and_nothing_later_is_trained_on(users: list[list[int]], share: float, seed: int) -> None:
    found = withhold_items(sequences(users), N_ITEMS, share, seed)
    withheld = set(np.flatnonzero(found.withheld).tolist())
    had = {item for items in users for item in items}
    assert withheld < had
    assert len(withheld) == min(max(1, round(share * len(had))), len(had) - 1)
    for items, training, question in zip(users, found.training, found.questions, strict=True):
        turned = [place for place, item in enumerate(items) if item in withheld and item not in items[:place]]
        until = turned[-1] if turned else len(items)
        assert everything(training) == [item for item in items[:until] if item not in withheld]
        is_asked = bool(turned) and any(item not in withheld for item in items[:until])
        assert question.test.tolist() == ([items[until]] if is_asked else [])
        assert question.history("test").tolist() == items[:until]


def test_new_items_are_asked_for_by_known_ones_alone() -> None:
    found, spy = withhold_items(made(), N_ITEMS, 0.2, seed=1), Spy()
    given_to_fit: list[Sequence[EvaluationSplit]] = []

    def fit(splits: Sequence[EvaluationSplit]) -> Spy:
        given_to_fit.append(splits)
        return spy

    sums = evaluate_new_items(fit, found, tie_seed=1)
    assert given_to_fit == [found.training]
    assert not found.withheld[np.concatenate(spy.read)].any()
    assert sums["new_items"].n_users == sum(len(question.test) for question in found.questions) > 60


def test_a_scorer_of_new_items_is_told_from_one_that_has_none() -> None:
    found = withhold_items(made(), N_ITEMS, 0.4, seed=1)
    known = np.flatnonzero(~found.withheld)

    class Last:
        """Knows the known items by their places among them, likes what popularity likes."""

        def score(self, histories: Sequence[np.ndarray]) -> np.ndarray:
            assert all((history >= 0).all() and (history < len(known)).all() for history in histories)
            return np.tile(-5.0 - np.arange(len(known), dtype=np.float32), (len(histories), 1))

    last = means_of(evaluate_new_items(lambda _: NewItemsLast(Last(), known, N_ITEMS), found, tie_seed=1))
    chance = means_of(evaluate_new_items(lambda _: Chance(N_ITEMS), found, tie_seed=1))
    assert last["new_items"]["hr@5"] < chance["new_items"]["hr@5"]
    # Among the new items both have ties only, broken in the same way.
    assert last["among_new_items"] == chance["among_new_items"]
    assert chance["among_new_items"]["hr@5"] > chance["new_items"]["hr@5"] > 0

    class Oracle:
        def score(self, histories: Sequence[np.ndarray]) -> np.ndarray:
            return np.stack([found.withheld.astype(np.float32)] * len(histories))

    oracle = means_of(evaluate_new_items(lambda _: Oracle(), found, tie_seed=1))
    assert oracle["new_items"] == oracle["among_new_items"] == last["among_new_items"]


@settings(max_examples=60)
@given(populations, st.floats(0.05, 0.9), st.sets(st.integers(1, 8), min_size=1), st.integers(0, 5))
def test_no_new_user_is_trained_on(users: list[list[int]], share: float, shots: set[int], seed: int) -> None:
    whole = {sequence.user: sequence.items.tolist() for sequence in sequences(users)}
    try:
        found = withhold_users(sequences(users), share, tuple(shots), seed)
    except DataError as error:
        assert "no withheld user has more than" in str(error)  # noqa: PT017  # what hypothesis gives may be too short
        return
    n_new = min(max(1, round(share * len(users))), len(users) - 1)
    assert len(found.known) == len(users) - n_new
    assert not {split.user for split in found.known} & {new.user for new in found.new}
    assert {split.user: everything(split) for split in found.known}.items() <= whole.items()
    assert all(len(new) > max(shots) for new in found.new)
    for k in (*shots, None):
        for question in found.questions(k):
            items = whole[question.user]
            assert question.test.tolist() == items[-1:]
            assert question.history("test").tolist() == (items[:-1] if k is None else items[-1 - k : -1])


def test_the_same_new_users_read_k_items_whatever_is_ranked() -> None:
    found = withhold_users(made(), 0.25, (2, 5), seed=1)
    spy = Spy()
    sums = evaluate_new_users(lambda _: spy, found, N_ITEMS, tie_seed=1)
    lengths = np.array([len(history) for history in spy.read])
    n = len(found.new)
    assert n == 20
    assert (lengths == 2).sum() == (lengths == 5).sum() == 2 * n
    assert {name: one.n_users for name, one in sums.items()} == {"known_users": 60} | dict.fromkeys(
        ("new_users", "new_users@2", "new_users_unseen@2", "new_users@5", "new_users_unseen@5"), n
    )


def test_what_a_new_user_had_costs_a_place_or_is_no_candidate() -> None:
    users = sequences([[0, 1, 2, 3, 4]] * 4)
    found = withhold_users(users, 0.5, (1,), seed=1)
    # 0, 1 and 2 are liked best, then 3; 3 is known, 4 is asked for.
    means = means_of(evaluate_new_users(lambda _: Spy(), found, N_ITEMS, tie_seed=1))
    assert means["new_users@1"]["mrr@10"] == pytest.approx(1 / 4)
    assert means["new_users_unseen@1"]["mrr@10"] == means["new_users"]["mrr@10"] == 1.0


def test_a_seed_repeats_and_another_differs() -> None:
    first, again, other = (withhold_items(made(), N_ITEMS, 0.3, seed) for seed in (1, 1, 2))
    assert (first.withheld == again.withheld).all()
    assert (first.withheld != other.withheld).any()
    users = [{new.user for new in withhold_users(made(), 0.3, (1,), seed).new} for seed in (1, 1, 2)]
    assert users[0] == users[1] != users[2]
    assert "u1" not in repr(first) + repr(withhold_users(made(), 0.3, (1,), 1))


def test_too_little_to_withhold_is_refused() -> None:
    with pytest.raises(DataError, match="fewer than two items"):
        withhold_items(sequences([[3], [3, 3]]), N_ITEMS, 0.5, seed=1)
    with pytest.raises(DataError, match="fewer than two users"):
        withhold_users(sequences([[1, 2, 3]]), 0.5, (1,), seed=1)
    with pytest.raises(DataError, match="more than 25 items"):
        withhold_users(made(), 0.5, (1, 25), seed=1)


GENRES = [("a",), ("b",), ("a", "b"), (), ("c",), ("b", "b")]


@pytest.mark.parametrize("strength", [0.5, 20.0])
def test_genre_popularity_equals_brute_force(strength: float) -> None:
    histories = [np.array(h, np.int32) for h in ([0, 1], [0, 2], [1, 3], [2], [])]
    own = [sorted(set(genres)) or [""] for genres in GENRES]
    counts = [sum(item in history for history in histories) for item in range(6)]
    mass = {g: sum(c / len(o) for c, o in zip(counts, own, strict=True) if g in o) for g in ("", "a", "b", "c")}
    size = {g: sum(1 / len(o) for c, o in zip(counts, own, strict=True) if g in o and c) for g in mass}
    expected = np.zeros((5, 6))
    for user, history in enumerate(histories):
        for item in range(6):
            for g in own[item]:
                liked = sum(1 / len(own[had]) for had in history if g in own[had])
                share = (liked + strength * mass[g] / sum(mass.values())) / (len(history) + strength)
                expected[user, item] += share / size[g] / len(own[item]) if size[g] else 0.0
    scorer = GenrePopularity(GENRES, strength).fit(histories, 6)
    np.testing.assert_allclose(scorer.score(histories), expected, rtol=1e-5)
    assert scorer.score(histories)[0, 5] > 0  # nobody has had it
    assert "a" not in repr(scorer).removeprefix("GenrePopularity")


def test_genre_popularity_refuses_another_catalogue_and_to_score_unfitted() -> None:
    with pytest.raises(DataError, match="6 items, not of 7"):
        GenrePopularity(GENRES).fit([], 7)
    with pytest.raises(ModelError, match="not fitted"):
        GenrePopularity(GENRES).score([])


def test_what_trains_on_histories_gets_training_parts() -> None:
    found = withhold_users(made(), 0.25, (2,), seed=1)
    scorer = on_histories(lambda histories: Popularity().fit(histories, N_ITEMS))(found.known)
    counts = np.bincount(np.concatenate([split.train for split in found.known]), minlength=N_ITEMS)
    assert scorer.score([np.zeros(0, np.int32)])[0].tolist() == counts.tolist()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"rows": ["local_only"]}, "new users have no partner"),
        ({"rows": ["ease", "ease"]}, "must not repeat"),
        ({"shots": [5, 5]}, "must not repeat"),
        ({"shots": [0]}, "greater than or equal to 1"),
        ({"items_share": 1.0}, "less than 1"),
    ],
)
def test_a_cold_start_that_cannot_be_is_refused(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ColdStartConfig.model_validate(wrong)
