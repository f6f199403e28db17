"""Worst-case users, there or not by the toss of a coin, through the code that releases: clip, sum, noise, step."""

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from fedrec.privacy.gradients import UserDPOptimizer
from fedrec.privacy.noise import NoiseSource
from fedrec.privacy.plan import PartPlan, PrivacyPlan
from fedrec.privacy.sampling import poisson_sample
from fedrec_sim.audit.bounds import Guesses

# Little noise and few steps, so that few releases tell much; the code is the same for any plan.
STEPS, NOISE_MULTIPLIER, CLIP, DELTA = 2, 0.5, 0.25, 1e-5
MOST_CANARIES = 10
# Of a layer's two tensors: the clip norm is over both together, and each canary has half of its gradient in either.
_SHAPES = ((MOST_CANARIES,), (2, MOST_CANARIES))
_PARAMS = sum(math.prod(shape) for shape in _SHAPES)
_DIRECTIONS = torch.eye(_PARAMS)[: 2 * MOST_CANARIES].view(2, MOST_CANARIES, _PARAMS).sum(0) * math.sqrt(0.5)


@dataclass(frozen=True)
class Audited:
    """What is audited: the code that makes a step, and where its noise and its sample come from.

    Attributes:
        optimizer: the real one, or a mutant.
        context: of a step's noise; each step has its own, as in the worker.
        sample: which users take part in a step.
        canaries: worst-case users, each with a direction of its own; 1 to `MOST_CANARIES`.
        others: users beside them; 0 with one canary: absence is an empty sample.
        sampling_prob: of the plan.
    """

    optimizer: type[UserDPOptimizer] = UserDPOptimizer
    context: Callable[[int], bytes] = field(default=lambda step: b"audit|step %d" % step)
    sample: Callable[[int, float, NoiseSource], np.ndarray] = poisson_sample
    canaries: int = MOST_CANARIES
    others: int = 16
    sampling_prob: float = 1.0

    @property
    def plan(self) -> PrivacyPlan:
        """One part, `inspect`: the noise of one partner alone must do."""
        part = PartPlan("audit", self.sampling_prob, CLIP, NOISE_MULTIPLIER, STEPS)
        return PrivacyPlan("user", "inspect", DELTA, (part,), 1)


def guess(audited: Audited, releases: int, root: bytes) -> Guesses:
    """Release so many times, and guess of each canary whether it was there.

    The attacker knows the plan, every other user and the canaries' gradients, which change sides from step to step,
    so that noise used twice cancels. Canaries have orthogonal directions and coins of their own: independent trials, as
    far as the noise is independent between directions. The threshold lies half-way, fixed before the first release.

    Args:
        root: 32 bytes, keys coins and noise; fresh, or fixed for a test.
    """
    others = _others(audited.others)
    directions = _DIRECTIONS[: audited.canaries]
    threshold = 0.5 * STEPS * audited.sampling_prob
    counts = np.zeros((2, 2), np.int64)  # [was there, called there]
    for number in range(releases):
        key = hashlib.sha256(root + number.to_bytes(8, "big")).digest()
        there = NoiseSource.from_root(key, b"audit|coins").uniform(audited.canaries) <= 0.5
        canaries = 1000.0 * directions[torch.from_numpy(there)]
        score = torch.zeros(audited.canaries, dtype=torch.float64)
        for side, release in zip(_sides(), _releases(audited, others, canaries, key), strict=True):
            score += side * (directions.double() @ release) / CLIP
        np.add.at(counts, (there.astype(int), (score.numpy() > threshold).astype(int)), 1)
    (true_quiet, false_alarms), (missed, found) = counts.tolist()
    return Guesses(true_quiet + false_alarms, false_alarms, missed + found, found)


def _releases(audited: Audited, others: Tensor, canaries: Tensor, root: bytes) -> Iterator[Tensor]:
    """Each step's noised sum, float64 `[params]`, less the known sum of those others who were drawn."""
    noise_std = audited.plan.noise_std("audit")
    for step, side in enumerate(_sides()):
        parameters = [nn.Parameter(torch.zeros(shape)) for shape in _SHAPES]
        rows = torch.cat([others, side * canaries])
        source = NoiseSource.from_root(root, audited.context(step))
        users = torch.from_numpy(audited.sample(len(rows), audited.sampling_prob, source))
        optimizer = audited.optimizer(
            parameters, learning_rate=1.0, l2_clip_norm=CLIP, noise_std=noise_std, source=source
        )
        _give_gradients(parameters, rows[users])
        optimizer.clip_and_accumulate()
        optimizer.step()
        released = -torch.cat([parameter.detach().flatten() for parameter in parameters])
        yield released.double() - _clipped_sum(others[users[users < len(others)]])


def _sides() -> list[int]:
    return [1 if step % 2 == 0 else -1 for step in range(STEPS)]


def _give_gradients(parameters: list[nn.Parameter], rows: Tensor) -> None:
    pieces = torch.split(rows, [parameter.numel() for parameter in parameters], dim=1)
    for parameter, piece in zip(parameters, pieces, strict=True):
        parameter.grad_sample = piece.reshape(len(rows), *parameter.shape)  # type: ignore[attr-defined]


def _others(count: int) -> Tensor:
    """Users below, at and far above the clip norm; public here."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(count, _PARAMS))
    sizes = CLIP * 10.0 ** rng.uniform(-2, 3, size=(count, 1))
    return torch.from_numpy(directions / np.linalg.norm(directions, axis=1, keepdims=True) * sizes).float()


def _clipped_sum(rows: Tensor) -> Tensor:
    """What the attacker takes off; an implementation of its own, in float64."""
    norms = rows.double().norm(dim=1, keepdim=True)
    clipped: Tensor = rows.double() * (CLIP / norms).clamp(max=1.0)
    return clipped.sum(0)
