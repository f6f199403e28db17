"""Clicks whose truth is known teach the final ranking; a worse fit is not used; what was learnt outlives a restart."""

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from fedrec.errors import DataError
from fedrec.recommend.final import FinalWeights, ShownFeatures, click_ndcg
from fedrec.recommend.shelf import Item
from fedrec_client.serving.errors import ConflictError
from fedrec_client.serving.learning_to_rank import LEAST_LISTS, compared
from fedrec_client.serving.records import Event, Query, Shown
from fedrec_client.serving.service import TenantService
from fedrec_client.serving.store import click_book
from fedrec_client.serving.store.shown_book import confirm_shown
from tests.serving.conftest import Place

LEARNS = {"ranking": {"learned": True, "fields": {"price": 0.0}}}
GOODS = [Item(f"good-{place:02}", f"Good {place}", fields={"price": float(place * 37 % 60)}) for place in range(60)]
PRICE = {item.id: float(item.fields["price"]) for item in GOODS}


async def written(one: TenantService) -> None:
    """What waited for the store's writer is on the disk."""
    await one.tenant.written()


async def shown_and_clicked(
    one: TenantService, lists: int, *, kind: str = "click", sign: int = 1, seed: int = 0
) -> None:
    """Lists of ten for people with a history; of each the cheapest is clicked, or by `sign` the dearest."""
    await one.intake.put_items(GOODS)
    await one.intake.settle()
    random = np.random.default_rng(seed)
    await one.intake.add_events([Event("like", f"good-{u:02}", user=f"u{u}", timestamp=1000.0 + u) for u in range(20)])
    for place in range(lists):
        user = f"u{place % 20}"
        candidates = tuple(GOODS[code].id for code in random.choice(60, 10, replace=False))
        answer = await one.lists.rank(Query(user, candidates=candidates, ranking=f"list-{seed}-{place}"))
        best = min((item.item.id for item in answer.items), key=lambda item: sign * PRICE[item])
        await one.intake.add_events([Event(kind, best, user="", session=f"s{place}", ranking=answer.id)])
    await written(one)


async def order_of(one: TenantService) -> list[str]:
    answer = await one.lists.rank(Query(candidates=tuple(sorted(PRICE)), is_recorded=False))
    return [ranked.item.id for ranked in answer.items]


def by_price(order: list[str]) -> float:
    """1 if the cheap ones come first."""
    return float(np.corrcoef([PRICE[item] for item in order], range(len(order)))[0, 1])


def test_the_cheap_ones_were_clicked_so_the_cheap_ones_come_first(make_place: Callable[..., Place]) -> None:
    async def work(one: TenantService) -> FinalWeights:
        await shown_and_clicked(one, 120)
        before = await order_of(one)
        training = await one.learning_to_rank.train("default")
        assert (training.lists, training.is_used) == (120, True)
        assert training.weights.fields["price"] < -0.5
        assert training.after.test > training.before.test + 0.2
        after = await order_of(one)
        assert by_price(after) > 0.5 > abs(by_price(before))
        return training.weights

    async def again(one: TenantService) -> FinalWeights:
        assert (by_price(await order_of(one)) > 0.5) == (one.lists.ranking.settings("default").weights == learnt)
        return one.lists.ranking.settings("default").weights

    place = make_place(**LEARNS)
    learnt = place.with_tenant(work)
    assert place.with_tenant(again) == learnt
    elsewhere = make_place(ranking={"learned": True, "fields": {"weight": 0.0}})
    assert elsewhere.with_tenant(again) == FinalWeights(fields={"weight": 0.0})  # other fields: it begins anew
    assert make_place(ranking={"fields": {"price": 0.0}}).with_tenant(again) == FinalWeights(fields={"price": 0.0})


def test_a_fit_that_is_worse_on_later_lists_is_not_used(make_place: Callable[..., Place]) -> None:
    async def work(one: TenantService) -> None:
        await shown_and_clicked(one, 100)
        assert (await one.learning_to_rank.train("default")).is_used
        learnt = one.lists.ranking.settings("default").weights
        await shown_and_clicked(one, 100, sign=-1, seed=1)  # from now on the dear ones, and most of them held out
        training = await one.learning_to_rank.train("default")
        assert training.before.weights == learnt
        assert training.is_used == (training.after.test >= training.before.test)
        assert one.lists.ranking.settings("default").weights == training.weights

    make_place(**LEARNS).with_tenant(work)


def test_the_weights_before_stay_where_the_later_lists_speak_for_them() -> None:
    random = np.random.default_rng(3)

    def lists(n: int, sign: int) -> list[ShownFeatures]:
        columns = [random.normal(size=(10, 3)) for _ in range(n)]
        return [ShownFeatures(one, np.arange(10) == np.argmax(sign * one[:, 1])) for one in columns]

    start = FinalWeights(1.0, 0.0, 0.0)
    turned = compared(lists(200, 1), lists(50, -1), start, start)
    assert not turned.is_used
    assert turned.weights == start
    same = compared(lists(200, 1), lists(50, 1), start, start)
    assert same.is_used
    assert same.weights == same.after.weights != start


def test_ndcg_of_clicks_is_what_can_be_worked_out_by_hand() -> None:
    features = np.array([[3.0, 0, 0], [2, 0, 0], [1, 0, 0]])
    first, last = (ShownFeatures(features, np.arange(3) == place) for place in (0, 2))
    assert click_ndcg([first], FinalWeights()) == pytest.approx(1.0)
    assert click_ndcg([last], FinalWeights()) == pytest.approx(0.5)
    assert click_ndcg([last], FinalWeights(-1.0)) == pytest.approx(1.0)
    both = ShownFeatures(features, np.array([True, False, True]))  # gains 1 and 3
    assert click_ndcg([both], FinalWeights()) == pytest.approx((1 + 3 / 2) / (3 + 1 / math.log2(3)))
    assert click_ndcg([first], FinalWeights(0.0)) == pytest.approx(0.5)  # nothing known: the shown order is no help
    assert math.isnan(click_ndcg([ShownFeatures(features, np.zeros(3, bool))], FinalWeights()))


def test_what_cannot_be_learnt_is_said(make_place: Callable[..., Place]) -> None:
    async def few(one: TenantService) -> None:
        await shown_and_clicked(one, LEAST_LISTS + 5, kind="hide")
        with pytest.raises(ConflictError):  # what was hidden was not clicked
            await one.learning_to_rank.train("default")

    async def fixed(one: TenantService) -> None:
        await shown_and_clicked(one, 3, seed=7)
        with pytest.raises(DataError):
            await one.learning_to_rank.train("default")
        await written(one)
        shown = one.tenant.store.shown.find("list-7-0")
        assert shown is not None
        assert shown.features == {}

    make_place(**LEARNS).with_tenant(few)
    make_place().with_tenant(fixed)


def test_two_who_ask_share_the_work_and_lists_go_on(make_place: Callable[..., Place]) -> None:
    async def work(one: TenantService) -> None:
        await shown_and_clicked(one, 60)
        first, second = (asyncio.create_task(one.learning_to_rank.train("default")) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()  # its caller went away
        assert len((await one.lists.recommend(Query("u1"))).items) == 10
        assert (await second).lists == 60

    make_place(**LEARNS).with_tenant(work)


def test_features_are_kept_as_they_were(make_place: Callable[..., Place]) -> None:
    async def work(one: TenantService) -> None:
        await one.intake.put_items([replace(item, timestamp=time.time() - 86_400) for item in GOODS[:3]])
        await one.intake.add_events([Event("like", GOODS[0].id, user="anna")])
        given = (GOODS[1].id, GOODS[2].id, "who?")
        answer = await one.lists.rank(Query("anna", candidates=given, ranking="r"))
        await one.intake.change_item(GOODS[1].id, {"fields": {"price": 999.0}})
        await written(one)
        shown = one.tenant.store.shown.find("r")
        assert shown is not None
        assert list(shown.features) == ["model", "recency", "popularity", "price"]
        places = {item: place for place, item in enumerate(shown.items)}
        assert shown.features["price"][places[GOODS[1].id]] == PRICE[GOODS[1].id]
        assert shown.features["recency"][places[GOODS[1].id]] == pytest.approx(-math.log(2), abs=1e-4)
        assert [values[places["who?"]] for values in shown.features.values()] == [None] * 4
        assert shown.features["model"][0] == pytest.approx(answer.items[0].score, rel=1e-5)
        popular = await one.lists.recommend(Query(n=5, ranking="p"))
        assert {ranked.features["model"] for ranked in popular.items} == {None}  # another source's scores

    make_place(**LEARNS).with_tenant(work)


def test_clicked_lists_come_newest_first_of_one_arm_with_features(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(click_book, "CHUNK", 2)  # so that there are several transactions

    async def work(one: TenantService) -> None:
        store = one.tenant.store
        shown = Shown("0", "", "", 5.0, "b", "round-0001", ("x", "y"), ("model",) * 2, {"model": (3.0, 2.0)})
        lists = [replace(shown, id=str(place), at=5.0 + place // 2) for place in range(7)]
        store.shown.add([*lists, replace(shown, id="other", arm="a"), replace(shown, id="bare", features={})])
        clicks = [Event("click", "y", session="s", ranking=name) for name in ("0", "1", "4", "6", "other", "bare")]
        store.events.add([*clicks, Event("hide", "y", session="s", ranking="5")])
        found = list(store.clicks.clicked("b", lambda kind, _: kind == "click"))
        assert [(row.id, clicked) for row, clicked in found] == [(name, {"y"}) for name in ("6", "4", "1", "0")]

    place.with_tenant(work)


def test_what_was_displayed_of_a_list_is_what_counts(place: Place) -> None:
    async def work(one: TenantService) -> None:
        book, writer = one.tenant.store.shown, one.tenant.writer
        ranked = Shown(
            "r", "anna", "", 5.0, "b", "round-0001", ("x", "y", "z"), ("model",) * 3, {"model": (3.0, 2.0, None)}
        )
        book.add([ranked])
        seen = Shown("r", "", "", 9.0, "given", "none", ("y", "new", "x"), ("given",) * 3)
        other = replace(seen, id="other")
        await asyncio.wrap_future(writer.submit(lambda connection: confirm_shown(connection, "default", [seen, other])))
        features = {"model": (2.0, None, 3.0)}
        assert book.find("r") == replace(
            ranked, items=seen.items, sources=("model", "given", "model"), features=features
        )
        assert book.find("other") == other

    place.with_tenant(work)
