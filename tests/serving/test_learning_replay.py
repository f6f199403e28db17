"""Replayed evaluation: the ranks of a slow oracle, the events that serving could have met, and honest verdicts."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from fedrec.model.features import ItemFeatures
from fedrec.recommend.live_model import LiveModel, as_window
from fedrec.recommend.readings import HistoryReader, Wanted
from fedrec.recommend.shelf import Item
from fedrec_client.serving.learning.replay import (
    branches,
    judge,
    latest_cases,
    paired_interval,
    ranks_of,
    replay,
)
from fedrec_client.serving.records import Event
from fedrec_client.serving.service import Served, TenantService
from tests.serving.conftest import Place, live_model


@pytest.fixture(scope="module")
def other(tiny_llama: Path, features: ItemFeatures) -> LiveModel:
    return live_model(tiny_llama, features, "round-0002", seed=2)


def did(user: str, *items: str, kind: str = "like", start: float = 1000.0) -> list[Event]:
    return [Event(kind, item, user=user, timestamp=start + place) for place, item in enumerate(items)]


async def many_events(one: TenantService, served: Served, users: int = 12, length: int = 6) -> None:
    rng = np.random.default_rng(0)
    for user in range(users):
        items = [served.catalog.ids[code] for code in rng.permutation(40)[:length]]
        await one.intake.add_events(did(f"u{user}", *items))


def slow_rank(model: LiveModel, codes: list[int], weights: list[float], target: int, hidden: set[int]) -> int:
    context = HistoryReader(model, 0).read([Wanted(None, np.array(codes))])[0]
    scores = model.scores(model.user_vector(as_window(codes, weights, context))[None])[0]
    shown = [code for code in np.argsort(-scores, kind="stable") if code not in hidden]
    return shown.index(target) + 1


def test_ranks_are_those_of_one_event_at_a_time(place: Place, served: Served, other: LiveModel) -> None:
    async def work(one: TenantService) -> None:
        await many_events(one, served)
        await one.intake.put_items(
            [Item("new", "Song of War", categories=("War",)), Item("off", "Gone", is_hidden=True)]
        )
        await one.intake.add_events(did("u1", "new", start=5000.0))
        old, new = branches(one.tenant, other)
        cases = await asyncio.to_thread(latest_cases, one.tenant, 1000)
        assert len(cases) == 12 * 5 + 1
        off = ~one.tenant.shelf.recommendable()
        for model in (old, new):
            ranks = ranks_of(model, cases, off, 50, lambda _: None)
            for case, rank in zip(cases, ranks, strict=True):
                hidden = set(case.hidden.tolist()) | set(np.flatnonzero(off).tolist())
                assert rank == slow_rank(model, case.codes.tolist(), case.weights.tolist(), case.target, hidden)

    place.with_tenant(work)


def test_only_what_a_list_could_have_held_is_asked(place: Place, served: Served) -> None:
    async def work(one: TenantService) -> None:
        a, b, c, d = served.catalog.ids[:4]
        await one.intake.add_events(did("anna", a, b, a, c))  # the first has no history, the third was seen
        await one.intake.add_events(did("anna", d, kind="dislike", start=2000.0))
        await one.intake.add_events(did("anna", d, start=3000.0))  # never again
        await one.intake.add_events([Event("like", a, session="s", timestamp=1.0)])
        cases = await asyncio.to_thread(latest_cases, one.tenant, 100)
        codes = served.catalog.codes
        assert [(case.target, case.codes.tolist()) for case in cases] == [
            (codes[b], [codes[a]]),
            (codes[c], [codes[a], codes[b], codes[a]]),
        ]
        assert cases[1].hidden.tolist() == sorted([codes[a], codes[b]])
        await one.intake.remove_item(c)
        assert [case.target for case in await asyncio.to_thread(latest_cases, one.tenant, 100)] == [codes[b]]
        last = one.tenant.store.log.last_seq()
        assert await asyncio.to_thread(latest_cases, one.tenant, 100, last) == []
        assert len(await asyncio.to_thread(latest_cases, one.tenant, 1)) == 0  # the latest asks for what is disliked

    place.with_tenant(work)


def test_an_adapter_is_no_worse_than_itself(place: Place, served: Served) -> None:
    async def work(one: TenantService) -> None:
        await many_events(one, served)
        old, new = branches(one.tenant, served.model)
        verdict = await asyncio.to_thread(replay, one.tenant, old, new)
        assert (verdict.outcome, verdict.events, verdict.users) == ("no worse", 60, 12)
        assert verdict.ndcg_old == verdict.ndcg_new > 0
        assert verdict.ndcg_low == verdict.ndcg_high == 0
        assert verdict.to_dict()["outcome"] == "no worse"

    place.with_tenant(work)


def test_nothing_to_replay_is_unclear(place: Place, served: Served) -> None:
    async def work(one: TenantService) -> None:
        old, new = branches(one.tenant, served.model)
        assert (await asyncio.to_thread(replay, one.tenant, old, new)).outcome == "unclear"

    place.with_tenant(work)


def ranks(rng: np.random.Generator, n: int, hit: float) -> np.ndarray:
    return np.where(rng.random(n) < hit, rng.integers(1, 11, n), 30).astype(np.int64)


def test_verdicts_say_what_the_figures_allow() -> None:
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(200), 5)
    good, bad = ranks(rng, 1000, 0.5), ranks(rng, 1000, 0.3)
    assert judge("a", "b", users, bad, good, 0.02).outcome == "helps"
    worse = judge("a", "b", users, good, bad, 0.02)
    assert worse.outcome == "worse"
    assert worse.hr_old == pytest.approx(np.mean(good <= 10))
    assert worse.ndcg_low < worse.ndcg_new - worse.ndcg_old < worse.ndcg_high < 0
    assert judge("a", "b", users, good, bad, 0.9).outcome == "no worse"  # so much is tolerated
    few = slice(0, 6)
    assert judge("a", "b", users[few], np.full(6, 2), np.array([2, 2, 2, 2, 2, 9]), 0.0).outcome == "unclear"


def test_adapters_that_are_alike_are_seldom_called_worse() -> None:
    users = np.repeat(np.arange(60), 3)
    found = [
        judge("a", "b", users, ranks(rng, 180, 0.4), ranks(rng, 180, 0.4), 0.0).outcome
        for rng in map(np.random.default_rng, range(40))
    ]
    assert found.count("worse") <= 6  # a twentieth expected
    assert found.count("helps") <= 6


def test_the_interval_draws_people_and_not_events() -> None:
    rng = np.random.default_rng(0)
    by_person = rng.normal(0, 1, 50)
    alone = paired_interval(np.arange(50), by_person)
    ten_times = paired_interval(np.repeat(np.arange(50), 10), np.repeat(by_person, 10))
    assert ten_times == pytest.approx(alone)
    half = 1.645 * by_person.std() / np.sqrt(50)
    assert alone[1] - alone[0] == pytest.approx(2 * half, rel=0.1)
