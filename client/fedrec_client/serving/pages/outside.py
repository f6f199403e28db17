"""What pages are told of by those who train: what an adapter promises, and what the budget still has."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Tell = Callable[[], Mapping[str, Any] | None]


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class Outside:
    """Asked anew for each page; each gives None where there is nothing to tell.

    Attributes:
        statement: of the adapter that is served, as its `privacy.json`.
        budget: `epsilon_spent`, `epsilon_left` and `delta` of the partner's ledger.
        on_keys_changed: called when an API key was made or revoked: a `KeyRing`'s `forget`.
    """

    statement: Tell = _nothing
    budget: Tell = _nothing
    on_keys_changed: Callable[[], None] = _nothing


@dataclass(frozen=True)
class Promise:
    """What of a statement the storefront says.

    Attributes:
        found_rate: the most with which one user can be found out, at `false_alarms`; None: it does not say.
        caveat: why the promise does not hold in earnest, "" if it does.
        correction_epsilon, correction_delta: what a correction of the reader of requests promises beside the adapter;
            None: there is none. For people whom both were learnt from, the epsilons add up.
    """

    epsilon: float | None
    delta: float | None
    unit: str
    steps: int
    found_rate: float | None
    false_alarms: float | None
    caveat: str
    correction_epsilon: float | None = None
    correction_delta: float | None = None

    @classmethod
    def read(cls, statement: Mapping[str, Any] | None) -> "Promise | None":
        """None: there is no adapter yet."""
        if statement is None:
            return None
        correction = statement.get("correction") or {}
        return cls(
            epsilon=statement.get("epsilon"),
            delta=statement.get("delta"),
            unit=str(statement.get("unit", "user")),
            steps=sum(int(part.get("steps", 0)) for part in statement.get("parts", ())),
            found_rate=statement.get("found_rate_at_most"),
            false_alarms=statement.get("false_alarm_rate"),
            caveat=str(statement.get("noise_caveat") or "") if statement.get("simulated") else "",
            correction_epsilon=correction.get("epsilon"),
            correction_delta=correction.get("delta"),
        )
