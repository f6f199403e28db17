"""One whole private training with made users in it, each there or not by the toss of a coin: who was?

The mechanism audit attacks a step; this attacks a real worker's answers over a whole training, those to the prior and
head rounds (the LoRA rounds are run as well, and not looked at). With 50 guesses it can prove an epsilon of 2.7 at
most, so it is the plan of epsilon 1 that it puts to the test.
"""

import os
import secrets
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binom

from fedrec.model.recommender import item_token_model
from fedrec_sim.audit.evidence import collect, head_inputs
from fedrec_sim.audit.membership import unmix
from fedrec_sim.audit.shadows import Setting, Stage, stage
from fedrec_sim.world import World

CANARIES = 200
_ITEMS = 30  # of a canary's history, drawn from the whole catalogue: unlike anybody, so far from everybody
_GUESSED = 0.25  # of the canaries, those the attacker is surest of; fixed before the run
_ERROR = 0.05  # chance that the bound is above the truth


@dataclass(frozen=True)
class CanaryAudit:
    """What one training gave away.

    Attributes:
        canaries: made users, each there with probability 1/2.
        guessed: of how many the attacker said whether they were there; `correct` of them rightly.
        epsilon_claimed: at `delta`, over the whole training.
        epsilon_lower_bound: proven by the guesses, wrong with a probability of at most .05; 0 if nothing is.
        epsilon_provable: what as many guesses would prove if all were right; a claim above cannot be refuted.
    """

    setting: str
    users: int
    canaries: int
    guessed: int
    correct: int
    delta: float
    epsilon_claimed: float
    epsilon_lower_bound: float
    epsilon_provable: float

    @property
    def passed(self) -> bool:
        """The claim stands."""
        return self.epsilon_lower_bound <= self.epsilon_claimed

    def to_dict(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        return {**asdict(self), "passed": self.passed}


def audit_training(world: World, canaries: int = CANARIES, setting: Setting = "inspect_1") -> CanaryAudit:
    """Train the demo's first partner once, with canaries among its users, and guess which of them were there.

    The attacker knows the partner's real users and every canary, and sees all answers. Keys and coins are fresh.

    Reference: Steinke, Nasr & Jagielski 2023, arXiv:2305.08846, Algorithm 1.
    """
    real = stage(world, setting, seed=1)
    crowded = with_canaries(real, canaries, secrets.randbits(32))
    coins = np.frombuffer(os.urandom(canaries), np.uint8) % 2 == 1
    return guess_canaries(crowded, len(real.pool), coins, os.urandom(32), setting)


def with_canaries(real: Stage, canaries: int, seed: int) -> Stage:
    """The stage with made users after the real ones."""
    rng = np.random.default_rng(seed)
    n_items = item_token_model(real.model).n_items
    made = tuple(rng.choice(n_items, min(_ITEMS, n_items), replace=False).astype(np.int32) for _ in range(canaries))
    return replace(real, pool=(*real.pool, *made))


def guess_canaries(crowded: Stage, n_real: int, coins: np.ndarray, root: bytes, setting: str) -> CanaryAudit:
    """Run the training and decode all coins at once: each canary is explained beside the others, not as their noise."""
    assert crowded.plan is not None
    evidence = collect(crowded, head_inputs(crowded), np.concatenate([np.ones(n_real, bool), coins]), root)
    matches = evidence.counts + evidence.head
    known = matches.gram[n_real:, :n_real].sum(1)  # what the real users, who are there, add to each match
    unknown = replace(matches, scores=matches.scores[n_real:] - known, gram=matches.gram[n_real:, n_real:])
    presence = unmix(unknown, expected=0.5, variance=0.25)
    surest = np.argsort(-np.abs(presence - 0.5))[: round(_GUESSED * len(coins))]
    correct = int(((presence[surest] > 0.5) == coins[surest]).sum())
    return CanaryAudit(
        setting=setting,
        users=n_real + int(coins.sum()),
        canaries=len(coins),
        guessed=len(surest),
        correct=correct,
        delta=crowded.plan.delta,
        epsilon_claimed=crowded.plan.epsilon(),
        epsilon_lower_bound=epsilon_of_guesses(len(coins), len(surest), correct, crowded.plan.delta),
        epsilon_provable=epsilon_of_guesses(len(coins), len(surest), len(surest), crowded.plan.delta),
    )


def epsilon_of_guesses(canaries: int, guessed: int, correct: int, delta: float, error: float = _ERROR) -> float:
    """The largest epsilon under which so many right guesses have a probability of at most `error`; 0 if none.

    Reference: Steinke et al. 2023, arXiv:2305.08846, Theorem 5.2.
    """

    def excess(epsilon: float) -> float:
        return _probability(canaries, guessed, correct, epsilon, delta) - error

    if excess(0.0) >= 0:
        return 0.0
    return float(brentq(excess, 0.0, 60.0))


def _probability(canaries: int, guessed: int, correct: int, epsilon: float, delta: float) -> float:
    """At most this, of `correct` or more right guesses, against any (epsilon, delta)-private training."""
    at_least = binom.sf(np.arange(correct, -1, -1) - 1, guessed, 1 / (1 + np.exp(-epsilon)))
    slopes = (at_least[1:] - at_least[0]) / np.arange(1, correct + 1)
    return float(at_least[0] + 2 * canaries * delta * max(0.0, *slopes)) if correct else 1.0
