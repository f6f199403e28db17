"""Made logs whose truth is known exactly: how far each estimator is off, and how often its interval tells the truth.

The items' click rates are made so that both policies earn exactly what the authors published for the whole log: a power
of how often Thompson sampling showed an item. The made logging policy is that of each day of the real log, mixed with a
little chance, so that its propensities are known for every item. Clicks are drawn.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from fedrec.data.datasets import Say
from fedrec.data.open_bandit import CAMPAIGNS, PUBLISHED, BanditLog, Campaign, LoggingPolicy
from fedrec.errors import DataError
from fedrec.evaluation.click_model import FOLDS, fold_of_rows
from fedrec.evaluation.off_policy import ESTIMATORS, Evidence, choose_clip, terms_of
from fedrec_sim.causal.values import DIRECTIONS, Logs, name_of
from fedrec_sim.run import Json

Floats = NDArray[np.float64]
CHANCE = 0.02  # of a made logging policy: what it shows uniformly, so that no item is out of its reach
_PRIOR_ROWS = 300.0
_DAY_S = 86_400.0


@dataclass(frozen=True)
class MadeShop:
    """Click rates and policies of a made campaign.

    Attributes:
        rates: `[items]`.
        random, bts: `[days, items]`, each day's policy, the same for every position.
    """

    rates: Floats = field(repr=False)
    random: Floats = field(repr=False)
    bts: Floats = field(repr=False)

    def policy(self, name: LoggingPolicy) -> Floats:
        """Probabilities by day and item."""
        return self.random if name == "random" else self.bts

    def truth(self, name: LoggingPolicy) -> float:
        """What a policy earns, exactly."""
        return float(self.policy(name).mean(axis=0) @ self.rates)


def make_shop(log: BanditLog, campaign: Campaign) -> MadeShop:
    """A made campaign after a real log of Thompson sampling."""
    days = ((log.timestamps - log.timestamps.min()) // _DAY_S).astype(np.int64)
    counts = np.zeros((days.max() + 1, log.n_actions))
    np.add.at(counts, (days, log.actions), 1.0)
    counts = counts[counts.sum(axis=1) > 0]
    bts = (1 - CHANCE) * counts / counts.sum(axis=1, keepdims=True) + CHANCE / log.n_actions
    random = np.full_like(bts, 1 / log.n_actions)
    wanted = {name: PUBLISHED[campaign, name].click_rate for name in ("random", "bts")}
    return MadeShop(_rates(bts.mean(axis=0), wanted["bts"], wanted["random"]), random, bts)


def _rates(shares: Floats, of_bts: float, of_random: float) -> Floats:
    """`a * shares^b`, with a and b such that both policies earn what they should."""

    def lift(power: float) -> float:
        return float(shares @ shares**power / (shares**power).mean()) - of_bts / of_random

    power = brentq(lift, 0.0, 3.0)
    rates = shares**power * (of_random / (shares**power).mean())
    if rates.max() >= 1:
        raise DataError("made click rates above 1", "make a shop with fewer clicks")
    return np.asarray(rates)


def draw_rows(
    shop: MadeShop, logged: LoggingPolicy, rows: int, generator: np.random.Generator
) -> tuple[NDArray[np.int64], Floats, Floats]:
    """A made log: items shown, their propensities, clicks."""
    policy = shop.policy(logged)
    days = generator.integers(len(policy), size=rows)
    ladder = policy.cumsum(axis=1)
    ladder[:, -1] = 1.0  # whatever sums round to
    steps = (ladder + np.arange(len(policy))[:, None]).ravel()  # all days in one, so that one search finds all draws
    actions = np.searchsorted(steps, days + generator.random(rows)) - days * policy.shape[1]
    return actions, policy[days, actions], (generator.random(rows) < shop.rates[actions]).astype(np.float64)


def make_evidence(
    shop: MadeShop, logged: LoggingPolicy, judged: LoggingPolicy, rows: int, generator: np.random.Generator
) -> Evidence:
    """A made log, as the estimators read it; predictions are the items' shrunk click rates in other folds."""
    actions, propensities, rewards = draw_rows(shop, logged, rows, generator)
    target = shop.policy(judged).mean(axis=0)
    predicted, expected = np.empty(rows), np.empty(rows)
    folds = fold_of_rows(rows, FOLDS, int(generator.integers(2**31)))
    for fold in range(FOLDS):
        held, kept = folds == fold, folds != fold
        rates = shrunk_rates(actions[kept], rewards[kept], len(shop.rates))
        predicted[held], expected[held] = rates[actions[held]], target @ rates
    return Evidence(rewards, target[actions], propensities, predicted, expected)


def shrunk_rates(actions: NDArray[np.integer], rewards: Floats, n_items: int) -> Floats:
    """Click rate of each item, drawn towards the log's own as if by `_PRIOR_ROWS` more rows."""
    clicks = np.bincount(actions, weights=rewards, minlength=n_items)
    rows = np.bincount(actions, minlength=n_items)
    return np.asarray((clicks + _PRIOR_ROWS * rewards.mean()) / (rows + _PRIOR_ROWS))


def check_on_made(logs: Logs, sizes: Mapping[int, int], seed: int, say: Say) -> Json:
    """Bias, error and coverage of every estimator, by direction and number of rows, over all three campaigns.

    Args:
        sizes: rows of a made log -> how many of them are made for each campaign and direction.
    """
    shops = {campaign: make_shop(logs[campaign, "bts"], campaign) for campaign in CAMPAIGNS}
    found: Json = {}
    for logged, judged in DIRECTIONS:
        found[name_of(logged, judged)] = {}
        for rows, repeats in sizes.items():
            say(f"made logs of {rows:,} rows, {logged} to {judged}")
            generator = np.random.default_rng([seed, rows, logged == "bts"])
            tried = [_try(shop, logged, judged, rows, generator) for shop in shops.values() for _ in range(repeats)]
            found[name_of(logged, judged)][str(rows)] = _summed(np.array(tried))
    return {"logs_per_campaign": {str(n): repeats for n, repeats in sizes.items()}, "chance": CHANCE} | found


def _try(
    shop: MadeShop, logged: LoggingPolicy, judged: LoggingPolicy, rows: int, generator: np.random.Generator
) -> Floats:
    """Relative error of one log's estimates, and whether its interval holds the truth: `[estimators, 2]`."""
    evidence, truth = make_evidence(shop, logged, judged, rows, generator), shop.truth(judged)
    clip = choose_clip(evidence)
    terms = [terms_of(name, evidence, clip) for name in ESTIMATORS]
    errors = [(one.value() - truth) / truth for one in terms]
    covered = [abs(one.value() - truth) <= 1.96 * one.standard_error() for one in terms]
    return np.stack([errors, covered], axis=1)


def _summed(tried: Floats) -> Json:
    """`tried` is `[logs, estimators, 2]`."""
    naive = abs(tried[:, ESTIMATORS.index("naive"), 0])
    return {
        name: {
            "bias": float(tried[:, place, 0].mean()),
            "bias_error": float(tried[:, place, 0].std() / np.sqrt(len(tried))),
            "rmse": float(np.sqrt((tried[:, place, 0] ** 2).mean())),
            "mean_absolute_error": float(abs(tried[:, place, 0]).mean()),
            "interval_covers": float(tried[:, place, 1].mean()),
            "closer_than_naive": float((abs(tried[:, place, 0]) < naive).mean()),
        }
        for place, name in enumerate(ESTIMATORS)
    }
