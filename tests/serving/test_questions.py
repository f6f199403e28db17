"""What a new user is asked about: by every way, adaptive where it says so, and as the service tells it."""

from copy import deepcopy
from dataclasses import replace
from itertools import pairwise

import httpx
import numpy as np
import pytest

from fedrec.active.questions import BEST, STRATEGIES, Answers, Strategy, next_questions
from fedrec.recommend.live_model import LiveModel, as_window
from fedrec_client.serving.api.native.router import routes
from fedrec_client.serving.service import Served, Service
from fedrec_sim.labels.active import NewUser, ask_everybody, over_seeds, seed_figures
from tests.serving.conftest import Place
from tests.serving.native_calls import like


@pytest.fixture
def model(served: Served) -> LiveModel:
    """One that has learnt something: a popularity that falls, and a head that likes what is alike."""
    branch, rng = deepcopy(served.model), np.random.default_rng(0)
    branch.head = np.asarray(rng.standard_normal(branch.head.shape), np.float32)
    branch.score_rows[:, -1] = -np.log(1 + np.arange(branch.n_items))[::-1]
    return branch


def nothing_said(model: LiveModel) -> Answers:
    return Answers(model.prior_vector(), None, np.zeros(0, np.int64))


def liking(model: LiveModel, *codes: int) -> Answers:
    window = as_window(codes, [1.0] * len(codes), np.zeros(model.context_dim, np.float32))
    return Answers(model.user_vector(window), window, np.array(codes, np.int64))


def asked(strategy: Strategy, model: LiveModel, answers: Answers, k: int, closed: tuple[int, ...] = ()) -> list[int]:
    open_items = np.ones(model.n_items, bool)
    open_items[list(closed)] = False
    found = next_questions(strategy, model, answers, open_items, k, np.random.default_rng(1))
    return [int(code) for code in found]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_way_asks_about_open_items_each_once(strategy: Strategy, model: LiveModel) -> None:
    closed = (0, 3, model.n_items - 1)
    for answers in (nothing_said(model), liking(model, 3, 0)):
        found = asked(strategy, model, answers, 8, closed)
        assert len(set(found)) == 8
        assert not set(found) & set(closed)
        every = asked(strategy, model, answers, 10_000, closed)
        assert sorted(every) == sorted(set(range(model.n_items)) - set(closed))
    assert asked(strategy, model, liking(model, 3), 3, tuple(range(model.n_items))) == []


def test_popularity_asks_for_what_most_have(model: LiveModel) -> None:
    assert asked("popularity", model, nothing_said(model), 3) == [model.n_items - 1 - place for place in range(3)]


@pytest.mark.parametrize("strategy", ["uncertainty", "information", "coverage", "mixture"])
def test_what_was_answered_changes_the_next_question(strategy: Strategy, model: LiveModel) -> None:
    found = {tuple(asked(strategy, model, liking(model, code), 4, (0, 5, 9))) for code in (0, 5, 9)}
    assert len(found) > 1


def test_coverage_spreads_where_popularity_does_not(model: LiveModel) -> None:
    """Of two items that are the same to the model, one answer tells of both."""
    twin = deepcopy(model)
    order = np.argsort(-twin.prior)
    twin.item_rows[order[1]], twin.score_rows[order[1], :-1] = twin.item_rows[order[0]], twin.score_rows[order[0], :-1]
    assert set(asked("popularity", twin, nothing_said(twin), 2)) == set(order[:2].tolist())
    assert set(asked("coverage", twin, nothing_said(twin), 2)) != set(order[:2].tolist())


def test_an_item_in_the_history_moves_the_vector_as_if_it_had_been_read(model: LiveModel) -> None:
    """Fast path against the slow one: append the item, with the same reading."""
    before = as_window([4, 7, 2], [1.0, 2.0, 1.0], np.ones(model.context_dim, np.float32))
    codes = np.array([1, 7, 11])
    fast = model.with_each(before, codes)
    for row, code in zip(fast, codes, strict=True):
        after = as_window([4, 7, 2, code], [1.0, 2.0, 1.0, 1.0], before.context)
        np.testing.assert_allclose(row, model.user_vector(after), rtol=1e-4, atol=1e-5)
    alone = as_window([11], [1.0], np.zeros(model.context_dim, np.float32))
    np.testing.assert_allclose(model.with_each(None, codes)[2], model.user_vector(alone), rtol=1e-4, atol=1e-5)


def test_asking_pays_for_what_they_do_not_know_and_never_looks_at_what_is_wanted(model: LiveModel) -> None:
    user = NewUser("u", {code: code % 2 == 0 for code in range(10, 20)}, np.array([3, 4]))
    knows_nothing = replace(user, likes={})
    for strategy in STRATEGIES:
        found = ask_everybody(model, [user, knows_nothing], strategy, 1, 6)
        assert found.ndcg.shape == (2, 7)
        assert found.known[1] == 0
        assert len(set(found.ndcg[1])) == 1  # nothing learnt: the same list
        other = ask_everybody(model, [replace(user, wanted=np.array([5]))], strategy, 1, 6)
        assert other.known[0] == found.known[0]


def test_figures_over_seeds_pair_users(model: LiveModel) -> None:
    users = [NewUser(f"u{n}", {10 + n: True, 11 + n: True}, np.array([n])) for n in range(4)]
    found = over_seeds([1, 2], [seed_figures(model, users, seed, lambda _: None) for seed in (1, 2)])
    assert found["served"] == BEST
    one = found["strategies"]["popularity"]
    assert one["over_random"]["all"]["low"] <= one["over_random"]["all"]["mean"] <= one["over_random"]["all"]["high"]
    assert "over_popularity" not in one


def test_the_service_asks_about_what_is_open_to_this_person(place: Place, served: Served) -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        async def ask(**more: object) -> list[str]:
            answer = await client.get("/v1/users/anna/questions", params=more)  # type: ignore[arg-type]
            assert answer.status_code == 200, answer.text
            return [one["id"] for one in answer.json()["questions"]]

        first = await ask(k=3)
        assert len(set(first)) == 3
        assert not set(first[:2]) & set(await ask(k=3, exclude=first[:2]))
        await like(client, "anna", *first[:2])
        second = await ask(k=50)
        assert not set(first[:2]) & set(second)
        assert len(second) == len(served.catalog) - 2
        blocked = second[0]
        await client.put(f"/v1/users/anna/blocks/item/{blocked}")
        assert blocked not in await ask(k=50)
        assert (await client.get("/v1/users/anna/questions", params={"k": 0})).status_code == 422

    place.call(routes, work)


def test_a_strategy_is_one_of_those_that_are_documented() -> None:
    assert BEST in STRATEGIES
    assert all(a != b for a, b in pairwise(sorted(STRATEGIES)))
