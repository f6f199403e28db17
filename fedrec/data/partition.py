"""Users dealt to simulated partners."""

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import ConfigError


def deal_users(n_users: int, partners: int, seed: int) -> list[NDArray[np.int64]]:
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
