"""A service whose index of items lies in PostgreSQL, and one whose database goes away and comes back."""

from collections.abc import Callable

import pytest

from fedrec.recommend.shelf import Item
from fedrec_client.serving import item_index
from fedrec_client.serving.records import Answer, Event, Query
from fedrec_client.serving.service import Served, Service, TenantService
from fedrec_client.serving.store.postgres_graph import PostgresGraph
from fedrec_client.serving.store.writer import BusyError
from tests.postgres import cluster, with_pgvector
from tests.serving.conftest import Place

MODEL = {"exact_items": 10, "index": "pgvector"}


def ids(answer: Answer) -> list[str]:
    return [one.item.id for one in answer.items]


async def begun(one: TenantService, served: Served) -> None:
    await one.tenant.index.settle()
    await one.intake.add_events([Event("like", item, user="anna", id=f"e{item}") for item in served.catalog.ids[:3]])


async def found(one: TenantService) -> bool:
    """Whether the index answers."""
    model, vector = await one.tenant.engine.user_vector(await one.tenant.person("anna"))
    return await one.tenant.index.candidates(model, vector, 20, 1) is not None


def test_lists_are_as_without_an_index(make_place: Callable[..., Place], served: Served, pgvector: str) -> None:
    async def work(service: Service) -> list[list[str]]:
        one = service.of("default")
        await begun(one, served)
        if one.tenant.settings.model.index == "pgvector":
            assert isinstance(one.tenant.index.of(one.tenant.engine.model), PostgresGraph)
            assert await found(one)
        else:
            assert one.tenant.index.of(one.tenant.engine.model) is None
        await one.intake.put_items([Item("new", "Song of War", categories=("War",))])
        answers = [ids(await one.lists.recommend(Query("anna", n=n))) for n in (5, 30)]
        await one.intake.put_items([Item("new", "Quiet river music", categories=("Music",))])
        session = Query(session=tuple(Event("like", item, session="s") for item in served.catalog.ids[:2]), n=5)
        return [*answers, ids(await one.lists.recommend(Query("anna", n=30))), ids(await one.lists.recommend(session))]

    few = {"ranking": {"candidates": 10}}
    indexed = make_place(store={"database": pgvector}, model=MODEL, **few).run(work)
    assert indexed == make_place(model={"index": "usearch"}, **few).run(work)


def test_a_list_is_made_without_scoring_every_item(
    make_place: Callable[..., Place], served: Served, pgvector: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def every(*_: object) -> None:
        raise AssertionError("all items were scored")

    async def work(one: TenantService) -> None:
        await begun(one, served)
        monkeypatch.setattr(one.tenant.engine.model, "scores", every)
        assert len(ids(await one.lists.recommend(Query("anna", n=5)))) == 5

    make_place(store={"database": pgvector}, model=MODEL, ranking={"candidates": 10}).with_tenant(work)


def test_a_restart_and_a_second_process_find_the_graph(make_place: Callable[..., Place], pgvector: str) -> None:
    place = make_place(store={"database": pgvector}, model=MODEL)

    async def name(one: TenantService) -> str:
        await one.tenant.index.settle()
        graph = one.tenant.index.of(one.tenant.engine.model)
        assert isinstance(graph, PostgresGraph)
        with one.tenant.store.items._database.begin() as connection:
            return str(connection.exec_driver_sql("SELECT name, made_at FROM item_graphs").all())

    first = place.with_tenant(name)
    assert place.with_tenant(name) == first


def test_a_database_that_goes_away_costs_no_answer(
    make_place: Callable[..., Place], served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(item_index, "_REST_S", 0.0)
    with cluster(with_pgvector()) as running:

        async def work(one: TenantService) -> None:
            await begun(one, served)
            assert await found(one)
            expected = ids(await one.lists.recommend(Query("anna", n=5)))
            await one.tenant.written()
            running.stop()
            try:
                assert not await found(one)
                for _ in range(3):
                    assert ids(await one.lists.recommend(Query("anna", n=5, is_recorded=False))) == expected
            finally:
                running.start()
            assert await found(one)
            assert ids(await one.lists.recommend(Query("anna", n=5))) == expected

        make_place(store={"database": running.url}, model=MODEL, ranking={"candidates": 10}).with_tenant(work)


def test_a_service_ends_in_order_though_its_graphs_cannot_be_stopped(
    make_place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    class BrokenError(Exception):
        pass

    def fail() -> None:
        raise BrokenError

    async def work(service: Service) -> None:
        monkeypatch.setattr(service._graphs, "close", fail)
        closed.append(service)

    closed: list[Service] = []
    with pytest.raises(BrokenError):
        make_place().run(work)
    with pytest.raises(BusyError):
        closed[0]._writer.submit(lambda _: None)


def test_a_tenant_s_graphs_are_made_by_the_service_s_one_builder(make_place: Callable[..., Place]) -> None:
    async def work(service: Service) -> None:
        assert service.of("default").tenant.index._builder is service._graphs.builder
        assert service._graphs.builder._max_workers == 1

    make_place().run(work)
