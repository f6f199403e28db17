"""The graph of a tenant's items beside its model: built in a thread, used once it is whole, done without till then."""

import asyncio
import logging
import time
from collections.abc import Collection, Sequence
from concurrent.futures import Executor

from fedrec.errors import StorageError
from fedrec.recommend.index import Codes, ItemGraph
from fedrec.recommend.live_model import Floats, LiveModel
from fedrec_client.serving.graphs import Build
from fedrec_client.serving.store.graph_book import GraphGoneError

_log = logging.getLogger(__name__)
# Between two tries to build a graph, however often it is asked for; twice as long after each that failed.
_AGAIN_S, _AGAIN_MOST_S = 30.0, 3600.0
# So long an answer waits for a graph that lies elsewhere, and so long nobody asks it after it gave none.
_PATIENCE_S, _REST_S = 2.0, 10.0


class ItemIndex:
    """Finds candidates among more than `exact_items` items; until it is built, and for fewer, all are scored.

    All but what `build`, `threads` and `builder` do is done on the event loop's thread.

    Args:
        build: makes a graph of rows, in a thread.
        exact_items: up to so many no graph is wanted.
        threads: where graphs are searched that lie in another process.
        builder: where they are made, which takes minutes.
    """

    def __init__(
        self, build: Build, exact_items: int, threads: Executor | None = None, builder: Executor | None = None
    ) -> None:
        self._build_of, self._exact_items, self._threads, self._builder = build, exact_items, threads, builder
        self._ready: tuple[LiveModel, ItemGraph] | None = None
        self._building: asyncio.Task[None] | None = None
        self._changed: set[int] = set()  # since what is being built got its rows
        self._not_before, self._again_s = 0.0, _AGAIN_S
        self._is_away, self._rests_until = False, 0.0

    async def candidates(self, model: LiveModel, vector: Floats, k: int, effort: int) -> Codes | None:
        """Codes of about the k highest scores, best first; None: there is no graph now, or it does not answer."""
        graph = self.of(model)
        if graph is None or not graph.waits:
            return None if graph is None else graph.candidates(vector, k, effort)
        if self._is_away:
            if time.monotonic() < self._rests_until:
                return None
            self._rests_until = time.monotonic() + _REST_S  # this one looks whether it is back; others do not wait
        searching = asyncio.get_running_loop().run_in_executor(self._threads, graph.candidates, vector, k, effort)
        try:
            found = await asyncio.wait_for(searching, _PATIENCE_S)
        except GraphGoneError:
            self._lose(graph, model)
            return None
        except (StorageError, TimeoutError) as error:
            self._rest(type(error).__name__)
            return None
        if self._is_away:
            self._is_away = False
            _log.info("the index of items answers again", extra={"event": "index_back"})
        return found

    def _rest(self, reason: str) -> None:
        """Said once: until it is back every list is made by scoring all items."""
        self._rests_until = time.monotonic() + _REST_S
        if not self._is_away:
            self._is_away = True
            words = "the index of items does not answer: %s; all are scored"
            _log.warning(words, reason, extra={"event": "index_away"})

    def _lose(self, graph: ItemGraph, model: LiveModel) -> None:
        if self._ready is not None and self._ready[1] is graph:
            self._ready = None
            self.want(model)

    def of(self, model: LiveModel) -> ItemGraph | None:
        """The graph of just this model's items; items that joined are added first."""
        if model.n_items <= self._exact_items:
            return None
        if self._ready is None or self._ready[0] is not model:
            self.want(model)
            return None
        graph = self._ready[1]
        if len(graph) < model.n_items:
            later: Floats = model.score_rows[len(graph) :]
            if not graph.fits(later):
                self.want(model)
                return None
            graph.add(later)
        return graph

    def changed(self, model: LiveModel, codes: Sequence[int]) -> None:
        """Items have other rows."""
        if self._building is not None and not self._building.done():
            self._changed.update(codes)
        if self._ready is None or self._ready[0] is not model:
            return
        graph = self._ready[1]
        there = _of_graph(graph, codes)
        if graph.fits(model.score_rows[there]):
            graph.change(there, model.score_rows[there])
        else:
            self._ready, self._not_before = None, 0.0
            self.want(model)

    def want(self, model: LiveModel) -> None:
        """Have a graph made for a model, in the background."""
        is_idle = self._building is None or self._building.done()
        if model.n_items > self._exact_items and is_idle and time.monotonic() >= self._not_before:
            self._not_before = time.monotonic() + _AGAIN_S
            self._building = asyncio.create_task(self._build(model))

    async def settle(self) -> None:
        """Wait for what is being built."""
        if self._building is not None:
            await self._building

    async def _build(self, model: LiveModel) -> None:
        began = time.monotonic()
        self._changed.clear()
        rows = model.score_rows.copy()
        try:
            graph = await asyncio.get_running_loop().run_in_executor(self._builder, self._build_of, rows)
        except StorageError as error:
            self._fail(error)
            return
        self._again_s = _AGAIN_S
        if graph is None or not await self._catch_up(model, graph):
            self._not_before = time.monotonic() + _AGAIN_S
            return
        self._ready = (model, graph)
        _log.info(
            "index of %d items", len(graph), extra={"event": "index", "seconds": round(time.monotonic() - began, 3)}
        )

    async def _catch_up(self, model: LiveModel, graph: ItemGraph) -> bool:
        """Bring in what changed while it was built, so that a shop that always changes something has a graph too.

        In a thread, since it may be much; nobody else has the graph yet. False: it does not fit.
        """
        while self._changed:
            codes = _of_graph(graph, self._changed)
            self._changed.clear()
            rows: Floats = model.score_rows[codes]
            if not graph.fits(rows):
                return False
            await asyncio.to_thread(graph.change, codes, rows)
        return True

    def _fail(self, error: StorageError) -> None:
        self._not_before = time.monotonic() + self._again_s
        self._again_s = min(2 * self._again_s, _AGAIN_MOST_S)
        _log.warning("the index of items is not built: %s", error.problem, extra={"event": "index_failed"})


def _of_graph(graph: ItemGraph, codes: Collection[int]) -> list[int]:
    """Those that joined later are added as they are by then."""
    return sorted({code for code in codes if code < len(graph)})
