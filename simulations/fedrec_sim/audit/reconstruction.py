"""What did this user like? Guesses of a member's items from what left, with and without knowing everybody else."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedrec_sim.audit.evidence import Evidence, Leans
from fedrec_sim.audit.membership import Interval

_DRAWS = 400  # of the bootstrap
# Stands in for the rounding of float32 where there is no noise.
_ROUNDING = 1e-3
# Of items nobody else is known to have, as a share of a user.
_LEAST_CHANCE = 1e-3


@dataclass(frozen=True)
class Reconstruction:
    """Mean share of a member's items among as many guesses as the member has items, over members and trainings.

    Attributes:
        informed: by somebody who knows every other user of the partner, from the prior round.
        informed_all_rounds: the same attacker, who also looks at which items' scores the head rounds raised; None
            without privacy, where nothing is left to add.
        top_of_release: by somebody who knows nothing of the users: the largest of the released counts.
        popularity: by somebody who saw nothing: the items that most other users of the data set have.
        members: pairs of user and shadow training.
        items: mean number of items that were to be guessed.
    """

    informed: Interval
    informed_all_rounds: Interval | None
    top_of_release: Interval
    popularity: Interval
    members: int
    items: float


@dataclass(frozen=True)
class Known:
    """What an attacker of a partner knows, or measures itself by.

    Attributes:
        items: int64 codes that each user's answer counts, each once.
        rows: `[users, items]`, what each user adds to the released counts.
        popularity: interactions per item in the whole data set, `[items]`; a target's own are taken off.
        noise_std: on each released count; None without privacy, where the release is the mean.
    """

    items: Sequence[np.ndarray]
    rows: np.ndarray
    popularity: np.ndarray
    noise_std: float | None


def attack_histories(evidence: Sequence[Evidence], known: Known, seed: int) -> Reconstruction:
    """Guess the items of every member of every shadow training.

    Args:
        seed: of the bootstrap, over users and trainings at once.
    """
    present = np.stack([run.present for run in evidence])
    recalls = np.full((4, *present.shape), np.nan)
    for number, run in enumerate(evidence):
        for user in np.flatnonzero(run.present):
            recalls[:, number, user] = _recalls(run, known, int(user))
    informed, all_rounds, top, popular = (_interval(values, seed) for values in recalls)
    sizes = np.array([len(items) for items in known.items])
    return Reconstruction(
        informed=informed,
        informed_all_rounds=None if known.noise_std is None else all_rounds,
        top_of_release=top,
        popularity=popular,
        members=int(present.sum()),
        items=float((sizes * present).sum() / present.sum()),
    )


def _recalls(run: Evidence, known: Known, user: int) -> list[float]:
    """Of the four attackers, in the order of `Reconstruction`."""
    liked = known.items[user]
    counts = np.zeros(len(known.popularity))
    counts[liked] = 1
    chance = chances(known.popularity - counts, len(liked))
    odds = guess(_left_over(run, known, user), known.noise_std or _ROUNDING, chance, len(liked))
    better = odds if run.leans is None else odds + lean_ratios(run.leans, known.rows > 0, user)
    return [recall(order, liked) for order in (odds, better, run.released_counts, chance)]


def _left_over(run: Evidence, known: Known, user: int) -> np.ndarray:
    """The released sum less what everybody else is known to have added: the target's share and the noise."""
    others = run.present.copy()
    others[user] = False
    released = run.released_counts if known.noise_std is not None else run.released_counts * run.present.sum()
    return np.asarray(released - known.rows[others].sum(0))


def guess(left: np.ndarray, noise_std: float, chance: np.ndarray, n_items: int) -> np.ndarray:
    """How likely each item is, as log odds `[items]`: the target added 1/sqrt(n) for each of its n items.

    Bayes' rule item by item, with Gaussian noise and `chance` as what is known beforehand.
    """
    added = 1 / math.sqrt(n_items)
    return np.asarray((left * added - added**2 / 2) / noise_std**2 + np.log(chance / (1 - chance)))


def chances(popularity: np.ndarray, n_items: int) -> np.ndarray:
    """Chance that a user with so many items has each, by popularity: `[items]`, within (0, 1)."""
    shares = popularity / max(float(popularity.sum()), 1.0)
    return np.asarray((n_items * shares).clip(_LEAST_CHANCE, 0.95))


def lean_ratios(leans: Leans, having: np.ndarray, user: int) -> np.ndarray:
    """Log likelihood ratio of each item by what the head rounds left over, `[items]`.

    How much further those who have an item lean towards it, and how much that varies, is learnt from the other
    candidates' exact shares. Reference: naive Bayes with Gaussians of one variance.

    Args:
        having: bool `[users, items]`, of which the target's row is not read.
    """
    others = np.arange(len(having)) != user
    own, has = leans.own[others], having[others]
    centre = own.mean(0)
    ahead = own - centre
    further = ahead[has].mean() - ahead[~has].mean()
    variance = leans.noise_std**2 + ahead[~has].var()
    return np.asarray(further * (leans.left[user] - centre - further / 2) / variance)


def recall(order: np.ndarray, liked: np.ndarray) -> float:
    """Share of the liked items among as many with the highest order; ties go to the lower code."""
    guessed = np.argsort(-order, kind="stable")[: len(liked)]
    return float(np.isin(guessed, liked).mean())


def _interval(values: np.ndarray, seed: int) -> Interval:
    """Mean over members, `[runs, users]` with NaN for those who were absent."""
    rng = np.random.default_rng(seed)
    runs, users = values.shape
    drawn = [
        np.nanmean(values[np.ix_(rng.integers(runs, size=runs), rng.integers(users, size=users))])
        for _ in range(_DRAWS)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(float(np.nanmean(values)), float(low), float(high))
