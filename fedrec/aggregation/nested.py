"""The mean of partners whose LoRA has different ranks: each direction over those who train it.

Ranks are nested: a partner of rank 2 trains the first two directions of a federation of rank 8, with the others taken
out of its model, so that its difference is zero there. A plain mean would count that zero as a vote against moving.

Reference: Cho et al. 2024, HetLoRA, arXiv:2401.06432, section 3, with counts in place of its weights by norm, which
partners could claim.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fedrec.aggregation.mean import PartnerUpdate, RunningMean, add_all
from fedrec.errors import ConfigError, ProtocolError
from fedrec.model.adapter import AdapterDelta, leading_directions


@dataclass(frozen=True)
class NestedMean:
    """Every partner counts the same in the directions that it trains, and not at all in the others.

    Args:
        ranks: partner -> rank, public, fixed before the run.
    Raises: ConfigError: no ranks, or one below 1.
    Privacy: not for secagg mode: where few partners train a direction, fewer shares of noise would add up.

    >>> low, high = (AdapterDelta({"q.lora_A.weight": np.array(x, np.float32)}) for x in ([[2], [0]], [[4], [6]]))
    >>> mean = NestedMean({"a": 1, "b": 2}).aggregate([PartnerUpdate("a", low), PartnerUpdate("b", high)])
    >>> mean.tensors["q.lora_A.weight"].tolist()
    [[3.0], [6.0]]
    """

    ranks: Mapping[str, int]

    def __post_init__(self) -> None:
        if not self.ranks or min(self.ranks.values()) < 1:
            raise ConfigError("every partner needs a rank of 1 at least", "name one for each partner")

    @property
    def least_answers(self) -> int:
        """See `Aggregator`."""
        return 1

    def running(self) -> "RunningNestedMean":
        """See `Aggregator`."""
        return RunningNestedMean(self.ranks)

    def aggregate(self, updates: Sequence[PartnerUpdate]) -> AdapterDelta:
        """See `Aggregator`. A partner without a rank, or that moves directions beyond its own, is a ProtocolError."""
        return add_all(RunningNestedMean(self.ranks), updates)


@dataclass
class RunningNestedMean:
    """A sum of all, and how many added to each direction."""

    ranks: Mapping[str, int]
    _sum: RunningMean = field(default_factory=lambda: RunningMean(None))
    _answered: list[int] = field(default_factory=list)

    def problems(self, update: PartnerUpdate) -> list[str]:
        """See `Running`."""
        found = self._sum.problems(update)
        rank = self.ranks.get(update.partner)
        if rank is None:
            found.append(f"partner {update.partner}: has no rank")
        elif not found and update.adapter_delta.within_rank(rank).hash != update.adapter_delta.hash:
            found.append(f"partner {update.partner}: moves directions beyond its rank of {rank}")
        return found

    def add(self, update: PartnerUpdate) -> None:
        """See `Running`."""
        if problems := self.problems(update):
            raise ProtocolError.of_all(problems, "check replies before they are aggregated", "aggregation")
        self._sum.add(update)
        self._answered.append(self.ranks[update.partner])

    def result(self) -> AdapterDelta:
        """See `Running`. A direction that nobody trained stays where it is."""
        means = {}
        for name, total in self._sum.totals().items():
            counts = np.zeros(total.shape)
            for rank in self._answered:
                counts[leading_directions(name, rank)] += 1
            means[name] = (total / np.maximum(counts, 1)).astype(np.float32)
        return AdapterDelta(means)
