"""Both attacks on what leaves one partner of the demo, in every setting: trainings, then figures."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch

from fedrec.config import load_config
from fedrec.privacy.accounting import epsilon_pld
from fedrec_sim.audit.evidence import Evidence, HeadInputs, collect, count_rows, head_inputs, items_read
from fedrec_sim.audit.membership import (
    CURVE_RATES,
    FALSE_ALARM_RATES,
    Membership,
    attack_members,
    ceiling,
)
from fedrec_sim.audit.reconstruction import Known, Reconstruction, attack_histories
from fedrec_sim.audit.shadows import Setting, Stage, events_that_hold, shadow_root, stage, toss_coins
from fedrec_sim.cli_output import DEMO
from fedrec_sim.world import World, load_world

_PROCESSES = 2  # each holds the model and a thread
# With fewer false alarms the rate of them is anybody's guess, and so is the ceiling at it.
FEWEST_FALSE_ALARMS = 5


@dataclass(frozen=True)
class Ceiling:
    """The most that anybody can find under the claim, at the rates of `Membership.found` and of its curve."""

    found: tuple[float, ...]
    curve: tuple[float, ...]


@dataclass(frozen=True)
class Attacked:
    """One setting, attacked.

    Attributes:
        epsilon: claimed against somebody who sees this partner's answers; None without privacy.
        epsilon_attacked: of the rounds alone that the attacks look at: the prior and the head.
        members: mean number of users who were there.
        ceiling: None without privacy.
    """

    setting: Setting
    epsilon: float | None
    epsilon_attacked: float | None
    delta: float | None
    rounds: int
    users: int
    members: float
    membership: tuple[Membership, ...]
    ceiling: Ceiling | None
    reconstruction: Reconstruction

    @property
    def beats_its_ceiling(self) -> bool:
        """Whether some attacker surely finds more users than the claim allows: then the claim is wrong.

        Judged where at least `FEWEST_FALSE_ALARMS` are allowed: fewer say nothing about the rate of them.
        """
        return self.ceiling is not None and any(
            least > most
            for attacker in self.membership
            for least, most, rate in zip(attacker.found_at_least, self.ceiling.found, FALSE_ALARM_RATES, strict=True)
            if rate * attacker.pairs / 2 >= FEWEST_FALSE_ALARMS
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        return {**asdict(self), "beats_its_ceiling": self.beats_its_ceiling}


@dataclass(frozen=True)
class Attacks:
    """What came of it all."""

    seed: int
    shadows: int
    settings: tuple[Attacked, ...]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        return {
            "seed": self.seed,
            "shadows": self.shadows,
            "settings": {attacked.setting: attacked.to_dict() for attacked in self.settings},
            "false_alarm_rates": list(FALSE_ALARM_RATES),
            "curve_false_alarm_rates": [float(rate) for rate in CURVE_RATES],
            "intervals": "95%, bootstrap over users and shadow trainings at once",
            "data": "ml-100k, first of 8 partners; model and plan of simulations/configs/demo.toml",
            "seconds": round(self.seconds, 1),
        }


def attack(
    settings: Sequence[Setting], shadows: int, seed: int, say: Callable[[str], None] = lambda _: None
) -> Attacks:
    """Run the shadow trainings of every setting, and both attacks on them.

    Args:
        shadows: trainings a setting, at least 4.
        seed: of coins, noise keys and bootstrap, and of the split of the data.
        say: takes progress.
    Privacy: for public data in a simulation. The figures are not private.
    """
    started = time.monotonic()
    numbers = range(shadows)
    # `spawn`: a fork of a process whose threads hold locks may hang.
    with ProcessPoolExecutor(_PROCESSES, mp_context=get_context("spawn")) as pool:
        waiting = {s: [pool.submit(_shadow, s, seed, number) for number in numbers] for s in settings}
        attacked = []
        for setting, futures in waiting.items():
            evidence = []
            for number, future in enumerate(futures, start=1):
                evidence.append(future.result())
                say(f"{setting}: shadow training {number} of {shadows}, {time.monotonic() - started:.0f} s")
            attacked.append(pool.submit(_attacked, setting, evidence, seed))
        done = tuple(future.result() for future in attacked)
    return Attacks(seed, shadows, done, time.monotonic() - started)


def _shadow(setting: Setting, seed: int, number: int) -> Evidence:
    on, inputs = _stage(setting, seed)
    return collect(on, inputs, toss_coins(len(on.pool), seed, number), shadow_root(setting, seed, number))


def _attacked(setting: Setting, evidence: Sequence[Evidence], seed: int) -> Attacked:
    on, _ = _stage(setting, seed)
    known = Known(
        items=[np.unique(items_read(on, user)) for user in range(len(on.pool))],
        rows=count_rows(on).numpy(),
        popularity=_world().corpus(seed).popularity,
        noise_std=on.noise_std("prior") if on.plan else None,
    )
    events = events_that_hold(on.plan) if on.plan else []
    delta = on.plan.delta if on.plan else None
    return Attacked(
        setting=setting,
        epsilon=epsilon_pld(events, delta) if delta else None,
        epsilon_attacked=epsilon_pld([e for e in events if e[0] in ("prior", "head")], delta) if delta else None,
        delta=delta,
        rounds=len(on.schedule),
        users=len(on.pool),
        members=float(np.mean([run.present.sum() for run in evidence])),
        membership=tuple(attack_members(evidence, on.plan is not None, seed)),
        ceiling=_ceiling(on) if on.plan else None,
        reconstruction=attack_histories(evidence, known, seed),
    )


def _ceiling(on: Stage) -> Ceiling:
    assert on.plan is not None
    rates = np.concatenate([FALSE_ALARM_RATES, CURVE_RATES])
    most = [float(rate) for rate in ceiling(events_that_hold(on.plan), rates, on.plan.delta)]
    return Ceiling(tuple(most[: len(FALSE_ALARM_RATES)]), tuple(most[len(FALSE_ALARM_RATES) :]))


@lru_cache(maxsize=1)
def _world() -> World:
    """Once a process; on the CPU with one thread, so that the same seed gives the same figures."""
    torch.set_num_threads(1)
    config = load_config(DEMO)
    hardware = config.model.model_copy(update={"device": "cpu", "threads": 1})
    return load_world(config.model_copy(update={"model": hardware}))


# One at a time: a new model takes the LoRA layers off the one before.
@lru_cache(maxsize=1)
def _stage(setting: Setting, seed: int) -> tuple[Stage, list[HeadInputs]]:
    on = stage(_world(), setting, seed)
    return on, head_inputs(on)
