"""The mean of adapter differences, with weights that no partner can claim, and the check that precedes it."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import ConfigError, FedrecError, ProtocolError
from fedrec.model.adapter import AdapterDelta, AdapterSpec, Shape, Tensors, mismatches
from fedrec.wire import RoundPlan, UpdateHeader


@dataclass(frozen=True)
class PartnerUpdate:
    """A partner's checked answer to a round. Released."""

    partner: str
    adapter_delta: AdapterDelta = field(repr=False)


class Running(Protocol):
    """Takes updates one by one, so that a coordinator need not hold those of all partners where a sum is enough."""

    def problems(self, update: PartnerUpdate) -> list[str]:
        """Why an update cannot be taken next, with the partner's name and without values; empty if it can."""

    def add(self, update: PartnerUpdate) -> None:
        """Take the next update; they come in the order of the partners' names.

        Raises: ProtocolError: it does not fit the ones before, is not finite, or comes out of order.
        """

    def result(self) -> AdapterDelta:
        """What `aggregate` makes of the same updates, to the last bit. Raises ProtocolError: there was none."""


class Aggregator(Protocol):
    """Makes one difference of many."""

    @property
    def least_answers(self) -> int:
        """Updates below which it refuses to make a difference, since its promise would not hold."""

    def running(self) -> Running:
        """Begin to aggregate updates as they come."""

    def aggregate(self, updates: Sequence[PartnerUpdate]) -> AdapterDelta:
        """Combine updates; the order in which they come never matters, to the last bit.

        Raises: ProtocolError: too few updates or none, a partner twice, names or shapes that differ, a number not
            finite.
        Privacy: post-processing of what the partners released.
        """


@dataclass(frozen=True)
class UniformMean:
    """Every partner counts the same: the sum over the number of replies. The one mean that fits secagg mode.

    >>> one, three = (AdapterDelta({"w": np.full(1, x, np.float32)}) for x in (1, 3))
    >>> UniformMean().aggregate([PartnerUpdate("a", one), PartnerUpdate("b", three)]).tensors["w"].tolist()
    [2.0]
    """

    @property
    def least_answers(self) -> int:
        """See `Aggregator`."""
        return 1

    def running(self) -> "RunningMean":
        """See `Aggregator`."""
        return RunningMean(None)

    def aggregate(self, updates: Sequence[PartnerUpdate]) -> AdapterDelta:
        """See `Aggregator`."""
        return add_all(RunningMean(None), updates)


@dataclass(frozen=True)
class PublicWeights:
    """A mean with weights fixed in public before the run, over the partners that answered.

    Args:
        weights: partner -> weight, finite and > 0.
    Raises: ConfigError: naming every weight out of range.
    Privacy: not for secagg mode: weights scale the shares of the noise too, and the heaviest partner's users
        would stand behind less noise than the plan says.
    """

    weights: Mapping[str, float]

    def __post_init__(self) -> None:
        wrong = [name for name, weight in self.weights.items() if not (math.isfinite(weight) and weight > 0)]
        problems = [f"{name}: weight must be finite and > 0" for name in wrong]
        if problems or not self.weights:
            raise ConfigError.of_all(problems or ["none given"], "give each partner a weight", "weights")

    @property
    def least_answers(self) -> int:
        """See `Aggregator`."""
        return 1

    def running(self) -> "RunningMean":
        """See `Aggregator`."""
        return RunningMean(self.weights)

    def aggregate(self, updates: Sequence[PartnerUpdate]) -> AdapterDelta:
        """See `Aggregator`. A partner without a weight is a ProtocolError too."""
        return add_all(RunningMean(self.weights), updates)


class RunningMean:
    """A mean that grows update by update: one sum in float64, whatever the number of partners.

    Args:
        weights: partner -> weight; None counts everyone alike.
    """

    def __init__(self, weights: Mapping[str, float] | None) -> None:
        self._weights = weights
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._total = 0.0
        self._last = ""

    def add(self, update: PartnerUpdate) -> None:
        """See `Running`. In name order, so that the bits depend on nothing but the updates."""
        if problems := self.problems(update):
            raise _cannot_be_added(problems)
        weight = 1.0 if self._weights is None else self._weights[update.partner]
        for name, tensor in update.adapter_delta.tensors.items():
            term = weight * tensor.astype(np.float64)
            if name in self._sums:
                self._sums[name] += term
            else:
                self._sums[name] = 0 + term  # as a sum begins: no -0.0
        self._total, self._last = self._total + weight, update.partner

    def result(self) -> AdapterDelta:
        """See `Running`."""
        sums = self.totals()
        return AdapterDelta({n: np.asarray(s / self._total, dtype=np.float32) for n, s in sums.items()})

    def totals(self) -> dict[str, NDArray[np.float64]]:
        """The weighted sums. Raises ProtocolError: there was no update."""
        if not self._sums:
            raise ProtocolError("no updates to aggregate", "a round needs its quorum")
        return self._sums

    def problems(self, update: PartnerUpdate) -> list[str]:
        """See `Running`."""
        found = update_problems(update, {name: total.shape for name, total in self._sums.items()}, self._last)
        if self._weights is not None and update.partner not in self._weights:
            found.append(f"partner {update.partner}: has no weight")
        return found


def add_all(running: Running, updates: Sequence[PartnerUpdate]) -> AdapterDelta:
    """Add updates in the order of names, whatever order they stand in; all problems of all of them are told at once.

    Raises: ProtocolError: as `Aggregator.aggregate`.
    """
    problems = list[str]()
    for update in sorted(updates, key=lambda update: update.partner):
        found = running.problems(update)
        problems += found
        if not found:
            running.add(update)
    if problems:
        raise _cannot_be_added(problems)
    return running.result()


def update_problems(update: PartnerUpdate, shapes: Mapping[str, Shape], last: str) -> list[str]:
    """Why an update cannot follow those before it.

    Args:
        shapes: of the updates before; empty: it is the first.
        last: partner of the one before, or empty.
    """
    tensors = update.adapter_delta.tensors
    found = mismatches(tensors, shapes or _shapes(tensors))
    found += [] if update.adapter_delta.is_finite else ["not finite"]
    if shapes and update.partner <= last:
        found += ["stands here twice" if update.partner == last else "comes after a later name"]
    return [f"partner {update.partner}: {problem}" for problem in found]


def _cannot_be_added(problems: Sequence[str]) -> FedrecError:
    return ProtocolError.of_all(problems, "check replies before they are aggregated", "aggregation")


def _shapes(tensors: Tensors) -> dict[str, Shape]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def check_reply(
    header: UpdateHeader,
    adapter_delta: AdapterDelta,
    *,
    sender: str,
    plan: RoundPlan,
    spec: AdapterSpec,
    max_norm: float,
    cohort: Collection[str],
    answered: Collection[str] = (),
) -> None:
    """Refuse an answer that is not exactly what was asked.

    Args:
        header, adapter_delta: from outside.
        sender: the partner behind the node that the message came from; what the header says must agree.
        plan: what was asked.
        spec: shapes of the round's part.
        max_norm: largest L2 norm of a difference; honest noise must fit below it.
        cohort: partners that were asked.
        answered: partners whose answer to this attempt has been taken.
    Raises: ProtocolError: naming the sender and all that is wrong, without values. No example count is looked
        at: there is none to claim. A bound on the size follows from shapes and dtype.
    """
    problems = [
        f"{name} is not the round's"
        for name, claimed, asked in (
            ("run", header.run, plan.run),
            ("round", header.round, plan.round),
            ("attempt", header.attempt, plan.attempt),
            ("privacy plan", header.plan_hash, plan.privacy_plan_hash),
        )
        if claimed != asked
    ]
    problems += ["signs with another partner's name"] if header.partner != sender else []
    problems += ["is not in the cohort"] if sender not in cohort else []
    problems += ["has answered already"] if sender in answered else []
    problems += mismatches(adapter_delta.tensors, spec.part(plan.part))
    if not adapter_delta.is_finite:
        problems.append("adapter_delta is not finite")
    elif adapter_delta.l2_norm > max_norm:
        problems.append(f"adapter_delta has a norm above {max_norm:g}")
    if header.delta_hash != adapter_delta.hash:
        problems.append("delta_hash is not that of the tensors")
    if problems:
        raise ProtocolError(f"partner {sender}: {'; '.join(problems)}", "its turn in this round is lost")
