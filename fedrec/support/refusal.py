"""When to say "I do not know": a threshold chosen on validation, and how well it tells known from unknown."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Refusal:
    """How often a threshold decides right.

    Attributes:
        answered_known: share of requests with an answer that got one, right or wrong.
        refused_unknown: share of requests without one that were refused.
    """

    answered_known: float
    refused_unknown: float

    @property
    def balanced(self) -> float:
        """Mean of both, so that the share of unknown requests in a test set does not matter."""
        return (self.answered_known + self.refused_unknown) / 2


def refusal_at(threshold: float, known: Floats, unknown: Floats) -> Refusal:
    """Of best scores.

    Args:
        known, unknown: best scores of requests with and without an answer, at least one each.

    >>> refusal_at(0.5, np.array([0.9, 0.4]), np.array([0.1])).balanced
    0.75
    """
    return Refusal(float(np.mean(known >= threshold)), float(np.mean(unknown < threshold)))


def choose_threshold(known: Floats, unknown: Floats) -> float:
    """Where the balanced accuracy is highest; the middle of the widest such gap, so that no score lies on it.

    Args: as of `refusal_at`; of validation requests alone.

    >>> choose_threshold(np.array([0.9, 0.7]), np.array([0.1, 0.3]))
    0.5
    """
    scores = np.unique(np.concatenate([known, unknown]).astype(np.float64))
    edges = np.concatenate([[scores[0] - 1.0], scores, [scores[-1] + 1.0]])
    middles, widths = (edges[1:] + edges[:-1]) / 2, edges[1:] - edges[:-1]
    quality = np.array([refusal_at(float(middle), known, unknown).balanced for middle in middles])
    best = np.flatnonzero(quality >= quality.max() - 1e-12)
    return float(middles[best[np.argmax(widths[best])]])


def auroc(known: Floats, unknown: Floats) -> float:
    """How likely a known request's best score is above an unknown one's; ties count half.

    >>> auroc(np.array([0.9, 0.2]), np.array([0.2]))
    0.75
    """
    above = (known[:, None] > unknown[None]).mean()
    return float(above + 0.5 * (known[:, None] == unknown[None]).mean())
