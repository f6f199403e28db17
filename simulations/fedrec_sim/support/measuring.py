"""How well scores find answers and refuse what has none: recall, refusal, and how sure these figures are."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedrec.support.refusal import auroc, choose_threshold, refusal_at
from fedrec_sim.support.desks import OpenSet

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]
CUTOFFS = (1, 3, 5)
_RESAMPLES = 2000
_SEED = 1


def best_and_ranks(open_set: OpenSet, scores: Floats, *, pooled: bool = False) -> tuple[Floats, Ints]:
    """Each request's best score, and the rank of its right answer from 1; 0 where there is none.

    Args:
        pooled: search all desks together, in place of the one that was asked. Ties count against the right answer.
    """
    masked = scores if pooled else np.where(open_set.same_desk, scores, -np.inf)
    targets = open_set.targets
    own = masked[np.arange(len(targets)), np.maximum(targets, 0)]
    ranks = (masked >= own[:, None]).sum(1)
    return masked.max(1), np.where(targets >= 0, ranks, 0)


def figures(open_set: OpenSet, scores: Floats, *, split: str = "test", pooled: bool = False) -> dict[str, Any]:
    """All figures of one way to match; its threshold is chosen on validation, whatever is measured.

    Returns: each figure as `[value, low, high]`, with a 95% interval of a bootstrap over requests.
    """
    best, ranks = best_and_ranks(open_set, scores, pooled=pooled)
    chosen, asked = open_set.which("validation"), open_set.which(split)
    known, unknown = chosen[ranks[chosen] > 0], chosen[ranks[chosen] == 0]
    threshold = choose_threshold(best[known], best[unknown])
    inside, outside = asked[ranks[asked] > 0], asked[ranks[asked] == 0]
    near = outside[[open_set.requests[at].kind == "near" for at in outside]]

    def measure(inner: Ints, outer: Ints) -> dict[str, float]:
        refusal = refusal_at(threshold, best[inner], best[outer])
        told = inner[best[inner] >= threshold]
        return {
            **{f"recall@{k}": float(np.mean(ranks[inner] <= k)) for k in CUTOFFS},
            "auroc": auroc(best[inner], best[outer]),
            "refusal_balanced": refusal.balanced,
            "answered_known": refusal.answered_known,
            "refused_unknown": refusal.refused_unknown,
            "right_where_answered": float(np.mean(ranks[told] == 1)) if len(told) else 0.0,
        }

    return {
        "threshold": round(threshold, 4),
        "known": len(inside),
        "unknown": len(outside),
        "refused_near": round(float(np.mean(best[near] < threshold)), 4),
        **_with_intervals(measure, inside, outside),
    }


def _with_intervals(measure: Callable[[Ints, Ints], dict[str, float]], inner: Ints, outer: Ints) -> dict[str, Any]:
    rng = np.random.default_rng(_SEED)
    drawn = [
        list(measure(rng.choice(inner, len(inner)), rng.choice(outer, len(outer))).values()) for _ in range(_RESAMPLES)
    ]
    low, high = np.quantile(np.array(drawn), [0.025, 0.975], axis=0)
    found = measure(inner, outer)
    return {
        name: [round(value, 4), round(float(low[at]), 4), round(float(high[at]), 4)]
        for at, (name, value) in enumerate(found.items())
    }


def recall_in(open_set: OpenSet, scores: Floats, language: str) -> dict[str, Any]:
    """Recall of requests in another language; few, so without intervals."""
    _, ranks = best_and_ranks(open_set, scores)
    asked = open_set.which("test", language)
    return {"requests": len(asked), **{f"recall@{k}": round(float(np.mean(ranks[asked] <= k)), 4) for k in CUTOFFS}}
