"""Items whose text means something like a question, by the features that the model reads them by."""

import asyncio
from collections import OrderedDict

import numpy as np

from fedrec.recommend.diversity import unit
from fedrec.recommend.live_model import Floats, LiveModel
from fedrec.recommend.shelf import Item
from fedrec_client.serving.tenant import Tenant

_MOST_KEPT = 256


class Meaning:
    """Of one tenant. A question costs a pass of the language model, some dozen milliseconds: one at a time."""

    def __init__(self, tenant: Tenant) -> None:
        self._tenant = tenant
        self._one = asyncio.Lock()
        self._kept: OrderedDict[str, Floats] = OrderedDict()
        self._rows: tuple[LiveModel | None, int, Floats] = (None, 0, np.zeros((0, 1), np.float32))

    async def find(self, question: str, n: int) -> list[Item]:
        """The nearest that may be shown, best first."""
        model = self._tenant.engine.model
        rows = self._unit_rows(model)
        asked = await self._features(question) - model.texts.mean(0)
        shelf = self._tenant.shelf
        open_rows = np.flatnonzero(shelf.recommendable()[: len(rows)])
        likeness = rows[open_rows] @ asked
        return [shelf.item(int(open_rows[place])) for place in np.argsort(-likeness, kind="stable")[:n]]

    def _unit_rows(self, model: LiveModel) -> Floats:
        """Of each item, less the mean, of length 1."""
        of, size, rows = self._rows
        if of is not model or size != model.n_items:
            rows = unit(model.texts - model.texts.mean(0))
            self._rows = (model, model.n_items, rows)
        return rows

    async def _features(self, question: str) -> Floats:
        async with self._one:
            found = self._kept.get(question)
            if found is None:
                found = self._kept[question] = (await self._tenant.engine.encode([question]))[0]
            self._kept.move_to_end(question)
            if len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
            return found
