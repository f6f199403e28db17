"""The index of items beside its model: nobody waits for it, and what fails is done without."""

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pytest

from fedrec.errors import StorageError
from fedrec.recommend.index import Codes, ItemGraph
from fedrec.recommend.live_model import Floats, LiveModel
from fedrec_client.serving import item_index
from fedrec_client.serving.item_index import ItemIndex
from fedrec_client.serving.store.graph_book import GraphGoneError

VECTOR = np.ones(2, np.float32)


@dataclass
class Model:
    score_rows: Floats = field(default_factory=lambda: np.ones((5, 2), np.float32))

    @property
    def n_items(self) -> int:
        return len(self.score_rows)


@dataclass
class Graph:
    """Answers as it is told, and says who called."""

    n: int = 5
    waits: bool = True
    answer: Callable[[], Codes] = lambda: np.array([3])
    room: int = 10
    callers: list[int] = field(default_factory=list)
    changed: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return self.n

    def fits(self, rows: Floats) -> bool:
        return len(rows) <= self.room

    def add(self, rows: Floats) -> None:
        self.n += len(rows)

    def change(self, codes: Sequence[int], rows: Floats) -> None:
        self.changed += codes

    def candidates(self, vector: Floats, k: int, effort: int) -> Codes:
        self.callers.append(threading.get_ident())
        return self.answer()


class World:
    """An index whose builds give what was prepared."""

    def __init__(self, *built: ItemGraph | StorageError | None) -> None:
        self.built, self.n_built = list(built), 0
        self.model = Model()
        self.index = ItemIndex(self._build, 2, ThreadPoolExecutor(2))

    def _build(self, rows: Floats) -> ItemGraph | None:
        self.n_built += 1
        found = self.built.pop(0)
        if isinstance(found, StorageError):
            raise found
        return found

    async def ask(self) -> list[int] | None:
        found = await self.index.candidates(cast(LiveModel, self.model), VECTOR, 3, 1)
        return None if found is None else found.tolist()

    async def begin(self) -> list[int] | None:
        assert await self.ask() is None  # it is only wanted
        await self.index.settle()
        return await self.ask()

    def due(self) -> None:
        self.index._not_before = self.index._rests_until = 0.0


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def fail(error: Exception) -> Callable[[], Codes]:
    def raise_it() -> Codes:
        raise error

    return raise_it


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.__dict__["event"] for record in caplog.records if "event" in record.__dict__]


def test_few_items_have_none() -> None:
    async def work() -> None:
        world = World()
        world.model.score_rows = world.model.score_rows[:2]
        assert await world.ask() is None
        assert world.n_built == 0

    run(work())


@pytest.mark.parametrize("waits", [True, False])
def test_a_graph_elsewhere_is_asked_in_a_thread_and_one_here_at_once(waits: bool) -> None:
    async def work() -> None:
        graph = Graph(waits=waits)
        assert await World(graph).begin() == [3]
        assert (graph.callers[0] != threading.get_ident()) == waits

    run(work())


def test_while_it_hangs_others_are_served_and_the_one_who_asked_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(item_index, "_PATIENCE_S", 0.05)
    let_go = threading.Event()

    def hang() -> Codes:
        let_go.wait(30)
        return np.array([3])

    async def work() -> None:
        world = World(Graph(answer=hang))
        try:
            assert await world.begin() is None
            assert await world.ask() is None
            assert events(caplog) == ["index", "index_away"]
        finally:
            let_go.set()
        assert await world.ask() is None  # it rests
        world.due()
        monkeypatch.setattr(item_index, "_PATIENCE_S", 30.0)
        assert await world.ask() == [3]
        assert events(caplog) == ["index", "index_away", "index_back"]

    with caplog.at_level(logging.INFO):
        run(work())


def test_one_that_fails_is_told_once_and_asked_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        graph = Graph(answer=fail(StorageError("the database fails")))
        world = World(graph)
        assert await world.begin() is None
        for _ in range(3):
            assert await world.ask() is None
        assert len(graph.callers) == 1
        for _ in range(2):
            world.due()
            assert [await world.ask(), await world.ask()] == [None, None]
        assert len(graph.callers) == 3
        assert events(caplog) == ["index", "index_away"]
        graph.answer = lambda: np.array([4])
        world.due()
        assert [await world.ask(), await world.ask()] == [[4], [4]]
        graph.answer = fail(StorageError("again"))
        assert await world.ask() is None
        assert events(caplog) == ["index", "index_away", "index_back", "index_away"]
        assert world.n_built == 1

    with caplog.at_level(logging.INFO):
        run(work())


def test_one_asks_whether_it_is_back_while_the_others_do_not_wait() -> None:
    async def work() -> None:
        graph = Graph(answer=fail(StorageError("the database fails")))
        world = World(graph)
        await world.begin()
        graph.answer = lambda: np.array([4])
        world.due()
        assert await asyncio.gather(world.ask(), world.ask(), world.ask()) == [[4], None, None]
        assert await world.ask() == [4]

    run(work())


def test_one_that_was_dropped_is_built_anew() -> None:
    async def work() -> None:
        world = World(Graph(answer=fail(GraphGoneError("gone"))), Graph())
        assert await world.begin() is None
        world.due()
        assert await world.begin() == [3]

    run(work())


def test_what_another_process_builds_is_looked_for_later() -> None:
    async def work() -> None:
        world = World(None, Graph())
        assert await world.begin() is None
        assert world.n_built == 1
        world.due()
        assert await world.begin() == [3]

    run(work())


def test_a_build_that_fails_is_tried_again_ever_more_seldom(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        world = World(StorageError("no space"), StorageError("no space"), Graph())
        waits = []
        for _ in range(2):
            assert await world.begin() is None
            waits.append(world.index._not_before - asyncio.get_running_loop().time())
            world.due()
        assert waits[1] > waits[0] + 20
        assert await world.begin() == [3]
        assert events(caplog) == ["index_failed", "index_failed", "index"]

    with caplog.at_level(logging.INFO):
        run(work())


def test_items_that_join_are_added_until_there_is_no_room() -> None:
    async def work() -> None:
        graph = Graph(room=2)
        world = World(graph, Graph(n=9))
        await world.begin()
        world.model.score_rows = np.ones((7, 2), np.float32)
        assert await world.ask() == [3]
        assert graph.n == 7
        world.model.score_rows = np.ones((10, 2), np.float32)
        world.due()
        assert await world.begin() == [3]
        assert graph.n == 7

    run(work())


def test_what_changes_while_it_is_built_is_brought_in_afterwards() -> None:
    """Also where the one before is still there: its successor would have the rows before."""

    async def work() -> None:
        graph, successor = Graph(room=2), Graph()
        world = World(graph, successor)
        model = cast(LiveModel, world.model)
        world.index.want(model)
        await asyncio.sleep(0)
        world.index.changed(model, [1, 9])  # the last joined meanwhile
        world.index.changed(model, [4, 1])
        await world.index.settle()
        assert (world.n_built, graph.changed) == (1, [1, 4])
        assert await world.ask() == [3]
        world.due()
        world.index.want(model)
        await asyncio.sleep(0)
        world.index.changed(model, [2])
        await world.index.settle()
        assert (graph.changed, successor.changed) == ([1, 4, 2], [2])

    run(work())


def test_what_changes_while_the_rest_is_brought_in_comes_in_too_and_by_its_rows_of_then() -> None:
    async def work() -> None:
        rows: list[float] = []
        graph = Graph()
        world = World(graph)
        model = cast(LiveModel, world.model)

        def put(value: float) -> None:
            world.model.score_rows[2] = value
            world.index.changed(model, [2])

        def change(codes: Sequence[int], changed: Floats) -> None:
            rows.append(float(changed[0, 0]))
            if len(rows) == 1:
                put(8.0)

        graph.change = change  # type: ignore[assignment, method-assign]
        world.index.want(model)
        await asyncio.sleep(0)
        put(7.0)
        await world.index.settle()
        assert (rows, world.n_built) == ([7.0, 8.0], 1)
        assert await world.ask() == [3]

    run(work())


def test_more_than_fits_that_changes_while_it_is_built_is_built_again_after_a_pause() -> None:
    async def work() -> None:
        world = World(Graph(room=1), Graph())
        model = cast(LiveModel, world.model)
        world.index.want(model)
        await asyncio.sleep(0)
        world.index.changed(model, [1, 2])
        await world.index.settle()
        assert await world.begin() is None
        assert world.n_built == 1
        world.due()
        assert await world.begin() == [3]

    run(work())


def test_they_are_built_in_the_thread_that_is_given_for_it_and_keep_no_other() -> None:
    """The pool that everything shares has few threads, and a build takes minutes."""

    async def work() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        let_go, worlds = threading.Event(), [World(), World()]

        def build(_: Floats) -> None:
            let_go.wait(30)

        with ThreadPoolExecutor(1, "builder") as builder:
            indices = [ItemIndex(build, 2, None, builder) for _ in worlds]
            for world, index in zip(worlds, indices, strict=True):
                index.want(cast(LiveModel, world.model))
            await asyncio.sleep(0)
            try:
                assert await asyncio.wait_for(asyncio.to_thread(lambda: "served"), 10) == "served"
                assert builder._work_queue.qsize() == 1
            finally:
                let_go.set()
            for index in indices:
                await index.settle()

    run(work())
