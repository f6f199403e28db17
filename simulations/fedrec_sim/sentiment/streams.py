"""Streams of held-out reviews whose negative share jumps at a known text, and how soon and how often it is told."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from river.drift import ADWIN

from fedrec.sentiment.change import RiseSettings, RiseWatch, threshold_for

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class StreamShape:
    """A made jump in a stream of real texts.

    Attributes:
        before, after: texts before and after the jump.
        base, raised: true shares of negative texts before and after it.
    """

    before: int = 1000
    after: int = 300
    base: float = 0.3
    raised: float = 0.6


class Detector(Protocol):
    """Tells after each text whether the negative share has risen."""

    def take(self, is_yes: bool) -> bool:
        """The next text."""


class Cusum:
    """What the monitor uses."""

    def __init__(self, settings: RiseSettings, threshold: float) -> None:
        self._watch = RiseWatch(settings, threshold)

    def take(self, is_yes: bool) -> bool:
        """See `Detector`."""
        return self._watch.take(is_yes) > 0


class ShareOfWindow:
    """The plain way: an alarm when the share of the latest `texts` is `bound` or more; then the window begins anew."""

    def __init__(self, texts: int, bound: float) -> None:
        self._texts, self._bound = texts, bound
        self._latest: list[bool] = []

    def take(self, is_yes: bool) -> bool:
        """See `Detector`."""
        self._latest = [*self._latest, is_yes][-self._texts :]
        if len(self._latest) < self._texts or sum(self._latest) < self._bound * self._texts:
            return False
        self._latest = []
        return True


class Adaptive:
    """River's ADWIN, of which a rise alone counts."""

    def __init__(self, delta: float) -> None:
        self._adwin = ADWIN(delta=delta)

    def take(self, is_yes: bool) -> bool:
        """See `Detector`."""
        before = self._adwin.estimation
        self._adwin.update(float(is_yes))
        return bool(self._adwin.drift_detected and self._adwin.estimation > before)


def streams(
    shape: StreamShape, truth: Bools, said: Bools, pool: NDArray[np.int64], seeds: Sequence[int]
) -> Iterator[Bools]:
    """What a head says of each text of a stream, drawn with replacement by the texts' true sentiment.

    Args:
        truth, said: whether each review is negative, and whether the head says so.
        pool: places of the reviews that may be drawn.
    """
    kinds = [pool[~truth[pool]], pool[truth[pool]]]
    for seed in seeds:
        rng = np.random.default_rng(seed)
        shares = np.repeat([shape.base, shape.raised], [shape.before, shape.after])
        wanted = rng.random(len(shares)) < shares
        drawn = np.where(wanted, rng.choice(kinds[1], len(shares)), rng.choice(kinds[0], len(shares)))
        yield said[drawn]


def measure(make: Callable[[], Detector], some: Sequence[Bools], shape: StreamShape, window: int) -> dict[str, Any]:
    """Delay of the first alarm after the jump; alarms before it are false.

    Returns: `delay_texts` as median and 90th percentile of the streams in which it was found.
    """
    delays, false = [], 0
    for stream in some:
        detector = make()
        alarms = [at for at, is_yes in enumerate(stream.tolist()) if detector.take(is_yes)]
        false += sum(at < shape.before for at in alarms)
        delays += [at - shape.before + 1 for at in alarms if at >= shape.before][:1]
    texts = shape.before * len(some)
    median, slow = (float(np.quantile(delays, q)) if delays else float("nan") for q in (0.5, 0.9))
    return {
        "streams": len(some),
        "delay_texts": {"median": median, "p90": slow, "mean": round(float(np.mean(delays)), 2) if delays else None},
        "delay_windows": {"median": round(median / window, 2), "p90": round(slow / window, 2)},
        "false_alarms": false,
        "false_alarms_per_1000": round(1000 * false / texts, 3),
        "missed": len(some) - len(delays),
    }


def candidates(base: float, raised: float) -> dict[str, dict[str, Callable[[], Detector]]]:
    """Ways to look, each with the settings that validation chooses from.

    Args:
        base, raised: shares of texts that the head calls negative before and after such a jump, by validation.
    """
    found: dict[str, dict[str, Callable[[], Detector]]] = {"cusum": {}, "share_of_window": {}, "adwin": {}}
    for rate in (0.1, 0.2, 0.5, 1.0):
        settings = RiseSettings(round(base, 4), round(raised, 4), rate)
        threshold = threshold_for(settings)
        found["cusum"][f"false_per_1000={rate:g}"] = _cusum(settings, threshold)
    for texts in (20, 30, 50, 100):
        for bound in (0.5, 0.55, 0.6, 0.65, 0.7):
            found["share_of_window"][f"texts={texts} bound={bound:g}"] = _window(texts, bound)
    for delta in (0.3, 0.1, 0.01, 0.002):
        found["adwin"][f"delta={delta:g}"] = _adaptive(delta)
    return found


def _cusum(settings: RiseSettings, threshold: float) -> Callable[[], Detector]:
    return lambda: Cusum(settings, threshold)


def _window(texts: int, bound: float) -> Callable[[], Detector]:
    return lambda: ShareOfWindow(texts, bound)


def _adaptive(delta: float) -> Callable[[], Detector]:
    return lambda: Adaptive(delta)


def choose(measured: dict[str, dict[str, Any]], most_false: float) -> str:
    """The quickest of those with few enough false alarms on validation, missing nothing more than others do; where
    none has so few, that with the fewest."""
    allowed = {k: v for k, v in measured.items() if v["false_alarms_per_1000"] <= most_false and v["streams"]}
    if not allowed:
        return min(measured, key=lambda k: (measured[k]["false_alarms_per_1000"], measured[k]["missed"]))
    return min(allowed, key=lambda k: (allowed[k]["missed"], allowed[k]["delay_texts"]["mean"] or float("inf")))


def shape_of(shape: StreamShape) -> dict[str, Any]:
    """For JSON."""
    return asdict(shape)
