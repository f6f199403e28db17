"""Which users take part in a step: each with one public probability, from the keyed stream of the noise."""

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import PrivacyError
from fedrec.privacy.noise import NoiseSource


def poisson_sample(n_users: int, sampling_prob: float, source: NoiseSource) -> NDArray[np.int64]:
    """Toss a coin for every user; an empty sample is legal and costs like any other.

    Args:
        n_users: private.
        sampling_prob: public, in (0, 1]; 1 takes everybody and draws nothing.
        source: the step's keyed stream.
    Returns: int64 `[sampled users]`, positions in rising order; private.
    Raises: PrivacyError: `sampling_prob` out of range. ValueError: `n_users` is negative.
    Privacy: amplifies only as long as nobody learns who was drawn, hence the secret stream.
    """
    if n_users < 0:
        raise ValueError("n_users is negative")
    if not 0 < sampling_prob <= 1:
        raise PrivacyError(f"sampling_prob must be in (0, 1], is {sampling_prob!r}", "mend the plan")
    if sampling_prob == 1:
        return np.arange(n_users, dtype=np.int64)
    # Draws are multiples of 2**-53 in (0, 1]: `<=` takes a user with probability at most sampling_prob.
    return np.flatnonzero(source.uniform(n_users) <= sampling_prob).astype(np.int64)
