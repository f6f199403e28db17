"""What another policy would have earned, from the rows that a logging policy left with its probabilities.

Every estimator here is `mean(base) + sum(numerator) / sum(denominator)` over rows, so that an interval is the same
resampling of rows for all of them, and differences between estimators are paired.

    estimator    base    numerator             denominator
    naive        0       r                     1            what the log earned, whoever chose
    ips          0       w r                   1            unbiased; w = target probability / logged probability
    snips        0       w r                   w            bias of order 1/n, no harm from a mean weight other than 1
    clipped      0       min(w, c) r           min(w, c)    less variance for some bias; c chosen without the truth
    dm           t       0                     1            t = expected prediction under the target policy
    dr           t       w (r - q)             1            right if either the weights or the predictions q are
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import ConfigError, DataError

Floats = NDArray[np.float64]
Estimator = Literal["naive", "ips", "snips", "clipped", "dm", "dr"]
ESTIMATORS: tuple[Estimator, ...] = get_args(Estimator)
CLIPS = (np.inf, 100.0, 50.0, 20.0, 10.0, 5.0, 2.0, 1.0)
LEAST_EFFECTIVE_ROWS = 100.0
LEAST_EFFECTIVE_REWARDS = 10.0
_CHUNK_CELLS = 20_000_000


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the estimators read, by row. Private if the log is.

    Attributes:
        rewards: float64 `[rows]`, within [0, 1].
        target: float64 `[rows]`, probability of the logged item under the policy to be judged.
        logged: float64 `[rows]`, the log's own propensity, in (0, 1].
        predicted: float64 `[rows]`, a model's reward for the logged item; it must not have seen the row.
        expected: float64 `[rows]`, the model's mean reward over the items as the policy to be judged draws them.
    Raises: DataError: unequal lengths, or rows that cannot be; all at once.
    """

    rewards: Floats = field(repr=False)
    target: Floats = field(repr=False)
    logged: Floats = field(repr=False)
    predicted: Floats = field(repr=False)
    expected: Floats = field(repr=False)

    def __post_init__(self) -> None:
        columns = (self.rewards, self.target, self.logged, self.predicted, self.expected)
        if {column.shape for column in columns} != {(len(self.rewards),)} or not len(self.rewards):
            raise DataError("evidence: columns of unequal length, or no rows", "give one value a row")
        problems = {
            "rewards outside [0, 1]": (self.rewards < 0) | (self.rewards > 1),
            "target probabilities outside [0, 1]": (self.target < 0) | (self.target > 1),
            "logged propensities that are not above 0 and at most 1": ~((self.logged > 0) & (self.logged <= 1)),
            "values that are not finite": ~np.isfinite(np.stack(columns)).all(axis=0),
        }
        found = [f"{reason}: {mask.sum()} rows" for reason, mask in problems.items() if mask.any()]
        if found:
            raise DataError.of_all(found, "a policy that never shows an item cannot have logged it", "evidence")

    @property
    def weights(self) -> Floats:
        """Importance weights `[rows]`: their mean is 1 if the propensities are right and every item could be shown."""
        return self.target / self.logged


@dataclass(frozen=True)
class Terms:
    """An estimator's rows: its value is `mean(base) + sum(numerator) / sum(denominator)`."""

    base: Floats = field(repr=False)
    numerator: Floats = field(repr=False)
    denominator: Floats = field(repr=False)

    def value(self) -> float:
        """The estimate."""
        total = self.denominator.sum()
        return float(self.base.mean() + (self.numerator.sum() / total if total > 0 else np.nan))

    def standard_error(self) -> float:
        """Of the value, to first order in the rows: quick where rows cannot be drawn anew a thousand times."""
        total, n = self.denominator.sum(), len(self.base)
        if total <= 0:
            return float("nan")
        ratio = self.numerator.sum() / total
        moves = (self.base - self.base.mean()) / n + (self.numerator - ratio * self.denominator) / total
        return float(np.sqrt((moves**2).sum()))


@dataclass(frozen=True)
class Estimate:
    """An estimate with what it rests on.

    Attributes:
        low, high: percentile interval over resampled rows.
        effective_rows: Kish's effective sample size of the weights that the estimator uses.
        effective_rewards: the same over rows with a reward: what a rate of rare clicks really rests on.
        doubts: why not to rely on it, in words; empty if nothing speaks against it.
    """

    value: float
    low: float
    high: float
    effective_rows: float
    effective_rewards: float
    doubts: tuple[str, ...] = ()


def terms_of(estimator: Estimator, evidence: Evidence, clip: float = np.inf) -> Terms:
    """The rows of one estimator.

    Args:
        clip: of `clipped` alone, > 0.
    Raises: ConfigError: unknown estimator, or a clip that is not above 0.
    Reference: Horvitz and Thompson 1952; Swaminathan and Joachims 2015 (snips), doi:10.5555/2969442.2969600; Dudik et
        al. 2011 (dr), arXiv:1103.4601.
    """
    if not clip > 0:
        raise ConfigError(f"weights cannot be clipped at {clip}", "name a number above 0")
    r, w, ones, zeros = (
        evidence.rewards,
        evidence.weights,
        np.ones(len(evidence.rewards)),
        np.zeros(len(evidence.rewards)),
    )
    match estimator:
        case "naive":
            return Terms(zeros, r, ones)
        case "ips":
            return Terms(zeros, w * r, ones)
        case "snips":
            return Terms(zeros, w * r, w)
        case "clipped":
            clipped = np.minimum(w, clip)
            return Terms(zeros, clipped * r, clipped)
        case "dm":
            return Terms(evidence.expected, zeros, ones)
        case "dr":
            return Terms(evidence.expected, w * (r - evidence.predicted), ones)
    raise ConfigError(f"unknown estimator {estimator!r}", f"name one of {', '.join(ESTIMATORS)}")


def effective_size(weights: Floats) -> float:
    """Kish's effective sample size, `(sum w)^2 / sum w^2`: equal weights count all rows, one heavy row counts one.

    >>> effective_size(np.ones(50)), effective_size(np.array([1.0, 0.0, 0.0]))
    (50.0, 1.0)
    """
    squares = float((weights**2).sum())
    return float(weights.sum()) ** 2 / squares if squares > 0 else 0.0


def choose_clip(evidence: Evidence, clips: Sequence[float] = CLIPS) -> float:
    """The lowest clip whose estimate agrees with all higher ones: bias is let in only where noise hides it.

    Args:
        clips: decreasing.
    Returns: one of `clips`. Walking from the least clipped, an interval of two standard errors must share a point with
        all those before it. The truth is not needed.
    Reference: Su et al. 2020 (SLOPE), arXiv:2002.07729.
    """
    if not clips or any(a <= b for a, b in pairwise(clips)):
        raise ConfigError("clips must decrease", f"for example {CLIPS}")
    low, high, chosen = -np.inf, np.inf, clips[0]
    for clip in clips:
        terms = terms_of("clipped", evidence, clip)
        value, error = terms.value(), 2 * terms.standard_error()
        low, high = max(low, value - error), min(high, value + error)
        if low > high:
            break
        chosen = clip
    return chosen


def estimate_all(
    evidence: Evidence, replicates: int, generator: np.random.Generator, *, coverage: float = 0.95
) -> tuple[dict[Estimator, Estimate], dict[Estimator, Floats]]:
    """Every estimator with a percentile interval over the same resamplings of rows.

    Args:
        replicates: how often the rows are drawn anew, with replacement.
    Returns: estimates, and each estimator's replicates `[replicates]`, paired. The clip is chosen once, on the rows
        as they are.
    """
    clip = choose_clip(evidence)
    terms = {name: terms_of(name, evidence, clip) for name in ESTIMATORS}
    drawn = resample(terms, replicates, generator)
    tails = (50 * (1 - coverage), 50 * (1 + coverage))
    estimates = {}
    for name, of in terms.items():
        low, high = (float(x) for x in np.nanpercentile(drawn[name], tails))
        estimates[name] = _described(name, of.value(), low, high, evidence, clip)
    return estimates, drawn


def resample(
    terms: Mapping[Estimator, Terms], replicates: int, generator: np.random.Generator
) -> dict[Estimator, Floats]:
    """Each estimator over the same bootstrap samples of rows, `[replicates]`."""
    n = len(next(iter(terms.values())).base)
    parts: dict[Estimator, list[Floats]] = {name: [] for name in terms}
    step = max(1, _CHUNK_CELLS // n)
    for start in range(0, replicates, step):
        counts = _counts(n, min(step, replicates - start), generator)
        for name, of in terms.items():
            with np.errstate(invalid="ignore", divide="ignore"):
                ratio = (counts @ of.numerator) / (counts @ of.denominator)
            parts[name].append(counts @ of.base / n + ratio)
    return {name: np.concatenate(part) for name, part in parts.items()}


def _counts(n: int, replicates: int, generator: np.random.Generator) -> Floats:
    """How often each row stands in each bootstrap sample: `[replicates, rows]`."""
    draws = generator.integers(n, size=(replicates, n)) + np.arange(replicates)[:, None] * n
    return np.bincount(draws.ravel(), minlength=replicates * n).reshape(replicates, n).astype(np.float64)


def _described(name: Estimator, value: float, low: float, high: float, evidence: Evidence, clip: float) -> Estimate:
    used = _weights_of(name, evidence, clip)
    rows, rewards = effective_size(used), effective_size(used * evidence.rewards)
    doubts = []
    if rows < LEAST_EFFECTIVE_ROWS:
        doubts.append(f"its weights leave {rows:.0f} effective rows of {len(used):,}")
    if rewards < LEAST_EFFECTIVE_REWARDS:
        doubts.append(f"it rests on {rewards:.1f} effective rewards")
    mean = float(evidence.weights.mean())
    if name in ("ips", "dr") and not 0.5 < mean < 2:
        doubts.append(f"its weights have the mean {mean:.2f}, not near 1")
    return Estimate(value, low, high, rows, rewards, tuple(doubts))


def _weights_of(name: Estimator, evidence: Evidence, clip: float) -> Floats:
    match name:
        case "ips" | "snips" | "dr":
            return evidence.weights
        case "clipped":
            return np.minimum(evidence.weights, clip)
        case _:
            return np.ones(len(evidence.rewards))
