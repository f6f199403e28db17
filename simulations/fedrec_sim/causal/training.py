"""Training on a log of Thompson sampling with and without its propensities, judged on the uniformly drawn log."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fedrec.data.datasets import Say
from fedrec.data.open_bandit import CAMPAIGNS, BanditLog, Campaign
from fedrec.evaluation.click_model import ClickDesign, choose_l2, fit_clicks, fit_rates, log_loss
from fedrec.evaluation.off_policy import effective_size
from fedrec_sim.causal.made import draw_rows, make_shop
from fedrec_sim.causal.values import Logs
from fedrec_sim.run import Json

Floats = NDArray[np.float64]
CLIP = 10.0  # of training weights; a usual choice, made before anything was looked at
_TAILS = (2.5, 97.5)
MADE_L2 = 10.0
WAYS = ("plain", "weighted")


def training_weights(log: BanditLog, clip: float = CLIP) -> Floats:
    """How much a row counts, so that every item weighs as if all were shown alike: at most `clip`, then of mean 1."""
    weights = np.minimum(1 / (log.n_actions * log.propensities), clip)
    return np.asarray(weights / weights.mean())


def compare_training(logs: Logs, replicates: int, seed: int, say: Say) -> Json:
    """Both ways, for each campaign and over all, on rows that neither the weights nor the policy have chosen."""
    found: Json = {"clip": CLIP, "campaigns": {}}
    lost: dict[str, list[Floats]] = {way: [] for way in WAYS}
    for campaign in CAMPAIGNS:
        say(f"{campaign}: a click model with and without propensities")
        trained, test = logs[campaign, "bts"], logs[campaign, "random"]
        weights = {"plain": np.ones(len(trained)), "weighted": training_weights(trained)}
        by_way = {}
        for way in WAYS:
            predicted, l2 = _predict(trained, test, weights[way], seed)
            lost[way].append(log_loss(predicted, test.rewards))
            by_way[way] = {
                "l2": l2,
                "effective_rows": effective_size(weights[way]),
                "log_loss": float(lost[way][-1].mean()),
                "auc": _auc(predicted, test.rewards),
                "predicted_over_observed": float(predicted.mean() / test.rewards.mean()),
            }
        found["campaigns"][campaign] = by_way | {
            "gain": _gain([lost["plain"][-1]], [lost["weighted"][-1]], replicates, seed)
        }
    return found | {"pooled_gain": _gain(lost["plain"], lost["weighted"], replicates, seed)}


def _predict(trained: BanditLog, test: BanditLog, weights: Floats, seed: int) -> tuple[Floats, float]:
    # Without effects of their own, items share what is learnt: then it matters which of them the log is full of.
    design = ClickDesign.of(trained, own_effects=False)
    l2 = choose_l2(trained, design, seed, weights)
    return fit_clicks(trained, design, l2, weights).predict(test), l2


def train_on_made(logs: Logs, sizes: Mapping[int, int], seed: int, say: Say) -> Json:
    """The same on made logs, where every item's true click rate is known: how far a model is from it, uniformly.

    Args:
        sizes: rows of a made log -> how many of them are made for each campaign.
    Returns: by model and size, the mean divergence from the truth in nats a row, both ways, and how often weights win.
        The model `small` knows one number of an item, `features` its opaque categories as well.
    """
    found: Json = {"l2": MADE_L2, "small": {}, "features": {}}
    for rows, repeats in sizes.items():
        say(f"click models of made logs of {rows:,} rows, with and without propensities")
        generator = np.random.default_rng([seed, rows, 0x7A1])
        tried = np.array([_train_on_one(logs[c, "bts"], c, rows, generator) for c in CAMPAIGNS for _ in range(repeats)])
        for place, model in enumerate(("small", "features")):
            plain, weighted = tried[:, place, 0], tried[:, place, 1]
            found[model][str(rows)] = {
                "logs": len(tried),
                "divergence": {"plain": float(plain.mean()), "weighted": float(weighted.mean())},
                "weighted_closer": float((weighted < plain).mean()),
            }
    return found


def _train_on_one(log: BanditLog, campaign: Campaign, rows: int, generator: np.random.Generator) -> list[list[float]]:
    """Mean Kullback-Leibler divergence over items of two models, plain and weighted, from one made log."""
    shop = make_shop(log, campaign)
    actions, propensities, rewards = draw_rows(shop, "bts", rows, generator)
    ones, columns = np.ones((log.n_actions, 1)), ClickDesign.of(log, own_effects=False).items
    least = log_loss(shop.rates, shop.rates)
    weights = np.minimum(1 / (log.n_actions * propensities), CLIP)
    divergence: list[list[float]] = []
    for items in (np.concatenate([ones, columns[:, :1]], axis=1), np.concatenate([ones, columns], axis=1)):
        divergence.append([])
        for counted in (np.ones(rows), weights / weights.mean()):
            shown = np.bincount(actions, counted, log.n_actions)
            clicked = np.bincount(actions, counted * rewards, log.n_actions)
            rates = fit_rates(items, np.asarray(clicked, float), np.asarray(shown, float), MADE_L2)
            divergence[-1].append(float((log_loss(rates, shop.rates) - least).mean()))
    return divergence


def _gain(plain: list[Floats], weighted: list[Floats], replicates: int, seed: int) -> Json:
    """How much less log loss the weights leave, relative, with an interval over resampled test rows."""
    generator = np.random.default_rng([seed, 0x6A1])
    means = np.zeros((2, replicates))
    for pair in zip(plain, weighted, strict=True):
        losses = np.stack(pair)
        for number in range(replicates):
            means[:, number] += losses[:, generator.integers(losses.shape[1], size=losses.shape[1])].mean(axis=1)
    whole = [sum(float(one.mean()) for one in way) for way in (plain, weighted)]
    low, high = np.percentile(1 - means[1] / means[0], _TAILS)
    return {"value": 1 - whole[1] / whole[0], "low": float(low), "high": float(high)}


def _auc(predicted: Floats, rewards: Floats) -> float:
    """Chance that a clicked row is predicted above another; ties count half."""
    clicked, other = predicted[rewards > 0], np.sort(predicted[rewards == 0])
    below = np.searchsorted(other, clicked, "left") + np.searchsorted(other, clicked, "right")
    return float(below.mean() / (2 * len(other)))
