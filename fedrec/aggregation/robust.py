"""Aggregators that a few hostile partners cannot move far, whatever they send. For `inspect` mode: they look at each.

All of them hold every answer of a round until the last is there: as much memory as answers times the size of an
adapter difference, and 3.6 times that while geometric median, multi-Krum and norm clipping combine them in float64.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedrec.aggregation.mean import Aggregator, PartnerUpdate, UniformMean, add_all, update_problems
from fedrec.defence import Defence, least_answers
from fedrec.errors import ConfigError, ProtocolError
from fedrec.model.adapter import AdapterDelta, Shape

Rows = Sequence[NDArray[np.float32]] | NDArray[np.float32]
"""One answer a row, all its numbers one after the other, `[answers, numbers]`; rows in the order of names."""
Row = NDArray[np.float64]

# Columns that are sorted at a time, in float64.
_COLUMNS = 1 << 16
# Distances below this share of the median one count as equal to it: Weiszfeld's steps divide by them.
_SMOOTHING = 1e-6
_MOST_STEPS = 200
_STILL = 1e-9


def aggregator_of(defence: Defence) -> Aggregator:
    """The aggregator that a configuration chooses; whether it fits the rounds is `Defence.problems`."""
    return UniformMean() if defence.aggregator == "mean" else RobustAggregator(defence)


@dataclass(frozen=True)
class RobustAggregator:
    """One of the robust aggregators, by name.

    Args:
        defence: any but the mean; `hostile` of it answers may be anything at all.
    Raises: ConfigError: the mean, which holds nothing and bears nobody.

    >>> answers = [PartnerUpdate(p, AdapterDelta({"w": np.full(1, x, np.float32)})) for p, x in zip("abc", (1, 2, 9))]
    >>> RobustAggregator(Defence(aggregator="median", hostile=1)).aggregate(answers).tensors["w"].tolist()
    [2.0]
    """

    defence: Defence

    def __post_init__(self) -> None:
        if self.defence.aggregator == "mean":
            raise ConfigError("the mean is no robust aggregator", "use UniformMean")

    @property
    def least_answers(self) -> int:
        """See `Aggregator`."""
        return least_answers(self.defence.aggregator, self.defence.hostile)

    def running(self) -> "HeldUpdates":
        """See `Aggregator`."""
        return HeldUpdates(self)

    def aggregate(self, updates: Sequence[PartnerUpdate]) -> AdapterDelta:
        """See `Aggregator`."""
        return add_all(HeldUpdates(self), updates)

    def combine(self, rows: Rows) -> Row:
        """One row of at least `least_answers`."""
        hostile = self.defence.hostile
        match self.defence.aggregator:
            case "median":
                return coordinate_median(rows)
            case "trimmed-mean":
                return trimmed_mean(rows, hostile)
            case "geometric-median":
                return geometric_median(rows)
            case "multi-krum":
                return multi_krum(rows, hostile)
            case "norm-clipping":
                return norm_clipped_mean(rows, self.defence.clip_norm)
            case "mean":  # refused when this was made
                raise AssertionError


def coordinate_median(rows: Rows) -> Row:
    """The median of each number; of an even number of answers the mean of the middle two.

    Reference: Yin et al. 2018, arXiv:1803.01498, Definition 1.
    """
    return _by_columns(rows, lambda columns: np.asarray(np.median(columns, axis=0)))


def trimmed_mean(rows: Rows, hostile: int) -> Row:
    """The mean of each number without the `hostile` largest and as many smallest.

    Reference: Yin et al. 2018, arXiv:1803.01498, Definition 2.
    """
    kept = slice(hostile, len(rows) - hostile)
    return _by_columns(rows, lambda columns: np.sort(columns, axis=0)[kept].mean(0))


def geometric_median(rows: Rows) -> Row:
    """The point with the least sum of distances to all answers, by smoothed Weiszfeld steps from the median.

    Reference: RFA, Pillutla et al. 2022, arXiv:1912.13445, Algorithm 2; here the smoothing is relative to the median
    distance, and steps end when none moves further than a billionth of that.
    """
    exact, point = _exact(rows), coordinate_median(rows)
    scale = float(np.median(_distances(exact, point)))
    for _ in range(_MOST_STEPS if scale else 0):  # at 0 most answers are this very point
        weights = 1 / np.maximum(_distances(exact, point), _SMOOTHING * scale)
        before, point = point, (weights / weights.sum()) @ exact
        if np.linalg.norm(point - before) <= _STILL * scale:
            break
    return point


def multi_krum(rows: Rows, hostile: int) -> Row:
    """The mean of the answers that stand nearest to others, all but `hostile` of them.

    Of equal scores the earlier name's counts as the lower.

    Reference: Blanchard et al. 2017, "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent",
    section 4, with m = n - hostile.
    """
    exact, chosen = _exact(rows), np.zeros(len(rows), bool)
    chosen[np.argsort(krum_scores(exact, hostile), kind="stable")[: len(rows) - hostile]] = True
    return np.asarray(exact.mean(0, where=chosen[:, None]))


def krum_scores(rows: NDArray[np.float64], hostile: int) -> Row:
    """Each row's sum of squared distances to the n - hostile - 2 others nearest to it: low in the midst of a crowd."""
    nearest = len(rows) - hostile - 2
    scores = np.empty(len(rows))
    for place, row in enumerate(rows):
        others = np.delete(np.square(_distances(rows, row)), place)
        scores[place] = np.sort(others)[:nearest].sum()
    return scores


def norm_clipped_mean(rows: Rows, clip_norm: float) -> Row:
    """The mean of the answers, each scaled down to an L2 norm that is public or that of the median answer.

    Args:
        clip_norm: over all tensors together; 0: the median of the round's norms. With noise, whose norm the privacy
            plan tells, the two hardly differ, and the median needs no figure for each part of the adapter.
    Reference: Sun et al. 2019, arXiv:1911.07963, section 4, without their noise.
    """
    exact = _exact(rows)
    norms = _distances(exact, np.zeros(exact.shape[1]))
    bound = clip_norm or float(np.median(norms))
    exact *= np.divide(bound, norms, out=np.ones_like(norms), where=norms > bound)[:, None]
    return np.asarray(exact.mean(0))


class HeldUpdates:
    """Takes updates one by one and holds all of them until the result is asked for."""

    def __init__(self, aggregator: RobustAggregator) -> None:
        self._aggregator = aggregator
        self._rows: list[NDArray[np.float32]] = []
        self._shapes: dict[str, Shape] = {}
        self._last = ""

    def problems(self, update: PartnerUpdate) -> list[str]:
        """See `Running`."""
        return update_problems(update, self._shapes, self._last)

    def add(self, update: PartnerUpdate) -> None:
        """See `Running`."""
        if problems := self.problems(update):
            raise ProtocolError.of_all(problems, "check replies before they are aggregated", "aggregation")
        tensors = update.adapter_delta.tensors
        self._shapes = self._shapes or {name: tensor.shape for name, tensor in tensors.items()}
        self._rows.append(np.concatenate([tensor.ravel() for tensor in tensors.values()]))
        self._last = update.partner

    def result(self) -> AdapterDelta:
        """See `Running`."""
        defence, least, there = self._aggregator.defence, self._aggregator.least_answers, len(self._rows)
        if not there:
            raise ProtocolError("no updates to aggregate", "a round needs its quorum")
        if there < least:
            says = f"{defence.aggregator} with {defence.hostile} hostile needs {least} answers"
            raise ProtocolError(f"{says}, there are {there}", "raise the quorum, or assume fewer hostile")
        whole = (self._aggregator.combine(self._rows) + 0.0).astype(np.float32)  # no -0.0, as in a sum
        ends = np.cumsum([int(np.prod(shape)) for shape in self._shapes.values()])
        pieces = zip(self._shapes.items(), np.split(whole, ends[:-1]), strict=True)
        return AdapterDelta({name: piece.reshape(shape) for (name, shape), piece in pieces})


def _by_columns(rows: Rows, combine: Callable[[NDArray[np.float64]], Row]) -> Row:
    """What treats each number alone, in pieces, so that little is held in float64."""
    starts = range(0, len(rows[0]), _COLUMNS)
    return np.concatenate([combine(_exact([row[start : start + _COLUMNS] for row in rows])) for start in starts])


def _exact(rows: Rows) -> NDArray[np.float64]:
    return np.array(rows, dtype=np.float64)


def _distances(rows: NDArray[np.float64], point: Row) -> Row:
    """Of each row; one after the other, so that no second copy of all of them is made."""
    return np.array([np.linalg.norm(row - point) for row in rows])
