"""How a noised sum becomes integers that can be added under masks, and why that costs no privacy. No torch.

Why no rounding needs to be paid for. A partner adds its share of continuous noise to its clipped sum, and rounds the
result, in units of a public grain, by drawing from the discrete Gaussian around it, `ROUNDING_STD` wide. Sums of such
draws are, but for a factor that differs from 1 by less than `slack`, draws from the discrete Gaussian around the sum
of what was rounded. So what a coordinator learns of honest partners is computed from the sum of their noised real
vectors alone: post-processing of the Gaussian mechanism that `PrivacyPlan` is accounted for, Poisson sampling
included.

Reference: Peikert 2010, doi:10.1007/978-3-642-14623-7_5, Theorem 3.1, and Micciancio & Peikert 2013,
doi:10.1007/978-3-642-40041-4_2, Theorem 3.3, for discrete Gaussians that add up; Kairouz, Liu & Steinke 2021,
arXiv:2102.06387, for distributed noise under secure aggregation.
"""

import math
from dataclasses import dataclass

from fedrec.errors import PrivacyError
from fedrec.privacy.plan import PrivacyPlan

# In grains. It adds 8**2 to a variance of 512**2 and more: less than a four-thousandth, and more noise, not less.
ROUNDING_STD = 8.0
GRAINS_PER_NOISE = 512
# Draws further away than 12 standard deviations, of which there is one in 10**32, are not made.
REACH = int(12 * ROUNDING_STD)
# A Box-Muller draw from 64 bits is never further out: sqrt(-2 ln 2**-64) = 9.42.
_FURTHEST_NOISE = 9.5
MAX_BITS = 32


@dataclass(frozen=True)
class IntegerCode:
    """How a partner's noised sum becomes integers. Public: both sides derive it from the privacy plan.

    Attributes:
        grain: gradient units of 1; a power of two.
        clamp: largest size of a coordinate of the clipped sum, before noise; gradient units.
        bits: in which the sum of all partners' integers fits, whatever they hold.
    """

    grain: float
    clamp: float
    bits: int

    @classmethod
    def of(cls, plan: PrivacyPlan, part: str, partners: int, range_users: int) -> "IntegerCode":
        """Grain, range and modulus for a part and so many partners; from the clip norm and one partner's noise.

        Args:
            partners: in the cohort.
            range_users: the sum's coordinates are clamped to so many users' clip norms; public. More users at a
                partner matter only where that many of them pull one number the same way.
        Raises: PrivacyError: more than 32 bits would be needed, or a part that the plan does not have.
        Privacy: clamping moves no two sums further apart, so that the sensitivity stays.
        """
        noise_std = plan.noise_std(part)
        (l2_clip_norm,) = (p.l2_clip_norm for p in plan.parts if p.part == part)
        grain = math.ldexp(1.0, math.frexp(noise_std / GRAINS_PER_NOISE)[1] - 1)  # the power of two below
        clamp = l2_clip_norm * range_users
        largest = math.ceil((clamp + _FURTHEST_NOISE * noise_std) / grain) + REACH + 1
        bits = (2 * partners * largest).bit_length()
        if bits > MAX_BITS:
            raise PrivacyError(f"sums of {partners} partners need {bits} bits, {MAX_BITS} are had", "lower range_users")
        return cls(grain, clamp, bits)


def slack(partners: int, numbers: int, steps: int) -> float:
    """By what the probability of anything may differ from that of the continuous mechanism, as a factor minus 1.

    Of ideal draws. Those that are made come from 64-bit words and float64, as those of all DP-SGD software do, and no
    accounting speaks of their last bits.

    Args:
        partners, numbers, steps: of sums, of numbers in each, and how many sums there are.

    >>> slack(partners=100, numbers=10**6, steps=1000) < 1e-250
    True
    """
    # The narrowest Gaussian in the proof has half the variance; the theta series' first term bounds the others.
    smoothing = 4 * math.exp(-2 * math.pi**2 * ROUNDING_STD**2 / 2)
    return 4 * partners * numbers * steps * smoothing
