"""Where items of a list come from: the model, what is like what somebody had, what is trending, popular or new here."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedrec.recommend.diversity import unit
from fedrec.recommend.live_model import Floats, LiveModel
from fedrec_client.serving.people import Person
from fedrec_client.serving.tenant import Tenant

# Latest history items that "similar" goes by.
_LATEST = 3
# A day of age in `latest` is worth this: any, since only the order counts; so that scores are readable.
_DAY_S = 86_400.0


class Sources:
    """Scores of every item by source, `[items]`, -inf for those that it does not have; None where it has none."""

    def __init__(self, tenant: Tenant) -> None:
        self._tenant = tenant
        self._vectors: tuple[LiveModel | None, int, Floats] = (None, 0, np.zeros((0, 1), np.float32))

    def scores(self, source: str, model: LiveModel, person: Person) -> NDArray[np.floating] | None:
        """Of the sources that need no model of the person."""
        n, trends = len(self._tenant.shelf), self._tenant.trends
        match source:
            case "similar":
                return self.alike(model, person.codes[-_LATEST:]) if person.codes else None
            case "trending":
                trending = trends.trending(n)
                if not trending.any():
                    return None
                with np.errstate(divide="ignore"):
                    logs: NDArray[np.floating] = np.log(trending / trending.max())
                return logs  # what nobody chose is not among them
            case "popular":
                return model.prior[:n] + np.log1p(trends.popular(n))
            case "latest":
                return self._tenant.shelf.timestamps() / _DAY_S
        return None

    def alike(self, model: LiveModel, codes: Sequence[int]) -> NDArray[np.floating]:
        """The mean cosine of every item with these."""
        vectors = self.vectors(model)
        likeness: NDArray[np.floating] = vectors @ vectors[list(codes)].mean(0)
        return likeness

    def vectors(self, model: LiveModel) -> Floats:
        """What items are compared by, of length 1: what the public did with them, their text, and training."""
        of, revision, vectors = self._vectors
        if of is not model or revision != model.revision:
            vectors = unit(model.item_rows)
        elif len(vectors) < model.n_items:
            vectors = np.concatenate([vectors, unit(model.item_rows[len(vectors) :])])
        else:
            return vectors
        self._vectors = (model, model.revision, vectors)
        return vectors
