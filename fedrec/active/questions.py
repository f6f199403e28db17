"""Which items to ask somebody about next, so that a few answers say most of what there is to recommend.

Every way reads the public adapter and what this one person has answered, and nobody else's rows: it costs no epsilon.
References: Rashid et al. 2002, "Getting to Know You" (popularity, entropy); Nemhauser et al. 1978 (greedy coverage);
Lindley 1956, doi:10.1214/aoms/1177728069, and Houlsby et al. 2011, arXiv:1112.5745 (expected information).
"""

from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fedrec.recommend.live_model import Floats, LiveModel, UserWindow

Strategy = Literal["random", "popularity", "coverage", "uncertainty", "information", "mixture"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
# What a service asks by; chosen on people who are in no figure, see docs/labels.md.
BEST: Strategy = "information"
Codes = NDArray[np.int64]
Array = NDArray[np.float64]
# Items that are looked at closely: those that somebody is likeliest to know.
_POOL = 400
# Items that answers should tell of: more would take time, and are hardly ever recommended.
_TARGETS = 4000
# So many items a person is thought to like in all, if they like as many as most do.
_LIKED = 30.0
# By tuning people: the square of the divergence, so that a few telling items go before many that change little.
_POWER = 2.0


@dataclass(frozen=True, repr=False)
class Answers:
    """What one person has said so far. Private.

    Attributes:
        vector: the head's, as of what they like; the prior's where they have liked nothing yet.
        window: of what they like; None: nothing yet.
        known: codes that they had to do with, liked or not.
    """

    vector: Floats
    window: UserWindow | None
    known: Codes


def next_questions(
    strategy: Strategy,
    model: LiveModel,
    answers: Answers,
    open_items: NDArray[np.bool_],
    k: int,
    rng: np.random.Generator,
) -> Codes:
    """The k items to ask about, the most telling first; fewer if fewer are open.

    Args:
        open_items: bool `[items]`, what may be asked about: not yet answered, not held back.
        rng: for `random`, and for nothing else.
    Privacy: reads public items, a public adapter, and this person's own answers; nothing leaves.
    """
    candidates = np.flatnonzero(open_items)
    k = min(k, len(candidates))
    if strategy == "random":
        return rng.choice(candidates, k, replace=False).astype(np.int64)
    if strategy == "popularity":
        return candidates[np.argsort(-model.prior[candidates], kind="stable")[:k]]
    beliefs = _Beliefs.of(model, answers)
    pool = candidates[np.argsort(-beliefs.likes[candidates], kind="stable")[:_POOL]]
    likes = beliefs.likes[pool]
    match strategy:
        case "uncertainty":
            return _first(pool, _entropy(likes), k)
        case "information":
            return _first(pool, likes * _surprise(model, answers, beliefs, pool) ** _POWER, k)
        case "coverage":
            return _greedy(model, answers, beliefs, pool, np.zeros(len(pool)), k)
        case "mixture":
            told = likes * _surprise(model, answers, beliefs, pool) ** _POWER
            return _greedy(model, answers, beliefs, pool, told / max(float(told.max(initial=0.0)), 1e-12), k)


@dataclass(frozen=True)
class _Beliefs:
    """What the model thinks of somebody. Private.

    Attributes:
        likes: probability that each item is one that they have liked, `[items]`.
        targets: codes of the items that they turn to likeliest, `[targets]`.
        log_share: of what they turn to next, among those, `[targets]`.
    """

    likes: Array = field(repr=False)
    targets: Codes = field(repr=False)
    log_share: Array = field(repr=False)

    @classmethod
    def of(cls, model: LiveModel, answers: Answers) -> "_Beliefs":
        scores = model.scores(answers.vector[None])
        share = np.exp(_log_softmax(scores)[0])
        targets = np.argsort(-share, kind="stable")[:_TARGETS]
        return cls(-np.expm1(-_LIKED * share), targets, _log_softmax(scores[:, targets])[0])


def _surprise(model: LiveModel, answers: Answers, beliefs: _Beliefs, pool: Codes) -> Array:
    """By how much what is recommended changes if they like an item, in nats: divergence of the next item's shares.

    Times the probability of that answer it is the information that the question is expected to give: an item that they
    do not know leaves all as it is.
    """
    after = _log_softmax(model.with_each(answers.window, pool) @ model.score_rows[beliefs.targets].T)
    return np.asarray((np.exp(after) * (after - beliefs.log_share)).sum(1))


def _greedy(model: LiveModel, answers: Answers, beliefs: _Beliefs, pool: Codes, extra: Array, k: int) -> Codes:
    """One after the other, by the share of what may be recommended that an answer would be alike to, and `extra`."""
    wanted = _unit(model.item_rows[beliefs.targets]).T
    weights = np.exp(beliefs.log_share)
    alike = np.maximum(_unit(model.item_rows[pool]) @ wanted, 0.0)
    covered = np.maximum(_unit(model.item_rows[answers.known]) @ wanted, 0.0).max(0, initial=0.0)
    likes, chosen = beliefs.likes[pool], list[int]()
    scale = 0.0
    for _ in range(k):
        gains = likes * (np.maximum(alike - covered, 0.0) @ weights)
        scale = scale or max(float(gains.max()), 1e-12)
        gains = gains / scale + extra
        gains[chosen] = -np.inf
        best = int(np.argmax(gains))
        chosen.append(best)
        covered = covered + likes[best] * np.maximum(alike[best] - covered, 0.0)
    return pool[chosen]


def _unit(rows: Floats) -> Floats:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9), np.float32)


def _first(pool: Codes, gains: Array, k: int) -> Codes:
    return pool[np.argsort(-gains, kind="stable")[:k]]


def _entropy(probability: Array) -> Array:
    """Of a yes or no, in nats."""
    p = np.clip(probability, 1e-12, 1 - 1e-12)
    return np.asarray(-p * np.log(p) - (1 - p) * np.log1p(-p))


def _log_softmax(scores: Floats) -> Array:
    s = scores.astype(np.float64)
    s -= s.max(1, keepdims=True)
    return np.asarray(s - np.log(np.exp(s).sum(1, keepdims=True)))
