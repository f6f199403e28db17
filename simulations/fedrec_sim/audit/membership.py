"""Was this user at the partner? Statistics of what left, the likelihood-ratio attack on them, and its ROC curve."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fedrec.privacy.accounting import delta_pld, epsilon_pld
from fedrec.privacy.mechanism import Event
from fedrec_sim.audit.evidence import Evidence, Matches

FALSE_ALARM_RATES = (0.001, 0.01, 0.1)
"""At which an attack's rate of found users is reported: it must be sure of somebody, not right on average."""

_DRAWS = 2000  # of the bootstrap
# Chance that an honest attack's figure is called higher than it is, where a promise is judged by it.
_ERROR = 0.001
CURVE_RATES = np.geomspace(1e-3, 1.0, 61)
# Weight of the variance over all users in each user's own: few runs tell little about one user's.
_PRIOR_RUNS = 8.0


@dataclass(frozen=True)
class Interval:
    """A figure and its 95% bootstrap interval, over users and shadow trainings at once."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Membership:
    """How well one attacker did.

    Attributes:
        knows: what the attacker knows besides code, plan, adapters and the partner's answers.
        pairs: of user and shadow training that were judged.
        auc: .5 is guessing.
        found: rate of found users at each of `FALSE_ALARM_RATES`.
        found_at_least: the same rates' bounds from below, of which one in a thousand lies too high.
        curve: rate of found users at 61 false alarm rates from .001 to 1.
    """

    knows: str
    pairs: int
    auc: Interval
    found: tuple[Interval, ...]
    found_at_least: tuple[float, ...]
    curve: tuple[float, ...] = field(repr=False)


def attack_members(evidence: Sequence[Evidence], private: bool, seed: int) -> list[Membership]:
    """Every attacker against the same shadow trainings, the best informed last.

    Args:
        private: whether the trainings were; decides which statistics there are, and what the joint one knows of noise.
        seed: of the bootstrap.
    """
    present = np.stack([run.present for run in evidence])
    joint = lira(np.stack([_jointly(run, private) for run in evidence]), present)
    if private:
        alone = lira(np.stack([_alone(run.counts + run.head) for run in evidence]), present)
        exact = np.stack([_exactly(run.counts + run.head, run.present) for run in evidence])
        attacks = {"the user's rows": alone, "all candidates' rows": joint, "who else was there": exact}
    else:
        attacks = {**_without_privacy(evidence, present), "all candidates' rows": joint}
    return [judge(knows, scores, present, seed) for knows, scores in attacks.items()]


def _without_privacy(evidence: Sequence[Evidence], present: np.ndarray) -> dict[str, np.ndarray]:
    """One attack on each thing that leaves, and the sum of their log likelihood ratios: none is chosen by result."""
    statistics = {
        "the user's rows; counts": [_alone(run.counts) for run in evidence],
        "the user's rows; head difference": [_alone(run.head) for run in evidence],
        "the user's rows; drop in loss": [run.loss_drop for run in evidence if run.loss_drop is not None],
    }
    ratios = {knows: lira(np.stack(values), present) for knows, values in statistics.items()}
    return {**ratios, "the user's rows": np.sum(list(ratios.values()), axis=0)}


def _alone(matches: Matches) -> np.ndarray:
    """The matched filter: the user's own contributions and what left, in units of the noise."""
    return np.asarray(matches.scores / np.sqrt(np.diag(matches.gram)))


def _jointly(run: Evidence, private: bool) -> np.ndarray:
    """Best linear guess of everybody's presence at once: others' presence is explained, not taken for noise.

    With noise the coins' variance of 1/4 stands against it. Without, the mean of the counts alone is a system of
    linear equations in who was there, with more equations than users; it is solved.
    """
    if private:
        return unmix(run.counts + run.head, expected=0.5, variance=0.25)
    return unmix(run.counts, expected=0.0, variance=1e9)


def unmix(matches: Matches, *, expected: float, variance: float) -> np.ndarray:
    """Mean of `presence` given `scores = gram @ presence + noise of covariance gram`, for Gaussian presence."""
    gram = matches.gram
    ahead = matches.scores - gram @ np.full(len(gram), expected)
    return np.asarray(expected + np.linalg.solve(gram + np.eye(len(gram)) / variance, ahead))


def _exactly(matches: Matches, present: np.ndarray) -> np.ndarray:
    """The log likelihood ratio of each user's presence for somebody who knows who else was there.

    No test does better (Neyman & Pearson 1933): the noise is Gaussian and known, and so is all else. This is the
    attacker against whom differential privacy is defined.
    """
    own = np.diag(matches.gram)
    others = matches.gram @ present.astype(float) - own * present
    return np.asarray(matches.scores - others - own / 2)


def lira(statistics: np.ndarray, present: np.ndarray) -> np.ndarray:
    """The online likelihood-ratio attack, each run judged by Gaussians fitted on all the others.

    Means are each user's own; the variance is one for in and out, drawn towards that of all users, as runs are few.

    Args:
        statistics: `[runs, users]`. present: bool, alike.
    Returns: log likelihood ratios `[runs, users]`; 0 where the other runs have the user never or always.
    Reference: Carlini et al. 2022, arXiv:2112.03570, Algorithm 1 and section IV-C.
    """
    ratios = np.zeros(statistics.shape)
    for held in range(len(statistics)):
        others = np.arange(len(statistics)) != held
        ratios[held] = _ratio(statistics[held], statistics[others], present[others])
    return ratios


def _ratio(judged: np.ndarray, known: np.ndarray, present: np.ndarray) -> np.ndarray:
    n_in, n_out = present.sum(0), (~present).sum(0)
    mean_in = np.where(present, known, 0.0).sum(0) / np.maximum(n_in, 1)
    mean_out = np.where(present, 0.0, known).sum(0) / np.maximum(n_out, 1)
    squares = np.square(known - np.where(present, mean_in, mean_out)).sum(0)
    freedom = len(known) - 2
    variance = (squares + _PRIOR_RUNS * squares.mean() / freedom) / (freedom + _PRIOR_RUNS)
    ratio = (mean_in - mean_out) * (judged - (mean_in + mean_out) / 2) / np.maximum(variance, 1e-300)
    return np.where((n_in > 0) & (n_out > 0), ratio, 0.0)


def judge(knows: str, scores: np.ndarray, present: np.ndarray, seed: int) -> Membership:
    """ROC figures over all pairs of run and user, and how much they vary with the runs and users that were drawn."""
    rng = np.random.default_rng(seed)
    runs, users = scores.shape
    drawn = []
    for _ in range(_DRAWS):
        rows, columns = rng.integers(runs, size=runs), rng.integers(users, size=users)
        drawn.append(_figures(scores[np.ix_(rows, columns)], present[np.ix_(rows, columns)]))
    low, high, least = np.quantile(np.stack(drawn), [0.025, 0.975, _ERROR], axis=0)
    columns = np.stack([_figures(scores, present), low, high], axis=1).tolist()
    auc, *found = (Interval(*column) for column in columns)
    curve = found_rates(scores, present, CURVE_RATES)
    return Membership(knows, scores.size, auc, tuple(found), tuple(least[1:].tolist()), tuple(map(float, curve)))


def _figures(scores: np.ndarray, present: np.ndarray) -> np.ndarray:
    return np.array([area_under_roc(scores, present), *found_rates(scores, present, np.array(FALSE_ALARM_RATES))])


def area_under_roc(scores: np.ndarray, present: np.ndarray) -> float:
    """The chance that a member's score exceeds a non-member's; ties count half."""
    absent_sorted, members = np.sort(scores[~present]), scores[present]
    below = np.searchsorted(absent_sorted, members, "left") + np.searchsorted(absent_sorted, members, "right")
    return float(below.mean() / 2 / len(absent_sorted))


def found_rates(scores: np.ndarray, present: np.ndarray, false_alarm_rates: np.ndarray) -> np.ndarray:
    """Rate of found members where at most such a rate of non-members has a score above the threshold."""
    descending = np.sort(scores[~present])[::-1]
    allowed = np.floor(false_alarm_rates * len(descending) + 1e-9).astype(int)
    # Above the first score that would be one false alarm too many; ties with it are not called.
    thresholds = np.where(allowed < len(descending), descending[np.minimum(allowed, len(descending) - 1)], -math.inf)
    return np.asarray([(scores[present] > threshold).mean() for threshold in thresholds])


def ceiling(events: list[Event], false_alarm_rates: np.ndarray, delta: float) -> np.ndarray:
    """Most members that anybody can find at a false alarm rate, whatever he knows: the claimed trade-off curve.

    Found rate <= e**epsilon * false alarm rate + delta(epsilon) at every epsilon, and the same of absence.
    Reference: Kairouz et al. 2015, arXiv:1311.0776, theorem 2.1.
    """
    epsilons = np.linspace(0.0, 1.3 * epsilon_pld(events, delta), 131)
    deltas = np.array(delta_pld(events, [float(epsilon) for epsilon in epsilons]))[:, None]
    factors = np.exp(epsilons)[:, None]
    found = factors * false_alarm_rates + deltas
    of_absence = 1 - (1 - deltas - false_alarm_rates) / factors
    return np.asarray(np.minimum(found, of_absence).min(0).clip(max=1.0))
