"""Latent tastes of a crowd: a few distributions over items, of which every user and every session is a mixture."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Floats = NDArray[np.float64]

# Users that share a session's taste with all of the user's, and with the crowd, as so many items would.
_USER_WEIGHT, _CROWD_WEIGHT, _ITEM_FLOOR = 6.0, 4.0, 0.02


@dataclass(frozen=True)
class Tastes:
    """What the fit keeps: nothing of it belongs to one user.

    Attributes:
        items: `[tastes, items]`, rows add up to 1.
        mean: `[tastes]`, of the users' mixtures.
        spread_users, spread_sessions: concentrations of the Dirichlet distributions of a user's mixture about the mean
            and of a session's about its user's; the larger, the more alike.
    """

    items: Floats = field(repr=False)
    mean: Floats = field(repr=False)
    spread_users: float
    spread_sessions: float


def fit_tastes(sessions: sparse.csr_array, users: NDArray[np.int64], *, tastes: int, steps: int, seed: int) -> Tastes:
    """Expectation maximisation, sessions shrunk to their user and users to the crowd.

    Args:
        sessions: counts `[sessions, items]`.
        users: the user of each session, not decreasing from 0.
        tastes: how many.
        steps: of the fit.
    Reference: Hofmann 1999, doi:10.1145/312624.312649, with Dirichlet priors.
    """
    rng = np.random.default_rng(seed)
    coo = sessions.tocoo()
    rows, columns, counts = coo.coords[0], coo.coords[1], coo.data
    popularity = np.asarray(sessions.sum(axis=0), np.float64)
    popularity /= popularity.sum()
    items = popularity * rng.gamma(1.0, size=(tastes, sessions.shape[1]))
    items /= items.sum(1, keepdims=True)
    by_session = sparse.csr_array((np.ones(len(rows)), (rows, np.arange(len(rows)))))
    by_item = sparse.csr_array((np.ones(len(rows)), (columns, np.arange(len(rows)))))
    by_user = sparse.csr_array((np.ones(len(users)), (users, np.arange(len(users)))))
    mixtures, crowd = np.full((len(users), tastes), 1 / tastes), np.full(tastes, 1 / tastes)
    of_users = np.full((by_user.shape[0], tastes), 1 / tastes)
    for _ in range(steps):
        shares = mixtures[rows] * items[:, columns].T
        shares *= (counts / shares.sum(1))[:, None]
        in_session = np.asarray(by_session @ shares)
        mixtures = _normal(in_session + _USER_WEIGHT * of_users[users])
        of_users = _normal(np.asarray(by_user @ in_session) + _CROWD_WEIGHT * crowd)
        crowd = of_users.mean(0)
        items = _normal(np.asarray(by_item @ shares).T + _ITEM_FLOOR * popularity)
    return Tastes(items, crowd, _concentration(of_users, crowd), _concentration(mixtures, of_users[users]))


def _normal(weights: Floats) -> Floats:
    return np.asarray(weights / weights.sum(1, keepdims=True))


def _concentration(mixtures: Floats, about: Floats) -> float:
    """Of the Dirichlet distribution with these means that varies as much: var = mean (1 - mean) / (1 + it)."""
    about = np.broadcast_to(about, mixtures.shape)
    variance = np.square(mixtures - about).sum() / len(mixtures)
    return float((about * (1 - about)).sum() / len(mixtures) / variance - 1)
