"""A bounded sum as noised integers; `integer_code` says why sums of them are as private as the plan says."""

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import PrivacyError
from fedrec.privacy.clipping import BoundedSum
from fedrec.privacy.integer_code import GRAINS_PER_NOISE, REACH, ROUNDING_STD, IntegerCode
from fedrec.privacy.noise import NoiseSource


def noised_integers(bounded: BoundedSum, noise_std: float, code: IntegerCode, source: NoiseSource) -> NDArray[np.int64]:
    """Clamp, add noise, round to the grain at random; uses the sum up, as `add_noise` does.

    Args:
        bounded: private; of no user, too.
        noise_std: this partner's share, of each coordinate, gradient units, public.
        source: of this question alone.
    Returns: int64 `[params]`, in grains: as private as this share of the noise makes it, and meant for a sum.
    Raises: PrivacyError: a code that was made for less noise, or the sum was used before.
    Privacy: one Gaussian mechanism of sensitivity `bounded.l2_norm_bound`, once the shares of others are added.
    """
    if not code.grain * GRAINS_PER_NOISE <= noise_std < math.inf:
        raise PrivacyError("the grain is too coarse for this noise", "derive the code from the same plan")
    total = bounded.consume().detach().cpu().double().numpy()
    noised = np.clip(total, -code.clamp, code.clamp) + noise_std * source.gaussian_float64(len(total))
    return round_at_random(noised / code.grain, source)


def round_at_random(centres: NDArray[np.float64], source: NoiseSource) -> NDArray[np.int64]:
    """Integers from the discrete Gaussian of `ROUNDING_STD` around each centre.

    Drawn around the nearest integer and accepted by the ratio of the two densities, until all are.

    Args:
        centres: float64 `[n]`, private.
    """
    nearest = np.rint(centres)
    offset = centres - nearest
    result = nearest.astype(np.int64)
    open_ones = np.arange(len(centres))
    while len(open_ones):
        drawn = np.searchsorted(_thresholds(), source.words(len(open_ones)), side="right") - REACH
        off = offset[open_ones]
        log_accept = (drawn * off - REACH * np.abs(off)) / ROUNDING_STD**2
        taken = source.uniform(len(open_ones)) <= np.exp(log_accept)
        result[open_ones[taken]] += drawn[taken]
        open_ones = open_ones[~taken]
    return result


@cache
def _thresholds() -> NDArray[np.uint64]:
    """Cumulative probabilities of the discrete Gaussian around 0, times 2**64: a draw is how many a word reaches."""
    weights = [math.exp(-(k**2) / (2 * ROUNDING_STD**2)) for k in range(-REACH, REACH + 1)]
    whole, below, found = math.fsum(weights), 0.0, []
    for place in range(1, len(weights)):
        below = math.fsum(weights[:place])
        found.append(min(int(below / whole * 2.0**64), 2**64 - 1))
    return np.array(found, np.uint64)
