"""Lists end to end on a tiny model: personal at once, never empty, never twice, the same after a restart."""

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from fedrec.errors import DataError
from fedrec.model.features import ItemFeatures
from fedrec.recommend.live_model import LiveModel, as_window
from fedrec.recommend.readings import HistoryReader, Wanted
from fedrec.recommend.rules import Rule
from fedrec.recommend.shelf import Item
from fedrec_client.serving.errors import NotFoundError, NotReadyError
from fedrec_client.serving.people import Person
from fedrec_client.serving.records import Answer, Event, Query, Shown
from fedrec_client.serving.service import Served, Service, TenantService
from fedrec_client.serving.tracing import Tracing
from tests.serving.conftest import Place, live_model


def ids(answer: Answer) -> list[str]:
    return [one.item.id for one in answer.items]


def liked(*items: str, user: str = "anna") -> list[Event]:
    return [Event("like", item, user=user, timestamp=1000.0 + place) for place, item in enumerate(items)]


def oracle(served: Served, codes: list[int], seen: list[int], k: int) -> list[str]:
    """Everything read anew, every item scored, sorted."""
    context = HistoryReader(served.model, 0).read([Wanted(None, np.array(codes))])[0]
    scores = served.model.scores(served.model.user_vector(as_window(codes, [1.0] * len(codes), context))[None])[0]
    order = [code for code in np.argsort(-scores, kind="stable") if code not in seen]
    return [served.catalog.ids[code] for code in order[:k]]


def test_an_event_is_in_the_next_answer_and_the_list_is_the_models(place: Place, served: Served) -> None:
    async def work(one: TenantService) -> None:
        had: list[str] = []
        for item in served.catalog.ids[:12:2]:
            await one.intake.add_events([Event("like", item, user="anna")])
            had.append(item)
            codes = [served.catalog.codes[i] for i in had]
            answer = await one.lists.recommend(Query("anna", n=10))
            assert ids(answer) == oracle(served, codes, codes, 10)
            assert {r.source for r in answer.items} == {"model"}
        assert one.tenant.engine.desk.reader.n_extended == 5

    place.with_tenant(work)


def test_a_restart_changes_no_list_and_reads_no_history_again(place: Place, served: Served) -> None:
    async def before(one: TenantService) -> list[str]:
        await one.intake.add_events(liked(*served.catalog.ids[:5]))
        await one.intake.put_items([Item("new", "Song of War", categories=("War",))])
        await one.intake.add_events(liked("new"))
        return ids(await one.lists.recommend(Query("anna")))

    async def after(one: TenantService) -> tuple[list[str], int]:
        reader = one.tenant.engine.desk.reader
        warmed = reader.n_read
        found = ids(await one.lists.recommend(Query("anna")))
        return found, reader.n_read - warmed

    expected = place.with_tenant(before)
    assert place.with_tenant(after) == (expected, 0)


def test_nobody_gets_an_empty_list(place: Place, served: Served) -> None:
    async def work(one: TenantService) -> None:
        nothing_yet = await one.lists.recommend(Query("nobody"))
        assert {r.source for r in nothing_yet.items} == {"popular"}
        await one.intake.add_events(liked(*served.catalog.ids[:3]))
        assert {r.source for r in (await one.lists.recommend(Query("nobody"))).items} == {"trending", "popular"}
        session = await one.lists.recommend(Query(session=tuple(liked(served.catalog.ids[7], user="x"))))
        assert {r.source for r in session.items} == {"session"}
        everything = await one.lists.recommend(Query("anna", n=100))
        assert len(everything.items) == len(set(ids(everything))) == 37

    place.with_tenant(work)


def test_pages_show_every_item_once_though_events_come_between(place: Place, served: Served) -> None:
    async def work(one: TenantService) -> None:
        await one.intake.add_events(liked(served.catalog.ids[0]))
        shown: list[str] = []
        cursor, turned = "", False
        while cursor or not shown:
            page = await one.lists.recommend(Query("anna", n=7, cursor=cursor))
            shown += ids(page)
            cursor = page.cursor
            if not turned:
                turned = True
                await one.intake.add_events(liked(page.items[3].item.id))
        assert len(shown) == len(set(shown)) == 39
        first = await one.lists.recommend(Query("anna", n=7))
        with pytest.raises(DataError):
            await one.lists.recommend(Query("bert", n=7, cursor=first.cursor))

    place.with_tenant(work)


def test_what_somebody_did_not_like_stays_away_and_takes_its_like_along(place: Place, served: Served) -> None:
    async def work(one: TenantService) -> None:
        await one.intake.add_events(liked(*served.catalog.ids[:4]))
        before = await one.lists.recommend(Query("anna", n=36))
        bad = before.items[0].item.id
        await one.intake.add_events([Event("dislike", bad, user="anna")])
        after = await one.lists.recommend(Query("anna", n=36))
        assert bad not in ids(after)
        vectors = one.lists.sources.vectors(one.tenant.engine.model)
        codes = [served.catalog.codes[item] for item in ids(after)]
        near = vectors[codes] @ vectors[served.catalog.codes[bad]]
        was = {r.item.id: r.score for r in before.items}
        lost = np.array([was[r.item.id] - r.score for r in after.items])
        np.testing.assert_allclose(lost, np.clip(near, 0, 1), atol=1e-3)

    place.with_tenant(work)


def test_block_lists_rules_filters_and_categories_hold(place: Place, served: Served) -> None:
    async def work(one: TenantService) -> None:
        await one.intake.add_events(liked(served.catalog.ids[0]))
        first = ids(await one.lists.recommend(Query("anna")))
        await one.intake.block("anna", "item", first[0], is_blocked=True)
        assert first[0] not in ids(await one.lists.recommend(Query("anna", n=40)))
        await one.intake.block("anna", "item", first[0], is_blocked=False)
        await one.policy.put(Rule(name="week", action="pin", items=(first[5],), position=2))
        pinned = await one.lists.recommend(Query("anna"))
        assert (pinned.items[1].item.id, pinned.items[1].source, pinned.items[1].rules) == (
            first[5],
            "pinned",
            ("week",),
        )
        await one.policy.remove("week")
        assert ids(await one.lists.recommend(Query("anna"))) == first
        wars = await one.lists.recommend(Query("anna", n=40, categories=("War",)))
        assert wars.items
        assert all("War" in r.item.categories for r in wars.items)
        same = await one.lists.recommend(Query("anna", n=40, filter='"War" in categories'))
        assert ids(same) == ids(wars)
        assert not set(first[:3]) & set(ids(await one.lists.recommend(Query("anna", n=40, exclude=tuple(first[:3])))))

    place.with_tenant(work)


def test_given_candidates_all_come_back_with_unknown_ones_last(place: Place, served: Served) -> None:
    async def work(one: TenantService) -> None:
        await one.intake.add_events(liked(*served.catalog.ids[:2]))
        given = (served.catalog.ids[9], "who?", served.catalog.ids[0], served.catalog.ids[9])
        answer = await one.lists.rank(Query("anna", candidates=given))
        assert sorted(ids(answer)) == sorted(set(given))
        assert answer.items[-1].item.id == "who?"
        scores = [one.score for one in answer.items]
        assert scores == sorted(scores, reverse=True)

    place.with_tenant(work)


def test_reasons_name_what_raised_the_score_and_the_check_agrees(place: Place, served: Served) -> None:
    async def work(one: TenantService) -> None:
        await one.intake.add_events(liked(*served.catalog.ids[:6]))
        answer = await one.lists.recommend(Query("anna", explain=True))
        person = await one.tenant.person("anna")
        n_held = 0
        for ranked in answer.items:
            assert ranked.why is not None
            assert set(dict(ranked.why.because)) <= set(served.catalog.ids[:6])
            checked = await one.lists.explaining.checked(person, one.tenant.engine.model, ranked)
            n_held += checked.holds
        assert n_held == len(answer.items)

    place.with_tenant(work)


def test_another_adapter_takes_over_between_two_answers(
    place: Place, served: Served, tiny_llama: object, features: ItemFeatures
) -> None:
    async def work(service: Service) -> None:
        one = service.of("default")
        await one.intake.add_events(liked(*served.catalog.ids[:4]))
        await one.intake.put_items([Item("new", "Song of War", categories=("War",))])
        before = await one.lists.recommend(Query("anna", n=40))
        other = live_model(tiny_llama, features, "round-0002", seed=2)  # type: ignore[arg-type]
        await service.swap(other)
        after = await one.lists.recommend(Query("anna", n=40))
        assert (before.adapter, after.adapter) == ("round-0001", "round-0002")
        assert sorted(ids(after)) == sorted(ids(before))
        assert ids(after) != ids(before)
        codes = [0, 1, 2, 3]
        expected = oracle(Served(served.catalog, other, served.encode), codes, codes, 36)
        assert [item for item in ids(after) if item != "new"] == expected
        await service.swap(served.model)
        assert ids(await one.lists.recommend(Query("anna", n=40))) == ids(before)

    place.run(work)


def test_a_deleted_user_is_gone_from_memory_and_disk(place: Place, served: Served) -> None:
    async def work(one: TenantService) -> None:
        await one.intake.add_events(liked(*served.catalog.ids[:3]))
        await one.lists.recommend(Query("anna"))
        gone = await one.intake.remove_user("anna")
        assert gone["events"] == 3
        assert one.tenant.people.find("anna") is None
        assert not one.tenant.store.readings.get(["anna"])
        fresh = await one.lists.recommend(Query("anna"))
        assert "model" not in {r.source for r in fresh.items}

    place.with_tenant(work)


def test_tenants_see_nothing_of_each_other(make_place: Callable[..., Place], served: Served) -> None:
    async def work(service: Service) -> None:
        one, two = service.of("a"), service.of("b")
        await one.intake.add_events(liked(*served.catalog.ids[:3]))
        await one.intake.put_items([Item("new", "Song of War", categories=("War",))])
        assert "model" not in {r.source for r in (await two.lists.recommend(Query("anna"))).items}
        with pytest.raises(NotFoundError):
            await two.lists.similar("new", Query())

    make_place(tenants=[{"name": "a"}, {"name": "b"}]).run(work)


def test_a_graph_index_gives_the_exact_list_and_new_items_are_in_it(
    make_place: Callable[..., Place], served: Served
) -> None:
    async def work(one: TenantService) -> None:
        await one.tenant.index.settle()
        await one.intake.add_events(liked(*served.catalog.ids[:3]))
        await one.intake.put_items([Item("new", "Song of War", categories=("War",))])
        index = one.tenant.index.of(one.tenant.engine.model)
        assert index is not None
        assert len(index) == 41
        codes = [0, 1, 2]
        answer = await one.lists.recommend(Query("anna", n=5))
        known = [item for item in ids(answer) if item != "new"]
        assert known == oracle(served, codes, codes, 5)[: len(known)]
        boosted = served.catalog.ids[39]
        await one.policy.put(Rule(name="up", action="boost", items=(boosted,), amount=50))
        assert ids(await one.lists.recommend(Query("anna", n=5)))[0] == boosted
        few = await one.lists.recommend(Query("anna", n=5, categories=("War",), filter='id == "new"'))
        assert ids(few) == ["new"]

    make_place(model={"exact_items": 10}, ranking={"candidates": 10}).with_tenant(work)


def test_an_item_that_feedback_made_is_scored_by_its_text_once_it_has_one(place: Place, served: Served) -> None:
    async def work(one: TenantService) -> None:
        await one.intake.add_events([Event("like", "new", user="bert")])
        await one.intake.put_items([Item("other", "Song of War", categories=("War",))])
        model, vectors = one.tenant.engine.model, one.lists.sources.vectors
        assert not np.allclose(vectors(model)[40], vectors(model)[41])
        await one.intake.put_items([Item("new", "Song of War", categories=("War",))])
        np.testing.assert_allclose(model.score_rows[40], model.score_rows[41], atol=1e-5)
        np.testing.assert_allclose(vectors(model)[40], vectors(model)[41], atol=1e-5)
        trained = model.score_rows[0].copy()
        await one.intake.put_items([Item(served.catalog.ids[0], "Another title")])
        np.testing.assert_array_equal(model.score_rows[0], trained)
        assert one.tenant.shelf.item(0).title == "Another title"

    place.with_tenant(work)


def test_an_adapter_that_takes_over_while_the_index_is_asked_is_the_one_that_answers(
    place: Place, served: Served, tiny_llama: Path, features: ItemFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(service: Service) -> None:
        one, asked = service.of("default"), list[str]()
        await one.intake.add_events(liked(*served.catalog.ids[:4]))

        async def meanwhile(model: LiveModel, *_: object) -> None:
            asked.append(model.version)
            if len(asked) == 1:
                await service.swap(live_model(tiny_llama, features, "round-0002", seed=2))
                await one.intake.put_items([Item("late", "Song of War", categories=("War",))])

        monkeypatch.setattr(one.tenant.index, "candidates", meanwhile)
        answer = await one.lists.recommend(Query("anna", n=40))
        assert asked == ["round-0001", "round-0002"]
        assert answer.adapter == "round-0002"
        assert "late" in ids(answer)

    place.run(work)


def test_a_change_of_adapter_that_is_given_up_leaves_nothing_behind(
    place: Place, served: Served, tiny_llama: Path, features: ItemFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(service: Service) -> None:
        one = service.of("default")
        await one.intake.add_events(liked(*served.catalog.ids[:4]))
        before = ids(await one.lists.recommend(Query("anna")))
        n_threads = threading.active_count()
        swap = asyncio.create_task(service.swap(live_model(tiny_llama, features, "round-0002", seed=2)))
        monkeypatch.setattr("fedrec_client.serving.reading_desk.ReadingDesk.ask", lambda *_: asyncio.Future())
        await asyncio.sleep(0.05)
        swap.cancel()
        with pytest.raises(asyncio.CancelledError):
            await swap
        monkeypatch.undo()
        await asyncio.to_thread(time.sleep, 0.2)
        assert threading.active_count() <= n_threads + 1  # that of to_thread itself
        assert service.version == "round-0001"
        assert ids(await one.lists.recommend(Query("anna"))) == before

    place.run(work)


def test_nobody_waits_for_an_engine_that_has_ended(place: Place, served: Served) -> None:
    async def work(one: TenantService) -> None:
        await one.intake.add_events(liked(*served.catalog.ids[:3]))
        await asyncio.to_thread(one.tenant.engine.close)
        with pytest.raises(NotReadyError):
            await asyncio.wait_for(one.lists.recommend(Query("anna")), timeout=10)

    place.with_tenant(work)


def test_a_deletion_goes_on_when_whoever_asked_goes_away_and_takes_sessions_along(place: Place, served: Served) -> None:
    async def work(one: TenantService) -> None:
        await one.intake.add_events([Event("like", served.catalog.ids[0], user="anna", session="s")])
        await one.lists.recommend(Query("anna"))
        await one.lists.recommend(Query(session_id="s"))
        removing = asyncio.create_task(one.intake.remove_user("anna"))
        await asyncio.sleep(0)
        removing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await removing
        while one.tenant.removing or one.tenant.store.events.history("anna"):
            await asyncio.sleep(0.01)
        assert not one.tenant.people.everybody()
        gone = Person((one.tenant.name, "anna"))
        await one.lists.recommend(Query("anna"))  # somebody of this id is there again, and had nothing
        late = Shown("late", "anna", "", time.time(), "default", "round-0001", ("i1",))
        one.tenant.note_shown(late, gone)  # of a list that was being made meanwhile
        await one.tenant.written()
        assert one.tenant.store.shown.find("late") is None

    place.with_tenant(work)


def test_spans_say_where_the_time_of_a_list_and_of_an_event_goes(place: Place, served: Served) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    async def work(one: TenantService) -> list[str]:
        with Tracing(provider).request("GET", []):
            await one.intake.add_events(liked(*served.catalog.ids[:3]))
            await one.lists.recommend(Query("anna", explain=True))
        return [span.name for span in exporter.get_finished_spans()]

    steps = ["store", "person", "read", "search", "arrange", "explain"]
    assert place.with_tenant(work) == [*steps, "GET"]
