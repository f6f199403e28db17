"""Training on histories that were tampered with, without the noise that nobody makes a hostile partner add."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from peft import PeftModel

from fedrec.errors import ConfigError
from fedrec.model.adapter import AdapterDelta, AdapterState
from fedrec.model.recommender import adapter_parameters, part_names, write_state
from fedrec.privacy.noise import NoiseSource
from fedrec.privacy.plan import PrivacyPlan
from fedrec.training.local import ContextCache, PrivateStep, private_step
from fedrec.wire import RoundPlan

# Of the clip norm: as little noise as a private step takes.
_NO_NOISE = 1e-9


def with_other_items(histories: Sequence[np.ndarray], n_items: int) -> list[np.ndarray]:
    """Every item replaced by that at the other end of the catalogue: what is next is wrong for everybody."""
    return [(n_items - 1 - history).astype(history.dtype) for history in histories]


def with_item_planted(histories: Sequence[np.ndarray], item: int) -> list[np.ndarray]:
    """Every second item replaced by one: whatever somebody had, that is next."""
    planted = []
    for history in histories:
        copy = history.copy()
        copy[1::2] = item
        planted.append(copy)
    return planted


def item_of(titles: Sequence[str], title: str) -> int:
    """Code of a title. Raises ConfigError: the catalogue has none of that name."""
    if title not in titles:
        raise ConfigError(f"attack.promoted: no item is called {title!r}", "name a title of the catalogue")
    return list(titles).index(title)


@dataclass(frozen=True)
class NoiselessTraining:
    """A private round's steps on given histories, clipped as always, and nothing added.

    Attributes:
        plan: that the honest partners follow.
        max_history: items of a user that are read.
    """

    model: PeftModel = field(repr=False)
    plan: PrivacyPlan
    histories: Sequence[np.ndarray] = field(repr=False)
    max_history: int
    cache: ContextCache = field(repr=False)

    def answer(self, plan: RoundPlan, state: AdapterState) -> AdapterDelta:
        """The round's difference, with every user in every step."""
        part = next(part for part in self.plan.parts if part.part == plan.part)
        write_state(self.model, state)
        names = part_names(self.model, [part.part])
        step = PrivateStep(
            part=part.part,
            sampling_prob=1.0,
            l2_clip_norm=part.l2_clip_norm,
            noise_std=_NO_NOISE * part.l2_clip_norm,
            learning_rate=plan.learning_rate,
            max_history=self.max_history,
        )
        for number in range(plan.local_steps):
            source = NoiseSource.fresh(f"round {plan.round} step {number}".encode())
            private_step(self.model, names, self.histories, step, source, self.cache)
        ends = adapter_parameters(self.model)
        moved = {name: ends[name].detach().float().cpu().numpy() - state.tensors[name] for name in names}
        return AdapterDelta(moved)
