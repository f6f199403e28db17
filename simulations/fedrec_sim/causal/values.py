"""Each policy's click rate, estimated from the other policy's rows, beside what it earned itself."""

from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from fedrec.data.datasets import Say
from fedrec.data.open_bandit import CAMPAIGNS, PUBLISHED, BanditLog, Campaign, LoggingPolicy
from fedrec.evaluation.click_model import cross_predict
from fedrec.evaluation.off_policy import ESTIMATORS, Estimator, Evidence, choose_clip, estimate_all
from fedrec_sim.run import Json

Logs = Mapping[tuple[Campaign, LoggingPolicy], BanditLog]
Floats = NDArray[np.float64]
DIRECTIONS: tuple[tuple[LoggingPolicy, LoggingPolicy], ...] = (("random", "bts"), ("bts", "random"))
_TAILS = (2.5, 97.5)


def policy_of(log: BanditLog, policy: LoggingPolicy) -> Floats:
    """A policy as probabilities `[items, positions]`: uniform, or as its own log shows it. No reward is read."""
    return np.full((log.n_actions, log.n_positions), 1 / log.n_actions) if policy == "random" else log.shares()


def name_of(logged: LoggingPolicy, judged: LoggingPolicy) -> str:
    """A direction's name in JSON."""
    return f"{logged}_to_{judged}"


def estimate_values(logs: Logs, replicates: int, seed: int, say: Say) -> Json:
    """All campaigns in both directions, and each direction pooled."""
    found: Json = {}
    for logged, judged in DIRECTIONS:
        by_campaign: Json = {}
        drawn: dict[Campaign, dict[Estimator, Floats]] = {}
        for place, campaign in enumerate(CAMPAIGNS):
            say(f"{campaign}: what {judged} earns, from the rows of {logged}")
            log, own = logs[campaign, logged], logs[campaign, judged]
            generator = np.random.default_rng([seed, place, logged == "bts"])
            evidence = evidence_of(log, policy_of(own, judged), seed)
            estimates, drawn[campaign] = estimate_all(evidence, replicates, generator)
            truth = PUBLISHED[campaign, judged]
            by_campaign[campaign] = {
                "truth": {"click_rate": truth.click_rate, "margin": truth.margin, "rows": truth.rows},
                "truth_in_sample": _on_policy(own, generator, replicates),
                "clip": choose_clip(evidence),
                "mean_weight": float(evidence.weights.mean()),
                "largest_weight": float(evidence.weights.max()),
                "estimates": {
                    name: asdict(one) | _judged(one.value, drawn[campaign], name, truth.click_rate, own.rewards.mean())
                    for name, one in estimates.items()
                },
            }
        found[name_of(logged, judged)] = {"campaigns": by_campaign, "pooled": _pooled(by_campaign, drawn, judged)}
    return found


def evidence_of(log: BanditLog, policy: Floats, seed: int) -> Evidence:
    """What the estimators read of a log, with predictions by models that have not seen the row."""
    predicted, expected = cross_predict(log, policy, seed)
    return Evidence(log.rewards, policy[log.actions, log.positions], log.propensities, predicted, expected)


def _on_policy(log: BanditLog, generator: np.random.Generator, replicates: int) -> Json:
    rates = generator.binomial(len(log), log.rewards.mean(), replicates) / len(log)
    low, high = np.percentile(rates, _TAILS)
    return {"click_rate": float(log.rewards.mean()), "low": float(low), "high": float(high), "rows": len(log)}


def _judged(value: float, drawn: Mapping[Estimator, Floats], name: Estimator, truth: float, in_sample: float) -> Json:
    closer = abs(drawn[name] - truth) < abs(drawn["naive"] - truth)
    return {
        "relative_error": abs(value / truth - 1),
        "relative_error_in_sample": abs(value / in_sample - 1),
        "closer_than_naive": float(closer.mean()),  # share of resampled logs
    }


def _pooled(by_campaign: Json, drawn: Mapping[Campaign, Mapping[Estimator, Floats]], judged: LoggingPolicy) -> Json:
    """The mean of the three campaigns' click rates: its truth is sharper than any single one's."""
    truth = float(np.mean([PUBLISHED[campaign, judged].click_rate for campaign in CAMPAIGNS]))
    errors = {
        name: np.mean([abs(drawn[c][name] / PUBLISHED[c, judged].click_rate - 1) for c in CAMPAIGNS], axis=0)
        for name in ESTIMATORS
    }
    pooled: Json = {"truth": truth, "estimates": {}}
    for name in ESTIMATORS:
        of = [by_campaign[campaign]["estimates"][name] for campaign in CAMPAIGNS]
        rates = np.mean([drawn[campaign][name] for campaign in CAMPAIGNS], axis=0)
        low, high = (float(x) for x in np.percentile(rates, _TAILS))
        gained = [float(x) for x in np.percentile(errors["naive"] - errors[name], _TAILS)]
        value = float(np.mean([one["value"] for one in of]))
        pooled["estimates"][name] = {
            "value": value,
            "low": low,
            "high": high,
            "covers_truth": low <= truth <= high,
            "relative_error": abs(value / truth - 1),
            "mean_relative_error": float(np.mean([one["relative_error"] for one in of])),
            "mean_relative_error_in_sample": float(np.mean([one["relative_error_in_sample"] for one in of])),
            "error_less_than_naive": gained,  # interval, over resampled logs
            "campaigns_closer": sum(
                one["relative_error"] < by_campaign[c]["estimates"]["naive"]["relative_error"]
                for c, one in zip(CAMPAIGNS, of, strict=True)
            ),
            "closer_than_naive": float((abs(rates - truth) < abs(_mean(drawn, "naive") - truth)).mean()),
        }
    return pooled


def _mean(drawn: Mapping[Campaign, Mapping[Estimator, Floats]], name: Estimator) -> Floats:
    return np.asarray(np.mean([drawn[campaign][name] for campaign in CAMPAIGNS], axis=0))
