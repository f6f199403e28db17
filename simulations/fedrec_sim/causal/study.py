"""The whole study as one object: values on the real log, the same on made ones, training, and popularity."""

import time
from pathlib import Path

from fedrec.data.datasets import Say
from fedrec.data.open_bandit import CAMPAIGNS, POLICIES, read_open_bandit
from fedrec.data.sources import fetch
from fedrec_sim.causal.made import check_on_made
from fedrec_sim.causal.popular import debias_ranking
from fedrec_sim.causal.training import compare_training, train_on_made
from fedrec_sim.causal.values import estimate_values
from fedrec_sim.run import Json, commit_of_checkout

MADE_LOGS = {10_000: 100, 100_000: 20}
MADE_TRAINING = {10_000: 20, 100_000: 20, 1_000_000: 3}


def study(run: Path | None, replicates: int, seed: int, say: Say) -> Json:
    """Everything that docs/causal.md tells.

    Args:
        run: whose adapter is asked too, if any.
        replicates: how often rows or users are drawn anew for an interval.
    """
    started, folder = time.monotonic(), fetch("open-bandit", progress=say)
    say("the Open Bandit log")
    logs = {(c, policy): read_open_bandit(folder, c, policy) for c in CAMPAIGNS for policy in POLICIES}
    return {
        "data": "open-bandit",
        "rows": sum(map(len, logs.values())),
        "clicks": {f"{c} {policy}": int(log.rewards.sum()) for (c, policy), log in logs.items()},
        "replicates": replicates,
        "seed": seed,
        "values": estimate_values(logs, replicates, seed, say),
        "made": check_on_made(logs, MADE_LOGS, seed, say),
        "training": compare_training(logs, replicates, seed, say),
        "made_training": train_on_made(logs, MADE_TRAINING, seed, say),
        "popularity": debias_ranking(run, replicates, seed, say),
        "seconds": time.monotonic() - started,
        "commit": commit_of_checkout(),
    }
