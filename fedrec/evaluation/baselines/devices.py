"""Every user a client of the federation: what the federated baselines share.

All devices are computed side by side, as rows of one matrix; no row reads another's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedrec.data.splits import EvaluationSplit
from fedrec.errors import DataError
from fedrec.evaluation.baselines.linear import user_item_matrix
from fedrec.evaluation.protocol import Items


@dataclass(frozen=True, eq=False)
class Devices:
    """The devices' training items, and whose history is whose.

    A device keeps state of its own, so a scorer must know who asks. The harness shows histories, and within one list
    of splits they tell: those before the validation and before the test item lead to their user. Users with the very
    same history are scored by the first one's device. Nobody else can be scored.

    Attributes:
        had: float32 `[users, items]`, 1 for a training item; private.
        places: history, as bytes -> row.
    """

    had: Tensor = field(repr=False)
    places: dict[bytes, int] = field(repr=False)

    @classmethod
    def of(cls, splits: Sequence[EvaluationSplit], n_items: int) -> Self:
        """Raises: DataError: an item code outside the catalogue; nobody."""
        if not splits:
            raise DataError("a federation of no device", "give at least one user")
        matrix = user_item_matrix([split.train for split in splits], n_items)
        places: dict[bytes, int] = {}
        for row, split in enumerate(splits):
            for history in (split.history("validation"), split.history("test")):
                places.setdefault(history.tobytes(), row)
        return cls(torch.from_numpy(matrix.toarray().astype(np.float32)), places)

    def rows(self, histories: Sequence[Items]) -> NDArray[np.int64]:
        """Rows of the users with these histories. Raises DataError: a history of none of them."""
        found = [self.places.get(np.asarray(history, dtype=np.int32).tobytes()) for history in histories]
        if None in found:
            raise DataError("a history that belongs to no device", "ask with a user's own, before validation or test")
        return np.array(found, dtype=np.int64)

    def draw_negatives(self, per_positive: int, random: np.random.Generator) -> Tensor:
        """Mask `[users, items]` of negatives, `per_positive` for each training item, or all there are.

        They are drawn knowing the training items only, as a device in use must: a sampler that also avoids the
        validation or test item tells the model which item that is (`leak_hit_rate` shows it).
        """
        had = self.had.numpy()
        keys = random.random(had.shape, dtype=np.float32) + had  # what the user had comes last
        n_had = had.sum(axis=1).astype(np.int64)
        counts = np.minimum(per_positive * n_had, had.shape[1] - n_had)
        drawn = np.zeros(had.shape, np.bool_)
        for row, own, count in zip(drawn, keys, counts, strict=True):
            if count:
                row[np.argpartition(own, count - 1)[:count]] = True
        return torch.from_numpy(drawn)


def seeded_normal(shape: tuple[int, ...], std: float, random: np.random.Generator) -> Tensor:
    """Normal numbers, float32."""
    return torch.from_numpy((std * random.standard_normal(shape)).astype(np.float32))
