"""The mean of adapter differences, with weights that no partner can claim, and the check that precedes it."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from fedrec.errors import ConfigError, ProtocolError
from fedrec.model.adapter import AdapterDelta, AdapterSpec, mismatches
from fedrec.wire import RoundPlan, UpdateHeader


@dataclass(frozen=True)
class PartnerUpdate:
    """A partner's checked answer to a round. Released."""

    partner: str
    adapter_delta: AdapterDelta = field(repr=False)


class Aggregator(Protocol):
    """Makes one difference of many."""

    def aggregate(self, updates: Sequence[PartnerUpdate]) -> AdapterDelta:
        """Combine updates; the order in which they come never matters, to the last bit.

        Raises: ProtocolError: no update, a partner twice, names or shapes that differ, a number not finite.
        Privacy: post-processing of what the partners released.
        """


@dataclass(frozen=True)
class UniformMean:
    """Every partner counts the same: the sum over the number of replies. The one mean that fits secagg mode.

    >>> one, three = (AdapterDelta({"w": np.full(1, x, np.float32)}) for x in (1, 3))
    >>> UniformMean().aggregate([PartnerUpdate("a", one), PartnerUpdate("b", three)]).tensors["w"].tolist()
    [2.0]
    """

    def aggregate(self, updates: Sequence[PartnerUpdate]) -> AdapterDelta:
        """See `Aggregator`."""
        return _weighted_mean(updates, {update.partner: 1.0 for update in updates})


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

    def aggregate(self, updates: Sequence[PartnerUpdate]) -> AdapterDelta:
        """See `Aggregator`. A partner without a weight is a ProtocolError too."""
        return _weighted_mean(updates, self.weights)


def _weighted_mean(updates: Sequence[PartnerUpdate], weights: Mapping[str, float]) -> AdapterDelta:
    """Summed in float64 in name order, so that the bits depend on nothing but the updates."""
    ordered = sorted(updates, key=lambda update: update.partner)
    _refuse_what_cannot_be_added(ordered, weights)
    total = sum(weights[update.partner] for update in ordered)
    names = ordered[0].adapter_delta.tensors
    mean = {}
    for name in names:
        terms = (weights[u.partner] * u.adapter_delta.tensors[name].astype(np.float64) for u in ordered)
        mean[name] = np.asarray(sum(terms) / total, dtype=np.float32)
    return AdapterDelta(mean)


def _refuse_what_cannot_be_added(updates: Sequence[PartnerUpdate], weights: Mapping[str, float]) -> None:
    if not updates:
        raise ProtocolError("no updates to aggregate", "a round needs its quorum")
    problems = []
    shapes = {name: tensor.shape for name, tensor in updates[0].adapter_delta.tensors.items()}
    for place, update in enumerate(updates):
        found = mismatches(update.adapter_delta.tensors, shapes)
        found += [] if update.adapter_delta.is_finite else ["not finite"]
        found += [] if update.partner in weights else ["has no weight"]
        found += ["stands here twice"] if place and updates[place - 1].partner == update.partner else []
        problems += [f"partner {update.partner}: {problem}" for problem in found]
    if problems:
        raise ProtocolError.of_all(problems, "check replies before they are aggregated", "aggregation")


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
