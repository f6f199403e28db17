"""Requests in words to one tenant: read beside the event loop, and held against its items' categories and years."""

import asyncio
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import ConfigError
from fedrec.query.query_model import QueryModel
from fedrec.query.rule import CatalogFacts
from fedrec.query.understood import Understood
from fedrec.recommend.shelf import Item
from fedrec_client.serving.tenant import Tenant


@dataclass(frozen=True, repr=False)
class Worded:
    """A request in words as it was understood, and what it makes of each item.

    Attributes:
        scores: nats by code, `[items]`, to be added to the model's; -inf for titles that others should be like.
    """

    understood: Understood
    scores: NDArray[np.float64]


class Wording:
    """See the module.

    Args:
        model: None where no reader of requests was taught.
    """

    def __init__(self, tenant: Tenant, model: QueryModel | None) -> None:
        self._tenant, self._model = tenant, model

    @property
    def is_there(self) -> bool:
        """Whether requests in words can be answered."""
        return self._model is not None

    async def read(self, words: str) -> Understood:
        """Read a request: a pass of the language model, some dozen milliseconds in a thread, unless it came before.

        Raises: ConfigError: nobody taught a reader of requests.
        """
        if self._model is None:
            raise ConfigError("no reader of requests in words was taught", "teach one with `fedrec query train`")
        return await asyncio.to_thread(self._model.understand, words)

    def worded(self, understood: Understood) -> Worded:
        """What `read` gave, over the items that are there now."""
        assert self._model is not None
        return Worded(understood, self._model.scores(understood, self._attributes(self._model)))

    def _attributes(self, model: QueryModel) -> NDArray[np.float32]:
        """Of all items by code, made anew when items change."""
        shelf, space = self._tenant.shelf, model.space

        def made() -> NDArray[np.float32]:
            items = [shelf.item(code) for code in range(len(shelf))]
            categories, years = [item.categories for item in items], [_year(item) for item in items]
            return space.of_items(CatalogFacts.named(space.categories, categories, years))

        return shelf.derive(f"attributes {model.key}", made)

    def in_words(self, understood: Understood) -> str:
        """What was understood, for who asked.

        >>> Wording.in_words(None, Understood(np.zeros(1), ("Thriller",), ("Horror",), 1990, 1999, (), ()))
        'Thriller, not Horror, 1990 to 1999'
        """
        parts = [*understood.wanted, *(f"not {name}" for name in understood.unwanted)]
        first, last = understood.first_year, understood.last_year
        if first is not None and last is not None:
            parts.append(f"{first} to {last}" if first != last else str(first))
        elif first is not None or last is not None:
            parts.append(f"from {first} on" if first is not None else f"up to {last}")
        for word, codes in (("like", understood.like), ("the title", understood.named)):
            parts += [f"{word} {self._tenant.shelf.item(code).title}" for code in codes]
        return ", ".join(parts)


def _year(item: Item) -> int | None:
    year = item.fields.get("year")
    return year if isinstance(year, int) and not isinstance(year, bool) else None
