"""Errors that real systems have made, put into our own code on purpose: the audit must catch each of them."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from fedrec.privacy.clipping import BoundedSum, clip_and_sum
from fedrec.privacy.gradients import UserDPOptimizer
from fedrec.privacy.mechanism import Event
from fedrec.privacy.noise import NoiseSource
from fedrec.privacy.plan import PrivacyPlan
from fedrec_sim.audit.releases import Audited


class LessNoise(UserDPOptimizer):
    """Noise times .7."""

    def __init__(self, parameters: Sequence[nn.Parameter], **settings: Any) -> None:
        super().__init__(parameters, **{**settings, "noise_std": 0.7 * settings["noise_std"]})


class DoubledClip(UserDPOptimizer):
    """Clips at twice the norm that the noise was made for."""

    def __init__(self, parameters: Sequence[nn.Parameter], **settings: Any) -> None:
        super().__init__(parameters, **{**settings, "l2_clip_norm": 2 * settings["l2_clip_norm"]})


class CountsUsers(UserDPOptimizer):
    """Knows how many users a step had: no error yet, but what two of them need."""

    _users = 0

    def clip_and_accumulate(self) -> None:
        self._users += len(self.grad_samples[0])
        super().clip_and_accumulate()


class DividedNoise(CountsUsers):
    """Takes the noise for that of a mean and divides it by the root of the batch."""

    def add_noise(self) -> None:
        self._noise_std /= math.sqrt(max(self._users, 1))
        super().add_noise()


class ClippedByTensor(UserDPOptimizer):
    """Clips each tensor of a layer on its own: together they are longer than the norm."""

    def clip_and_accumulate(self) -> None:
        sums = [clip_and_sum(piece.flatten(1), self.max_grad_norm).value for piece in self.grad_samples]
        self._sum = BoundedSum(self._sum.value + torch.cat(sums), self.max_grad_norm)
        for parameter in self.params:
            parameter.grad_sample = None


class SilentWhenEmpty(CountsUsers):
    """Skips the noise of a step in which nobody was drawn."""

    def add_noise(self) -> None:
        self._noise_std = self._noise_std if self._users else 1e-6
        super().add_noise()


def everybody(n_users: int, _sampling_prob: float, _source: NoiseSource) -> np.ndarray:
    """Takes every user, whatever the plan says of sampling."""
    return np.arange(n_users)


def one_round_only(plan: PrivacyPlan) -> list[Event]:
    """A fresh accountant each round, which forgets the others."""
    return [(part, prob, noise, 1) for part, prob, noise, _ in plan.events()]


MUTANTS: dict[str, Audited] = {
    "noise_times_0.7": Audited(optimizer=LessNoise),
    "doubled_clip": Audited(optimizer=DoubledClip),
    "noise_divided_by_sqrt_batch": Audited(optimizer=DividedNoise),
    "clipped_by_tensor": Audited(optimizer=ClippedByTensor),
    "noise_reused": Audited(context=lambda _: b"audit|always the same"),
    "no_noise_for_an_empty_sample": Audited(optimizer=SilentWhenEmpty, canaries=1, others=0),
    "accounted_sampling_not_done": Audited(sample=everybody, sampling_prob=0.25),
}
"""Those that show in what is released; `ledger_after_read` shows in the order of reads and writes."""

CLAIM_MUTANTS: dict[str, Callable[[PrivacyPlan], list[Event]]] = {"one_round_accounting": one_round_only}
"""Those that release as they should and claim too little for it."""
