"""Arms of an A/B test: whose arm is which by hash alone, and which arm did better."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

from fedrec.errors import ConfigError, DataError

DEFAULT = "default"
_NORMAL = NormalDist()


def arm_of(user: str, shares: Sequence[tuple[str, float]], salt: str) -> str:
    """The arm of a user, or a session: the same whenever and wherever it is asked; "default" if there are none.

    Args:
        shares: arms with their shares, which add up to 1.
        salt: of the test; another shuffles everybody anew.
    Raises: ConfigError: a share is not positive, or they do not add up to 1.
    """
    if not shares:
        return DEFAULT
    if any(not share > 0 for _, share in shares) or abs(math.fsum(share for _, share in shares) - 1) > 1e-6:
        raise ConfigError("the shares of the arms are not positive, or do not add up to 1", "mend [[arms]]")
    digest = hashlib.sha256(f"{len(salt)}:{salt}{user}".encode()).digest()
    place, so_far = int.from_bytes(digest[:8], "big") / 2**64, 0.0
    for name, share in shares:
        so_far += share
        if place < so_far:
            return name
    return shares[-1][0]


@dataclass(frozen=True)
class ArmResult:
    """How an arm did.

    Attributes:
        rate: of lists that were clicked.
        low, high: Wilson's 95% interval of it.
        difference: of the rate from the first arm's.
        p_value: of the two-proportion test against the first arm; 1 of the first arm itself.
    """

    arm: str
    shown: int
    clicked: int
    rate: float
    low: float
    high: float
    difference: float
    p_value: float


@dataclass(frozen=True)
class ArmComparison:
    """All arms, the first being what the others are compared with. One test for each; nothing corrects for many."""

    arms: tuple[ArmResult, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def compare_arms(counts: Mapping[str, tuple[int, int]]) -> ArmComparison:
    """Compare click-through.

    Args:
        counts: of each arm, lists that were shown and those of them that were clicked, so each at most once.
    Raises: DataError: a count is negative, or more were clicked than shown.

    >>> [round(arm.p_value, 4) for arm in compare_arms({"a": (1000, 100), "b": (1000, 130)}).arms]
    [1.0, 0.0355]
    """
    for arm, (shown, clicked) in counts.items():
        if not 0 <= clicked <= shown:
            raise DataError(f"arm {arm}: {clicked} clicked of {shown} shown", "count each shown list once")
    first = next(iter(counts.values()), (0, 0))
    return ArmComparison(tuple(_result(arm, *count, *first) for arm, count in counts.items()))


def _result(arm: str, shown: int, clicked: int, first_shown: int, first_clicked: int) -> ArmResult:
    rate, first = clicked / max(shown, 1), first_clicked / max(first_shown, 1)
    low, high = wilson(shown, clicked)
    p_value = two_proportions(shown, clicked, first_shown, first_clicked)
    return ArmResult(arm, shown, clicked, rate, low, high, rate - first, p_value)


def wilson(shown: int, clicked: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a rate; all of 0..1 if nothing was shown."""
    if not shown:
        return 0.0, 1.0
    z, rate = _NORMAL.inv_cdf(0.5 + level / 2), clicked / shown
    middle = (rate + z * z / (2 * shown)) / (1 + z * z / shown)
    half = z / (1 + z * z / shown) * math.sqrt(rate * (1 - rate) / shown + z * z / (4 * shown * shown))
    return (middle - half if clicked else 0.0), (middle + half if clicked < shown else 1.0)


def two_proportions(shown: int, clicked: int, other_shown: int, other_clicked: int) -> float:
    """Two-sided p-value that two rates are the same, pooled; 1 where nothing can be told."""
    if not shown or not other_shown:
        return 1.0
    pooled = (clicked + other_clicked) / (shown + other_shown)
    spread = math.sqrt(pooled * (1 - pooled) * (1 / shown + 1 / other_shown))
    if spread == 0:
        return 1.0
    return 2 * _NORMAL.cdf(-abs(clicked / shown - other_clicked / other_shown) / spread)
