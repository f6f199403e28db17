"""The privacy plan: one frozen object that noise, accounting and ledger all read, so they cannot differ."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fedrec.errors import PrivacyError
from fedrec.privacy.accounting import dp_event, epsilon_pld, least_scale
from fedrec.privacy.mechanism import Event, is_count, is_positive, mechanism_problems

Mode = Literal["none", "inspect", "secagg"]
PartShare = tuple[str, int, float, float, float]
"""part, total_steps, sampling_prob, l2_clip_norm, share of the budget (any positive unit)."""

REMEDY = "mend the plan; `calibrate` makes a valid one"


@dataclass(frozen=True)
class PartPlan:
    """How one part of the adapter is trained. Public.

    Args:
        part: prior, head or lora, say.
        sampling_prob: probability of each user in each step, in (0, 1].
        l2_clip_norm: most that one user moves a step's sum; gradient units, > 0.
        noise_multiplier: std of all the noise on a step's sum, in units of `l2_clip_norm`, > 0.
        total_steps: over the whole life of the plan, >= 1.
    Raises: PrivacyError: every field that is out of range, at once.
    """

    part: str
    sampling_prob: float
    l2_clip_norm: float
    noise_multiplier: float
    total_steps: int

    def __post_init__(self) -> None:
        if problems := _part_problems(vars(self)):
            raise PrivacyError.of_all(problems, REMEDY, "part plan")
        for name in ("sampling_prob", "l2_clip_norm", "noise_multiplier"):
            object.__setattr__(self, name, float(getattr(self, name)))  # 1 and 1.0 are one plan, one hash


@dataclass(frozen=True)
class PrivacyPlan:
    """What a partner agrees to before its rows are touched. Public.

    Args:
        unit: what is protected: a user with all interactions, at one partner, added or removed.
        mode: `inspect`: each partner's noise is enough alone; `secagg`: `quorum` partners' shares add up.
        delta: of (epsilon, delta), in (0, 1).
        parts: each once.
        quorum: partners whose noise adds up in `secagg` mode, >= 1.
        dishonest: further ones, without whose noise the guarantee holds; a sum is not opened with fewer partners than
            both together. 0 in `inspect` mode.
    Raises: PrivacyError: every field that is out of range, at once; mode `none`, which needs no plan.

    Example:
        >>> head = PartPlan("head", sampling_prob=1.0, l2_clip_norm=0.5, noise_multiplier=4.0, total_steps=10)
        >>> plan = PrivacyPlan("user", "secagg", 1e-5, (head,), quorum=4)
        >>> plan.noise_std("head"), plan.events({"head": 3})
        (1.0, [('head', 1.0, 4.0, 3)])
        >>> PrivacyPlan.from_dict(plan.to_dict()).hash == plan.hash
        True
    """

    unit: Literal["user"]
    mode: Mode
    delta: float
    parts: tuple[PartPlan, ...]
    quorum: int
    dishonest: int = 0

    def __post_init__(self) -> None:
        if problems := _plan_problems({**vars(self), "parts": [vars(part) for part in self.parts]}):
            raise PrivacyError.of_all(problems, REMEDY, "privacy plan")
        object.__setattr__(self, "delta", float(self.delta))
        object.__setattr__(self, "parts", tuple(self.parts))

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON; floats as their repr, which is exact."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        values = {**dataclasses.asdict(self), "parts": [dataclasses.asdict(part) for part in self.parts]}
        if not self.dishonest:  # as plans were before it was there, so that their hashes stay
            del values["dishonest"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "PrivacyPlan":
        """The inverse of `to_dict`. Raises: PrivacyError: every unknown, missing or wrong value at once."""
        if problems := _plan_problems(values):
            raise PrivacyError.of_all(problems, REMEDY, "privacy plan")
        return cls(**{**values, "parts": tuple(PartPlan(**part) for part in values["parts"])})

    def noise_std(self, part: str) -> float:
        """Std of the noise that ONE partner adds to each coordinate of its clipped sum; gradient units."""
        plan = self._part(part)
        share = math.sqrt(self.quorum) if self.mode == "secagg" else 1.0
        return plan.noise_multiplier * plan.l2_clip_norm / share

    def events(self, rounds_done: Mapping[str, int] | None = None) -> list[Event]:
        """What is charged: the whole plan, or only the steps done of each part (a round is a step).

        Raises: PrivacyError: a part that is not in the plan, or more steps than it allows.
        """
        done = {part.part: part.total_steps for part in self.parts} if rounds_done is None else rounds_done
        for name, steps in done.items():
            if not 0 <= steps <= self._part(name).total_steps:
                raise PrivacyError(f"{steps} steps of part {name!r}: the plan does not have so many", REMEDY)
        steps_of = [(part, done.get(part.part, 0)) for part in self.parts]
        return [(p.part, p.sampling_prob, p.noise_multiplier, steps) for p, steps in steps_of if steps]

    def dp_event(self) -> Any:
        """The whole plan for an accountant of dp_accounting. Raises: PrivacyError: dp_accounting is not installed."""
        return dp_event(self.events())

    def epsilon(self, rounds_done: Mapping[str, int] | None = None) -> float:
        """What the whole plan, or the steps done of each part, costs at its delta (PLD, an upper bound).

        Raises: PrivacyError: as `events`.
        """
        return epsilon_pld(self.events(rounds_done), self.delta)

    def calibrate(self, epsilon: float) -> "PrivacyPlan":
        """This plan with all its noise scaled alike, so that it costs just below `epsilon`; see `calibrate`."""
        shares = [(p.part, p.total_steps, p.sampling_prob, p.l2_clip_norm, mechanism_share(p)) for p in self.parts]
        return calibrate(shares, epsilon, self.delta, self.mode, self.quorum, self.dishonest)

    def _part(self, name: str) -> PartPlan:
        for part in self.parts:
            if part.part == name:
                return part
        raise PrivacyError(f"part {name!r} is not among the plan's {[p.part for p in self.parts]}", REMEDY)


def calibrate(
    shares: Sequence[PartShare], epsilon: float, delta: float, mode: Mode, quorum: int, dishonest: int = 0
) -> PrivacyPlan:
    """The least noise with which the whole plan costs at most `epsilon`, split over the parts by share.

    `steps * (sampling_prob / noise_multiplier)**2` of each part is proportional to its share; bisection on
    `epsilon_pld` finds the common scale.

    Args:
        shares: (part, total_steps, sampling_prob, l2_clip_norm, share); public.
        epsilon: target, > 0; the result lies less than .02 (and less than 1% of it) below.
        mode, quorum, dishonest: as in `PrivacyPlan`; the guarantee is the same, the noise of one partner differs.
    Raises: PrivacyError: a wrong figure (all at once), or a target that no noise reaches.
    """
    _check_target(shares, epsilon)
    whole = sum(share for *_, share in shares)

    def plan_at(scale: float) -> PrivacyPlan:
        parts = []
        for part, steps, prob, clip, share in shares:
            noise = scale * prob * math.sqrt(steps * whole / share)
            parts.append(PartPlan(part, prob, clip, noise, steps))
        return PrivacyPlan("user", mode, delta, tuple(parts), quorum, dishonest)

    plan_at(1.0)  # refuses wrong figures before `delta` is used below
    return plan_at(least_scale(lambda scale: plan_at(scale).epsilon(), epsilon, delta))


def mechanism_share(part: PartPlan) -> float:
    """How much of a budget a part takes, in the unit in which Gaussian mechanisms add up."""
    return part.total_steps * (part.sampling_prob / part.noise_multiplier) ** 2


def _check_target(shares: Sequence[PartShare], epsilon: float) -> None:
    problems = [] if 0 < epsilon < math.inf else [f"epsilon must be finite and > 0, is {epsilon!r}"]
    for part, steps, prob, _, share in shares:
        if not 0 < share < math.inf:
            problems.append(f"part {part!r}: share must be finite and > 0, is {share!r}")
        problems += [f"part {part!r}: {problem}" for problem in mechanism_problems(prob, 1.0, steps)]
    if problems:
        raise PrivacyError.of_all(problems, "mend the figures", "calibration")


def _part_problems(values: Mapping[str, Any]) -> list[str]:
    if problems := _key_problems(values, PartPlan):
        return problems
    part, clip = values["part"], values["l2_clip_norm"]
    problems = mechanism_problems(values["sampling_prob"], values["noise_multiplier"], values["total_steps"])
    if not isinstance(part, str) or not part:
        problems.append(f"part must be a name, is {part!r}")
    if not is_positive(clip) or not 1e-30 <= clip <= 1e30:
        problems.append(f"l2_clip_norm must be > 0, finite and within float32, is {clip!r}")
    return problems


def _plan_problems(values: Mapping[str, Any]) -> list[str]:
    if problems := _key_problems(values, PrivacyPlan):
        return problems
    mode, delta, parts, dishonest = values["mode"], values["delta"], values["parts"], values.get("dishonest", 0)
    if not isinstance(parts, list | tuple) or not all(isinstance(part, Mapping) for part in parts):
        return ["parts must be a list of tables"]
    names = [part.get("part") for part in parts]
    checks = [
        (values["unit"] == "user", f"unit must be 'user', is {values['unit']!r}"),
        (mode in ("inspect", "secagg"), f"mode must be 'inspect' or 'secagg', is {mode!r}"),
        (is_positive(delta) and delta < 1, f"delta must be in (0, 1), is {delta!r}"),
        (is_count(values["quorum"]), f"quorum must be a whole number >= 1, is {values['quorum']!r}"),
        (dishonest == 0 or is_count(dishonest), f"dishonest must be a whole number >= 0, is {dishonest!r}"),
        (dishonest == 0 or mode == "secagg", "dishonest is of secagg mode: in others each partner's noise is enough"),
        (
            not (is_count(dishonest) and is_count(values["quorum"])) or dishonest <= values["quorum"],
            "dishonest must not exceed quorum: masks bear no more, whoever is asked",
        ),
        (bool(parts), "parts must not be empty"),
        (all(names.count(name) == 1 for name in names), f"each part may stand once: {names}"),
    ]
    problems = [problem for holds, problem in checks if not holds]
    return problems + [f"parts[{i}]: {p}" for i, part in enumerate(parts) for p in _part_problems(part)]


def _key_problems(values: Mapping[str, Any], plan: type[PartPlan] | type[PrivacyPlan]) -> list[str]:
    fields = dataclasses.fields(plan)
    names = {field.name for field in fields}
    needed = {field.name for field in fields if field.default is dataclasses.MISSING}
    missing = [f"{name}: missing" for name in sorted(needed - values.keys())]
    return missing + [f"{name}: unknown" for name in sorted(values.keys() - names)]
