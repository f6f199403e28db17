"""Figures of fairness that leave a partner: one noised sum over its people, paid before anybody's data are read.

Each person adds one row: the shares of exposure that their list gives to groups of items, and, in each division of the
people, one for being in a group and the quality that they got, in that group's places. All divisions of items and
people go into one vector and one Gaussian mechanism: its cost is that of one step.
"""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedrec.fairness.figures import Served, exposure_rows, unequal
from fedrec.fairness.groups import ItemGroups
from fedrec.privacy.clipping import BoundedSum, clip_and_sum
from fedrec.privacy.ledger import PrivacyLedger
from fedrec.privacy.noise import NoiseSource, add_noise
from fedrec.privacy.plan import PrivacyPlan, calibrate

Floats = NDArray[np.float64]
PART = "fairness"
_Z = 1.959964  # of a 95% interval
# A person's parts of the row are scaled by these: the noise on each part is that of the whole, over its scale. A count
# matters less than a quality, whose error it enters times a mean far below 1; shares are large sums.
_COUNT, _QUALITY, _EXPOSURE = 0.35, 1.0, 0.5
# A group's quality is shown if noise alone leaves it within so much of the true one.
WIDEST = 0.1


@dataclass(frozen=True)
class FairnessQuery:
    """What is asked: groups by name, all public; who is in them is not.

    Attributes:
        metric: what quality is, "hr@10".
        items: divisions of the items.
        people: names of the groups in each division of the people, by the division's name.
    """

    metric: str
    items: tuple[ItemGroups, ...] = field(repr=False)
    people: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def l2_norm(self) -> float:
        """The most that one person moves the sum: rows are no longer than this, whatever somebody did."""
        return math.sqrt(len(self.items) * _EXPOSURE**2 + len(self.people) * (_COUNT**2 + _QUALITY**2))

    @property
    def hash(self) -> str:
        """Names the question."""
        divisions = [(one.name, one.names, hashlib.sha256(one.weights.tobytes()).hexdigest()) for one in self.items]
        text = json.dumps([self.metric, divisions, self.people, _COUNT, _QUALITY, _EXPOSURE])
        return hashlib.sha256(text.encode()).hexdigest()

    def plan(self, epsilon: float, delta: float) -> PrivacyPlan:
        """The least noise with which this costs at most epsilon: one step over everybody."""
        return calibrate([(PART, 1, 1.0, self.l2_norm, 1.0)], epsilon, delta, "inspect", 1)

    def rows(self, served: Served) -> Floats:
        """Each person's row, `[people, numbers]`, of norm `l2_norm` at most. Private."""
        blocks = [_EXPOSURE * exposure_rows(served.lists, one) for one in self.items]
        for (name, names), people in zip(self.people, served.people, strict=True):
            if (name, names) != (people.name, people.names):
                raise ValueError("the people are divided otherwise than the query asks")
            is_in = (people.codes[:, None] == np.arange(len(names))).astype(np.float64)
            blocks += [_COUNT * is_in, _QUALITY * is_in * served.quality[:, None]]
        return np.concatenate(blocks, 1)


@dataclass(frozen=True)
class Released:
    """A noised sum; may leave.

    Attributes:
        total: float64 `[numbers]`, of one partner or of several added up.
        noise_std: of each number, of all noise in it together.
    """

    total: Floats
    noise_std: float

    def plus(self, other: "Released") -> "Released":
        """The sum over two partners' people; noise adds up too."""
        return Released(self.total + other.total, math.hypot(self.noise_std, other.noise_std))


def release_fairness(
    query: FairnessQuery,
    read: Callable[[], Served],
    plan: PrivacyPlan,
    ledger: PrivacyLedger,
    source: NoiseSource,
    *,
    run: str,
    event: str,
) -> Released:
    """Pay, read, add up, noise, note; in this order.

    Args:
        read: gives everybody's lists and quality; called once the cost is on the disk. Private.
        plan: of `query.plan`; mechanism and accounting both read it.
        source: of this question alone; its key must be bound to query, adapter and data, as `event` names them.
        event: names the whole question: one that is repeated must meet the same data and noise.
    Raises: BudgetError: the budget does not cover it; nothing is read then. PrivacyError: as `PrivacyLedger.release`.
    Privacy: one Gaussian mechanism of sensitivity `query.l2_norm` for adding or removing one person, charged to the
        ledger. Thresholds and intervals are made of what it gives, and cost nothing more.
    """
    (part,) = plan.parts
    ledger.reserve(
        event,
        plan_hash=plan.hash,
        run=run,
        part=part.part,
        sampling_prob=part.sampling_prob,
        noise_multiplier=part.noise_multiplier,
        steps=1,
        most_steps=part.total_steps,
        note="figures of fairness",
    )
    noise_std = plan.noise_std(PART)
    noised = add_noise(bounded_rows(query, read(), part.l2_clip_norm), noise_std, source).numpy()
    ledger.release(event, hashlib.sha256(noised.tobytes()).hexdigest())
    return Released(noised.astype(np.float64), noise_std)


def bounded_rows(query: FairnessQuery, served: Served, l2_clip_norm: float) -> BoundedSum:
    """The sum of everybody's rows, each cut to the norm. Private until noised."""
    return clip_and_sum(torch.from_numpy(query.rows(served)).float(), l2_clip_norm)


def figures_of(query: FairnessQuery, released: Released) -> dict[str, Any]:
    """Shares and means with 95% intervals, for JSON. Post-processing: costs nothing.

    Intervals hold the noise, and, for quality, that these people are some of those who might come: of a mean m in
    [0, 1] the variance is m (1 - m) at most. A group below the threshold is not shown.
    """
    parts, place = list[Floats](), 0
    lengths = [len(one.names) for one in query.items] + [len(names) for _, names in query.people for _ in range(2)]
    for length in lengths:
        parts.append(released.total[place : place + length])
        place += length
    exposure = {
        one.name: _shares(one.names, parts[at] / _EXPOSURE, released.noise_std / _EXPOSURE)
        for at, one in enumerate(query.items)
    }
    quality = {}
    for at, (name, names) in enumerate(query.people):
        counts, sums = parts[len(query.items) + 2 * at : len(query.items) + 2 * at + 2]
        quality[name] = _means(names, counts / _COUNT, sums / _QUALITY, released.noise_std)
    return {"metric": query.metric, "exposure": exposure, "quality_by_group": quality}


def threshold(noise_std: float) -> float:
    """People that a group must have, by the noised count, for its quality to be shown."""
    return _Z * noise_std / _QUALITY / WIDEST


def _shares(names: Sequence[str], sums: Floats, noise_std: float) -> dict[str, Any]:
    """The whole is not known exactly either: it is the noised sum over all groups, n of them."""
    whole = max(float(sums.sum()), 1.0)
    found: dict[str, Any] = {}
    for name, value in zip(names, sums, strict=True):
        share = float(value) / whole
        spread = noise_std / whole * math.sqrt(max(1 - 2 * share + len(names) * share**2, 0.0))
        low, high = share - _Z * spread, share + _Z * spread
        found[name] = {"share": min(max(share, 0.0), 1.0), "low": max(low, 0.0), "high": min(max(high, 0.0), 1.0)}
        found[name]["is_shown"] = low > 0
    return {"groups": found, **unequal([one["share"] for one in found.values()])}


def _means(names: Sequence[str], counts: Floats, sums: Floats, noise_std: float) -> dict[str, Any]:
    least, found = threshold(noise_std), dict[str, Any]()
    for name, count, total in zip(names, counts.tolist(), sums.tolist(), strict=True):
        if count < least:
            found[name] = {"is_shown": False}
            continue
        mean = min(max(total / count, 0.0), 1.0)
        noise = noise_std / count * math.sqrt(1 / _QUALITY**2 + mean**2 / _COUNT**2)
        half = _Z * math.sqrt(noise**2 + mean * (1 - mean) / count)
        found[name] = {"is_shown": True, "people": round(count), "mean": mean, "noise": _Z * noise}
        found[name] |= {"low": max(mean - half, 0.0), "high": min(mean + half, 1.0)}
    shown = [one["mean"] for one in found.values() if one["is_shown"]]
    return {"threshold": least, "groups": found, **unequal(shown)}
