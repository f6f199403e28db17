"""One suite for every scorer that is fitted on histories; a new one is added to `MODELS`."""

import copy
from collections.abc import Callable

import numpy as np
import pytest

from fedrec.data.splits import EvaluationSplit
from fedrec.errors import DataError, ModelError
from fedrec.evaluation.baselines.factors import BPR, IALS
from fedrec.evaluation.baselines.linear import EASE, ItemKNN, Popularity
from fedrec.evaluation.protocol import evaluate

Model = Popularity | ItemKNN | EASE | IALS | BPR
MODELS: dict[str, Callable[[], Model]] = {
    "popularity": Popularity,
    "item_knn": lambda: ItemKNN(neighbours=8, shrink=2.0),
    "ease": lambda: EASE(l2=20.0),
    "ials": lambda: IALS(factors=4, l2=1.0, alpha=3.0, iterations=6, seed=1),
    "bpr": lambda: BPR(factors=4, learning_rate=0.1, l2=0.01, iterations=40, seed=1),
}
N_USERS, N_ITEMS = 60, 40


def _histories() -> list[np.ndarray]:
    """Users of two tastes, each mostly within its half of the catalogue; the last item is known to nobody."""
    rng = np.random.default_rng(5)
    halves = np.arange(N_ITEMS - 1) < N_ITEMS // 2
    users = []
    for user in range(N_USERS):
        weight = np.where(halves == (user % 2 == 0), 10.0, 1.0) / np.arange(5, N_ITEMS + 4)
        chosen = rng.choice(N_ITEMS - 1, 12, replace=False, p=weight / weight.sum())
        users.append(chosen.astype(np.int32))
    return users


@pytest.fixture(params=MODELS, name="make")
def make_model(request: pytest.FixtureRequest) -> Callable[[], Model]:
    return MODELS[request.param]


def test_scores_are_finite_float32_for_every_item(make: Callable[[], Model]) -> None:
    scores = make().fit(_histories(), N_ITEMS).score(_histories()[:7])
    assert (scores.shape, scores.dtype) == ((7, N_ITEMS), np.float32)
    assert np.isfinite(scores).all()


def test_a_batch_equals_its_users_one_by_one(make: Callable[[], Model]) -> None:
    histories = _histories()
    model = make().fit(histories, N_ITEMS)
    singles = [model.score([history])[0] for history in histories]
    np.testing.assert_array_equal(model.score(histories), singles)


def test_fitting_again_gives_the_same_bits(make: Callable[[], Model]) -> None:
    first, second = (make().fit(_histories(), N_ITEMS).score(_histories()) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_refitting_forgets(make: Callable[[], Model]) -> None:
    again = make().fit(_histories()[:20], N_ITEMS).fit(_histories(), N_ITEMS)
    np.testing.assert_array_equal(again.score(_histories()), make().fit(_histories(), N_ITEMS).score(_histories()))


def test_order_and_repeats_of_a_history_do_not_matter(make: Callable[[], Model]) -> None:
    histories = _histories()
    untidy = [np.concatenate([history[::-1], history[:3]]) for history in histories]
    model = make().fit(histories, N_ITEMS)
    np.testing.assert_array_equal(model.score(untidy), model.score(histories))
    np.testing.assert_array_equal(make().fit(untidy, N_ITEMS).score(histories), model.score(histories))


def test_a_newcomer_and_nobody_can_be_scored(make: Callable[[], Model]) -> None:
    model = make().fit(_histories(), N_ITEMS)
    assert np.isfinite(model.score([np.zeros(0, np.int32)])).all()
    assert model.score([]).shape == (0, N_ITEMS)
    assert np.isfinite(make().fit([], N_ITEMS).score(_histories())).all()


def test_an_item_known_to_nobody_is_not_preferred(make: Callable[[], Model]) -> None:
    scores = make().fit(_histories(), N_ITEMS).score(_histories())
    assert (scores[:, -1] == 0).all()
    assert (scores.max(axis=1) > 0).all()


def test_arguments_and_weights_are_left_alone(make: Callable[[], Model]) -> None:
    histories = _histories()
    before = copy.deepcopy(histories)
    model = make().fit(histories, N_ITEMS)
    scores = model.score(histories)
    expected = scores.copy()
    scores[:] = np.nan  # a caller may write into what it was given
    np.testing.assert_array_equal(model.score(histories), expected)
    for was, now in zip(before, histories, strict=True):
        np.testing.assert_array_equal(was, now)


def test_it_beats_chance_on_the_items_withheld(make: Callable[[], Model]) -> None:
    splits = [
        EvaluationSplit(user=str(u), train=h[:-2], validation=h[-2:-1], test=h[-1:]) for u, h in enumerate(_histories())
    ]
    model = make().fit([split.train for split in splits], N_ITEMS)
    report = evaluate(model, splits, "test", protocol="B", n_items=N_ITEMS, tie_seed=1, popularity=np.ones(N_ITEMS))
    chance = 10 / (N_ITEMS - 11)
    assert report.means["hr@10"] > 1.2 * chance


def test_it_refuses_to_score_unfitted_and_codes_outside_the_catalogue(make: Callable[[], Model]) -> None:
    with pytest.raises(ModelError, match="not fitted"):
        make().score(_histories())
    for bad in (-1, N_ITEMS):
        with pytest.raises(DataError, match="outside the catalogue"):
            make().fit([np.array([bad], np.int32)], N_ITEMS)


def test_its_repr_shows_settings_and_no_weights(make: Callable[[], Model]) -> None:
    assert repr(make().fit(_histories(), N_ITEMS)) == repr(make())
