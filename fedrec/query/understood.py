"""What a request in words was taken to ask for. No torch: it is told by what must start quickly."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Understood:
    """What a request was taken to ask for; shown to who asked, so that they can put it better.

    Attributes:
        weights: `[width]` in the attribute space, nats.
        wanted, unwanted: categories, the most decided first.
        first_year, last_year: a span; None: open.
        like: codes of items that others should be like; they are not answers themselves.
        named: codes of items that are asked for by title; they come first.
    """

    weights: NDArray[np.float32] = field(repr=False)
    wanted: tuple[str, ...]
    unwanted: tuple[str, ...]
    first_year: int | None
    last_year: int | None
    like: tuple[int, ...]
    named: tuple[int, ...]
