"""From how often an attacker guesses right to what epsilon is at least, whatever anybody claims."""

import math
from dataclasses import dataclass

from scipy.stats import beta

from fedrec.privacy.accounting import delta_pld, epsilon_pld
from fedrec.privacy.mechanism import Event

# Chance that a true claim is refuted, over both bounds of one audit together.
ERROR_PROBABILITY = 1e-4
_EPSILONS = [0.05 * 1.25**i for i in range(28)]  # .05 to 21
_LEAST_SCALE, _GREATEST_SCALE = 0.15, 30.0


@dataclass(frozen=True)
class Guesses:
    """How an attacker did who said "the user was there" or "was not", in worlds with and without the user.

    Attributes:
        absent: worlds without the user; `false_alarms` of them were called "there".
        present: worlds with the user; `found` of them were called "there".
    """

    absent: int
    false_alarms: int
    present: int
    found: int

    def mirrored(self) -> "Guesses":
        """The same attacker asked about absence: adding and removing a user are both promised."""
        return Guesses(self.present, self.present - self.found, self.absent, self.absent - self.false_alarms)

    def false_alarm_rate_at_most(self) -> float:
        """Clopper & Pearson 1934, doi:10.1093/biomet/26.4.404: right but for half of `ERROR_PROBABILITY`."""
        if self.false_alarms == self.absent:
            return 1.0
        return float(beta.ppf(1 - ERROR_PROBABILITY / 2, self.false_alarms + 1, self.absent - self.false_alarms))

    def found_rate_at_least(self) -> float:
        """The same from below."""
        if self.found == 0:
            return 0.0
        return float(beta.ppf(ERROR_PROBABILITY / 2, self.found, self.present - self.found + 1))


def refutes(guesses: Guesses, events: list[Event]) -> bool:
    """Whether no mechanism with the privacy curve of `events` lets anybody guess that well.

    Of every test, found rate <= e**epsilon * false alarm rate + delta(epsilon), at every epsilon and in both
    directions. The noise may be of any kind, if the trials are independent.
    Reference: Kairouz et al. 2015, arXiv:1311.0776, theorem 2.1.
    """
    deltas = delta_pld(events, _EPSILONS)
    return any(
        one.found_rate_at_least() > math.exp(epsilon) * one.false_alarm_rate_at_most() + delta
        for one in (guesses, guesses.mirrored())
        for epsilon, delta in zip(_EPSILONS, deltas, strict=True)
    )


def epsilon_at_least(guesses: Guesses, events: list[Event], delta: float) -> float | None:
    """The largest epsilon that the guesses prove, 0 if none: of the claimed mechanism with another amount of noise.

    With more noise than at the bound the guesses would refute the claim; None if they refute it with any noise. Tighter
    than what a single epsilon and delta can prove. Reference: Nasr et al. 2023, arXiv:2302.07956, section 4.
    """

    def scaled(factor: float) -> list[Event]:
        return [(part, prob, noise * factor, steps) for part, prob, noise, steps in events]

    not_refuted, refuted = _LEAST_SCALE, _GREATEST_SCALE
    if not refutes(guesses, scaled(refuted)):
        return 0.0
    if refutes(guesses, scaled(not_refuted)):
        return None
    while refuted / not_refuted > 1.02:
        middle = math.sqrt(refuted * not_refuted)
        not_refuted, refuted = (not_refuted, middle) if refutes(guesses, scaled(middle)) else (middle, refuted)
    return epsilon_pld(scaled(refuted), delta)
