"""Users dealt to simulated partners."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import ConfigError

Places = NDArray[np.int64]


def deal_users(n_users: int, partners: int, seed: int) -> list[Places]:
    """Deal all users out at random, as evenly as it goes.

    Args:
        n_users: how many there are.
        partners: 1 to `n_users`.
        seed: the same seed deals the same.
    Returns: per partner its users' places, increasing; sizes differ by one at most.
    Raises: ConfigError: fewer users than partners, or no partner.

    >>> sorted(len(users) for users in deal_users(10, 3, seed=0))
    [3, 3, 4]
    """
    if not 1 <= partners <= n_users:
        raise ConfigError(f"partners = {partners}, but there are {n_users} users", "give each a user or more")
    shuffled = np.random.default_rng(seed).permutation(n_users).astype(np.int64)
    return [np.sort(users) for users in np.array_split(shuffled, partners)]


def deal_by_label(labels: Sequence[str | float], shares: Sequence[float], partners: int, seed: int) -> list[Places]:
    """Deal users out in the order of their labels, those of one label in a random order.

    Args:
        labels: of every user, all texts or all numbers; one and the same for all deals at random. Private.
        shares: of the users, by partner, adding up to 1; none: one partner for each label, in their order.
        seed: the same seed deals the same.
    Returns: per partner its users' places, increasing.
    Raises: ConfigError: as many partners as there are not, or one without a user.

    >>> [users.tolist() for users in deal_by_label([30, 20, 50, 40], [0.25, 0.75], 2, seed=0)]
    [[1], [0, 2, 3]]
    """
    order = np.random.default_rng(seed).permutation(len(labels)).astype(np.int64)
    values, codes = np.unique(np.array(labels), return_inverse=True)
    order = order[np.argsort(codes[order], kind="stable")]
    if shares:
        bounds = np.rint(np.cumsum(shares)[:-1] * len(labels)).astype(np.int64)
    else:
        bounds = np.cumsum(np.bincount(codes, minlength=len(values)))[:-1]
    dealt = [np.sort(users) for users in np.split(order, bounds)]
    if len(dealt) != partners:
        by = f"{len(shares)} shares" if shares else f"{len(values)} labels"
        raise ConfigError(f"partners = {partners}, but there are {by}", "set one for each partner")
    if not all(map(len, dealt)):
        raise ConfigError("a partner would have no user", "give it a larger share, or take more users")
    return dealt
