"""One harness for every scorer: full ranking over the items a user has not seen, under a named protocol.

The protocol names how the splits were made (`fedrec/data/splits.py`, `split_by`): `B` leave-one-out by time,
`A` random 8:1:1 per user, `D` random 75:25 by item, `split721` 7:2:1 by time, `global-time` one cut in time for all.
Models are trained on training items only; at the test, validation items are known to them as history.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, get_args
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from fedrec.config import ProtocolName
from fedrec.data.splits import EvaluationSplit
from fedrec.errors import ConfigError, DataError, ModelError
from fedrec.evaluation.metrics import (
    EXPOSED,
    METRICS,
    MetricSums,
    UserMetrics,
    metric_table,
    pad_ranks,
    target_ranks,
    top_items,
)

Which = Literal["validation", "test"]
PROTOCOLS: tuple[str, ...] = get_args(ProtocolName)
BATCH_USERS = 128

Items = NDArray[np.int32]
Scores = NDArray[np.floating]


class Scorer(Protocol):
    """Anything that gives every item of the catalogue a score after a history."""

    def score(self, histories: Sequence[Items]) -> Scores:
        """Scores for the next item: float32 `[users, items]`, finite, higher is better; oldest first."""
        ...


@dataclass(frozen=True)
class Report:
    """An evaluation in figures, without any single user's.

    Attributes:
        protocol: how users' items were split, and `-sampledN` if ranked among N sampled items only.
        which: the part that was to be found.
        n_users: users evaluated.
        n_skipped: users with nothing to be found.
        n_cold: evaluated users of whom nothing was known: all of them get what an empty history gets.
        means: mean over users by metric, `{"hr@10": ...}`.
        coverage_at_10: share of the catalogue in anybody's first ten.
        novelty_at_10: bits.
    Privacy: exact figures on private rows; they leave a partner only charged, or public by declaration.
    """

    protocol: str
    which: Which
    n_users: int
    n_skipped: int
    means: Mapping[str, float]
    coverage_at_10: float
    novelty_at_10: float
    n_cold: int = 0

    def __post_init__(self) -> None:
        if self.protocol.partition("-sampled")[0] not in PROTOCOLS:
            raise ConfigError(f"unknown protocol {self.protocol!r}", f"name one of {', '.join(PROTOCOLS)}")

    @classmethod
    def of(
        cls,
        sums: MetricSums,
        popularity: NDArray[np.number],
        *,
        protocol: str,
        which: Which,
        n_skipped: int,
        n_cold: int = 0,
    ) -> "Report":
        """The figures of sums, which may be pooled over partners: averages are never averaged."""
        means, coverage, novelty = sums.means(), sums.coverage(), sums.novelty(popularity)
        return cls(protocol, which, sums.n_users, n_skipped, means, coverage, novelty, n_cold)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "protocol": self.protocol,
            "which": self.which,
            "users": self.n_users,
            "skipped_users": self.n_skipped,
            "cold_users": self.n_cold,
            "means": dict(self.means),
            f"coverage@{EXPOSED}": self.coverage_at_10,
            f"novelty@{EXPOSED}": self.novelty_at_10,
        }


def evaluate(
    scorer: Scorer,
    splits: Sequence[EvaluationSplit],
    which: Which,
    *,
    protocol: str,
    n_items: int,
    tie_seed: int,
    popularity: NDArray[np.number],
    sampled_negatives: int | None = None,
) -> Report:
    """Evaluate a scorer on every user that has something to be found; the others are skipped and counted.

    Args:
        scorer: sees each user's history: training items, and for the test the validation items too.
        splits: one a user, private.
        which: the part to be found.
        protocol: one of `PROTOCOLS`, names the split.
        n_items: size of the catalogue.
        tie_seed: breaks ties between equal scores, per user, whatever the order or batching of users; >= 0.
        popularity: `[items]`, users per item in training, for novelty@10 only.
        sampled_negatives: rank among so many sampled items instead of all. Only to show leaks and to retrace
            papers: such figures mislead (Krichene and Rendle 2020, doi:10.1145/3394486.3403226).
    Raises:
        ModelError: scores of wrong shape or kind, or not finite.
        DataError: nobody to evaluate, or item codes outside the catalogue.
        ConfigError: unknown protocol.
    """
    users = evaluate_users(
        scorer, splits, which, n_items=n_items, tie_seed=tie_seed, sampled_negatives=sampled_negatives
    )
    name = protocol if sampled_negatives is None else f"{protocol}-sampled{sampled_negatives}"
    n_skipped, n_cold = len(splits) - len(users.positions), cold_users(splits, which)
    return Report.of(users.sums(), popularity, protocol=name, which=which, n_skipped=n_skipped, n_cold=n_cold)


def cold_users(splits: Sequence[EvaluationSplit], which: Which) -> int:
    """How many users have something to be found though nothing is known of them."""
    return sum(len(getattr(split, which)) > 0 and len(split.history(which)) == 0 for split in splits)


def evaluate_users(
    scorer: Scorer,
    splits: Sequence[EvaluationSplit],
    which: Which,
    *,
    n_items: int,
    tie_seed: int,
    sampled_negatives: int | None = None,
) -> UserMetrics:
    """`evaluate`, kept per user. Private: `.sums()` is what may be pooled."""
    questions = list(_questions(splits, which, n_items))
    exposure = np.zeros(n_items, np.int64)
    tables = [np.zeros((0, len(METRICS)))]
    for start in range(0, len(questions), BATCH_USERS):
        batch = questions[start : start + BATCH_USERS]
        ranks = []
        for question, row in zip(batch, _checked_scores(scorer, batch, n_items), strict=True):
            keys = _user_generator(tie_seed, question.user).random(n_items)
            row[question.history] = -np.inf
            if sampled_negatives is not None:
                row[question.left_out(n_items, sampled_negatives, tie_seed)] = -np.inf
            ranks.append(target_ranks(row, question.targets, keys))
            exposure[top_items(row, EXPOSED, keys)] += 1
        tables.append(metric_table(pad_ranks(ranks)))
    positions = np.array([question.position for question in questions], np.int64)
    return UserMetrics(positions, np.concatenate(tables), exposure)


@dataclass(frozen=True)
class _Question:
    """What is asked about one user: which of the unseen items come next?"""

    position: int
    user: str = field(repr=False)
    history: Items = field(repr=False)
    targets: Items = field(repr=False)

    def left_out(self, n_items: int, n_negatives: int, seed: int) -> NDArray[np.bool_]:
        """Mask of the items that are neither a target nor among the sampled candidates."""
        known = np.concatenate([self.history, self.targets])
        generator = _user_generator(seed, self.user, purpose=1)
        mask = np.ones(n_items, np.bool_)
        mask[sample_negatives(known, n_items, n_negatives, generator)] = False
        mask[self.targets] = False
        return mask


def _questions(splits: Sequence[EvaluationSplit], which: Which, n_items: int) -> Iterator[_Question]:
    if which not in ("validation", "test"):
        raise ConfigError(f"cannot evaluate {which!r}", "name validation or test")
    for position, split in enumerate(splits):
        history = split.history(which)
        wanted = split.validation if which == "validation" else split.test
        # Full ranking is over unseen items, so what the user already had cannot be asked for again.
        targets = np.setdiff1d(wanted, history)
        for codes in (history, targets):
            if codes.size and (codes.min() < 0 or codes.max() >= n_items):
                raise DataError(f"an item code lies outside the catalogue of {n_items} items", "use one catalogue")
        if targets.size:
            yield _Question(position, split.user, history, targets)


def _checked_scores(scorer: Scorer, batch: Sequence[_Question], n_items: int) -> Scores:
    """The scorer's answer as an array that may be written to."""
    scores = np.array(scorer.score([question.history for question in batch]))
    name = type(scorer).__name__
    if scores.shape != (len(batch), n_items) or not np.issubdtype(scores.dtype, np.floating):
        raise ModelError(
            f"{name} scored {scores.dtype} {list(scores.shape)}, not float32 {[len(batch), n_items]}",
            "return one row per history and one column per catalogue item",
        )
    if not np.isfinite(scores).all():
        raise ModelError(f"{name} gave scores that are NaN or infinite", "look for overflow or a diverged adapter")
    return scores


def _user_generator(seed: int, user: str, purpose: int = 0) -> np.random.Generator:
    """Randomness of one user's own, so that neither order nor batching of users changes a figure."""
    return np.random.default_rng([seed, crc32(user.encode()), purpose])


def sample_negatives(
    known: NDArray[np.integer], n_items: int, count: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Draw up to `count` distinct items, uniformly from those outside `known` (private)."""
    pool = np.setdiff1d(np.arange(n_items), known)
    return generator.choice(pool, size=min(count, pool.size), replace=False).astype(np.int64)


def training_negatives(
    splits: Sequence[EvaluationSplit], n_items: int, per_user: int, seed: int
) -> list[NDArray[np.int64]]:
    """Negatives to train on, drawn as a recommender in use must draw them: knowing the training items only.

    A sampler that also avoids the test item tells the model which item that is; `leak_hit_rate` shows it.
    """
    return [
        sample_negatives(split.train, n_items, per_user, _user_generator(seed, split.user, purpose=2))
        for split in splits
    ]


@dataclass(frozen=True)
class NegativeMemory:
    """The leak probe: a scorer that has learnt only which items were this user's training negatives."""

    n_items: int
    negatives: Mapping[bytes, NDArray[np.int64]] = field(repr=False)

    def score(self, histories: Sequence[Items]) -> Scores:
        """0, and -1 for a training negative of the user with this history."""
        scores = np.zeros((len(histories), self.n_items), np.float32)
        for row, history in zip(scores, histories, strict=True):
            row[self.negatives[history.tobytes()]] = -1.0
        return scores


def leak_hit_rate(
    splits: Sequence[EvaluationSplit],
    which: Which,
    negatives: Sequence[NDArray[np.int64]],
    *,
    n_items: int,
    seed: int,
) -> float:
    """HR@10 among 99 sampled items for a scorer that knows the training negatives and nothing else.

    Args:
        negatives: each split's training negatives, item codes.
    Returns: near .10 (10 of 100, by chance) if they were drawn honestly; 1.0 where they give the target away. Whoever
        has several targets is asked for one of them, drawn by the seed: the best of many would beat chance.
    """
    by_history = {s.history(which).tobytes(): own for s, own in zip(splits, negatives, strict=True)}
    probe = NegativeMemory(n_items, by_history)
    asked = [_with_one_target(split, which, seed) for split in splits]
    users = evaluate_users(probe, asked, which, n_items=n_items, tie_seed=seed, sampled_negatives=99)
    return users.sums().means()["hr@10"]


def _with_one_target(split: EvaluationSplit, which: Which, seed: int) -> EvaluationSplit:
    targets = np.setdiff1d(getattr(split, which), split.history(which))
    if len(targets) < 2:
        return split
    one = _user_generator(seed, split.user, purpose=3).choice(targets, 1)
    # What is asked for is no part of the history, so the split stays as it is but for that.
    return replace(split, test=one) if which == "test" else replace(split, validation=one, before_test=None)
