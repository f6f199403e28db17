"""The graph index of a tenant's items beside its model: built in a thread, kept on the disk, used once it is whole."""

import asyncio
import logging
import time
from collections.abc import Sequence
from pathlib import Path

from fedrec.recommend.index import GraphIndex
from fedrec.recommend.live_model import Floats, LiveModel

_log = logging.getLogger(__name__)
# Between two tries to build a graph, however often it is asked for.
_AGAIN_S = 30.0


class ItemIndex:
    """Finds candidates among more than `exact_items` items; until it is built, and for fewer, all are scored.

    Args:
        folder: where built graphs are kept.
        exact_items: up to so many no graph is wanted.
    """

    def __init__(self, folder: Path, exact_items: int) -> None:
        self._folder, self._exact_items = folder, exact_items
        self._ready: tuple[LiveModel, GraphIndex] | None = None
        self._building: asyncio.Task[None] | None = None
        self._stale, self._not_before = False, 0.0

    def of(self, model: LiveModel) -> GraphIndex | None:
        """The graph of just this model's items; items that joined are added first."""
        if model.n_items <= self._exact_items:
            return None
        if self._ready is None or self._ready[0] is not model:
            self.want(model)
            return None
        index = self._ready[1]
        if len(index) < model.n_items:
            later: Floats = model.score_rows[len(index) :]
            if not index.fits(later):
                self.want(model)
                return None
            index.add(later)
        return index

    def changed(self, model: LiveModel, codes: Sequence[int]) -> None:
        """Items have other rows. Called in the event loop."""
        if self._ready is None or self._ready[0] is not model:
            if self._building is not None and not self._building.done():
                self._stale = True  # it may have begun with the rows before
            return
        index = self._ready[1]
        there = [code for code in codes if code < len(index)]
        if index.fits(model.score_rows[there]):
            index.change(there, model.score_rows[there])
        else:
            self._ready, self._not_before = None, 0.0
            self.want(model)

    def want(self, model: LiveModel) -> None:
        """Have a graph made for a model, in the background. Called in the event loop."""
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
        index = await asyncio.to_thread(GraphIndex, model.score_rows.copy(), self._folder)
        if self._stale:
            self._stale, self._building, self._not_before = False, None, 0.0
            self.want(model)
            return
        self._ready = (model, index)
        _log.info(
            "index of %d items", len(index), extra={"event": "index", "seconds": round(time.monotonic() - began, 3)}
        )
