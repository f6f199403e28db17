"""What sampled Gaussian mechanisms cost together: PLD is reported, PRV must agree, `least_scale` inverts it."""

import importlib
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from fedrec.errors import PrivacyError
from fedrec.privacy.mechanism import Event, mechanism_problems

_Group = tuple[float, float, int]
"""sampling_prob, noise_multiplier, steps: equal mechanisms together."""

# Epsilons at which a privacy curve is looked at; every one gives a valid bound.
_CURVE = [0.02 * 1.1**i for i in range(80)]
# Below this noise (epsilon beyond 5,000) the distributions get too long to be worth computing.
_LEAST_NOISE = 0.01


def epsilon_pld(events: Iterable[Event], delta: float) -> float:
    """Epsilon of everything together, by privacy loss distributions: an upper bound, and the reported figure.

    Args:
        events: (part, sampling_prob, noise_multiplier, steps), public; in any order. None cost 0.
        delta: in (0, 1).
    Raises: PrivacyError: every event that is no sampled Gaussian mechanism, at once.
    Privacy: adding or removing one user. Amplified by the partner's own Poisson sampling, by nothing else.
    Reference: Doroshenko et al. 2022, arXiv:2207.04380 (dp_accounting).

    Example:
        >>> round(epsilon_pld([("head", 1.0, 1.0, 1)], 1e-5), 2)
        4.38
    """
    return _pld(_groups(events, delta), delta)


def delta_pld(events: Iterable[Event], epsilons: Sequence[float]) -> list[float]:
    """Delta at each epsilon: the whole privacy curve of the same composition, by PLD; upper bounds.

    Raises: PrivacyError: a wrong event, or noise too small for its curve to be computed (below .01).
    """
    groups = _groups(events, delta=0.5)
    if any(noise < _LEAST_NOISE for _, noise, _ in groups):
        raise PrivacyError(f"noise below {_LEAST_NOISE} has no curve worth computing", "more noise")
    accountant = _accountant(groups)
    return [float(accountant.get_delta(epsilon)) for epsilon in epsilons]


def found_rate_at_most(events: Iterable[Event], false_alarm_rate: float) -> float:
    """How likely any attacker can be to find a user who took part, if so few who did not are accused; in [0, 1].

    The promise in words that need no epsilon: the trade-off of the best test there can be. An upper bound for each
    user, and so on average over them; in one training more may be found.

    Args:
        false_alarm_rate: share of those who did not take part whom the attacker wrongly accuses.
    Reference: Kairouz et al. 2015, arXiv:1311.0776, theorem 2.1; Dong et al. 2022, arXiv:1905.02383.

    Example:
        >>> round(found_rate_at_most([("head", 1.0, 1.0, 1)], 0.01), 2)  # a Gaussian: Phi(1 - 2.326)
        0.09
    """
    events = list(events)
    if any(noise < _LEAST_NOISE for _, _, noise, _ in events):
        return 1.0  # as good as nothing
    curve = list(zip(_CURVE, delta_pld(events, _CURVE), strict=True))
    removing = (math.exp(epsilon) * false_alarm_rate + delta for epsilon, delta in curve)
    adding = (1 - math.exp(-epsilon) * (1 - delta - false_alarm_rate) for epsilon, delta in curve)
    return min(1.0, *removing, *adding)


def epsilon_prv(events: Iterable[Event], delta: float) -> float:
    """The same by privacy random variables (Opacus), bounded about .01 above the truth: the second opinion.

    Raises: PrivacyError: a wrong event, Opacus missing, or a composition that its arithmetic cannot carry.
    Reference: Gopi et al. 2021, arXiv:2106.02848.
    """
    groups = _groups(events, delta)
    return _prv(groups, delta) if groups else 0.0


def checked_epsilon(events: Iterable[Event], delta: float, tolerance: float | None = 0.03) -> float:
    """PLD's epsilon, if the second accountant says the same within `tolerance`.

    Args:
        tolerance: in epsilon; None asks no second opinion: for figures that promise nothing, since PRV cannot
            carry the tiny noise of, say, one partner's share alone.
    Raises: PrivacyError: the accountants disagree, so that neither may be believed.
    """
    events = list(events)
    reported = epsilon_pld(events, delta)
    if tolerance is None:
        return reported
    second = epsilon_prv(events, delta)
    if not abs(reported - second) <= tolerance:  # `not <=`, so that NaN is a disagreement too
        raise PrivacyError(
            f"accountants disagree on {events} at delta {delta}: PLD says {reported:.4f}, PRV {second:.4f}",
            "do not train under this plan; more noise or fewer steps bring it back into their range",
        )
    return reported


def dp_event(events: Iterable[Event]) -> Any:
    """The same events for every accountant of dp_accounting: a `ComposedDpEvent`, equal mechanisms together.

    Raises: PrivacyError: an event that is no sampled Gaussian mechanism, or dp_accounting missing.
    """
    return _dp_event(_groups(events, delta=0.5))


def least_scale(cost: Callable[[float], float], epsilon: float, delta: float) -> float:
    """Where the falling `cost` of a scale of noise lies just below `epsilon`: less than .02, and than 1% of it.

    Args:
        cost: epsilon at a scale; scale 1 is the noise of one Gaussian mechanism with noise_multiplier 1.
    Raises: PrivacyError: no scale reaches it.
    """
    # Start where zero-concentrated DP puts the unsampled Gaussian: epsilon = rho + 2 sqrt(rho log(1/delta)).
    log_term = math.log(1 / delta)
    enough = 1 / (math.sqrt(2) * (math.sqrt(log_term + epsilon) - math.sqrt(log_term)))
    while cost(enough) > epsilon:
        enough *= 1.3
    too_little = enough / 1.3
    while cost(too_little) <= epsilon:
        too_little, enough = too_little / 1.3, too_little
    for _ in range(30):
        if epsilon - cost(enough) < min(0.02, 0.01 * epsilon):
            return enough
        middle = math.sqrt(too_little * enough)
        too_little, enough = (middle, enough) if cost(middle) > epsilon else (too_little, middle)
    raise PrivacyError(f"no noise makes the plan cost just below epsilon {epsilon}", "change steps or delta")


def _groups(events: Iterable[Event], delta: float) -> tuple[_Group, ...]:
    """Equal mechanisms together, in a fixed order: one multiset is one float, and one entry of the cache."""
    steps_of: Counter[tuple[float, float]] = Counter()
    problems = [] if 0 < delta < 1 else [f"delta must be in (0, 1), is {delta!r}"]
    for part, prob, noise, steps in events:
        problems += [f"part {part!r}: {problem}" for problem in mechanism_problems(prob, noise, steps)]
        steps_of[prob, noise] += steps
    if problems:
        raise PrivacyError.of_all(problems, "mend the plan", "accounting")
    return tuple((prob, noise, steps) for (prob, noise), steps in sorted(steps_of.items()))


@lru_cache(maxsize=4096)
def _pld(groups: tuple[_Group, ...], delta: float) -> float:
    if any(noise < _LEAST_NOISE for _, noise, _ in groups):
        # Bun & Steinke 2016, arXiv:1605.02635, proposition 1.3: loose, but an upper bound at any noise.
        rho = sum(steps / 2 / noise / noise for _, noise, steps in groups)
        return rho + 2 * math.sqrt(rho * math.log(1 / delta))
    return float(_accountant(groups).get_epsilon(delta))


def _accountant(groups: tuple[_Group, ...]) -> Any:
    library = _library("dp_accounting.pld", "dp-accounting")
    return library.PLDAccountant(value_discretization_interval=_interval(groups)).compose(_dp_event(groups))


def _dp_event(groups: tuple[_Group, ...]) -> Any:
    dp = _library("dp_accounting", "dp-accounting")
    events = []
    for prob, noise, steps in groups:
        gaussian = dp.GaussianDpEvent(noise)
        sampled = gaussian if prob == 1 else dp.PoissonSampledDpEvent(prob, gaussian)
        events.append(dp.SelfComposedDpEvent(sampled, steps))
    return dp.ComposedDpEvent(events)


def _interval(groups: tuple[_Group, ...]) -> float:
    """Step of the discretised losses: the coarsest that adds little spread to that of all the losses.

    It errs upwards only: about .001 in epsilon, .01 at a million steps. Losses so large that they promise
    nothing get a coarser one, which bounds time and memory.
    """
    spreads, mean, widest = [], 0.0, 0.0
    for prob, noise, steps in groups:
        half = 0.5 / noise**2
        # Steps on everybody are one Gaussian with less noise; sampled ones are discretised one by one.
        count, variance = (1, 2 * half * steps) if prob == 1 else (steps, prob**2 * math.expm1(min(2 * half, 50)))
        spreads.append((count, min(1.0, math.sqrt(variance))))
        mean += steps * prob * max(0.0, half + math.log(prob))
        widest = max(widest, half)
    whole, step = sum(count * spread**2 for count, spread in spreads), 5e-3

    def added() -> float:
        return sum(count * step * min(step, spread) for count, spread in spreads)

    while step > 1e-5 and added() > whole / (256 if step > 1e-3 else 16):
        step *= 0.7
    return max(step, 1e-5 * mean, 1e-5 * widest)


@lru_cache(maxsize=256)
def _prv(groups: tuple[_Group, ...], delta: float) -> float:
    accountant = _library("opacus.accountants", "fedrec[client]").PRVAccountant()
    accountant.history = [(noise, prob, steps) for prob, noise, steps in groups]
    with warnings.catch_warnings(), np.errstate(divide="ignore"):
        # Opacus takes log(1 - sampling_prob), which at probability 1 is -inf, as it should be (errstate).
        # It sizes its grid by Renyi orders up to 63; with much noise the last is best, the grid only larger.
        warnings.filterwarnings("ignore", message="Optimal order is the largest alpha", category=UserWarning)
        try:
            return float(accountant.get_epsilon(delta, eps_error=0.01))
        except (RuntimeError, ValueError, ArithmeticError) as error:
            raise PrivacyError(f"PRV fails on {groups}: {error}", "more noise or fewer steps") from error


def _library(name: str, package: str) -> Any:
    """Imported at the first account, since it takes seconds and the coordinator may never need one."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise PrivacyError(f"the accountant {name} is not installed", f"pip install '{package}'") from error
