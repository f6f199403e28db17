"""A shadow training: one partner's real worker answers a real schedule, and everything that leaves it is recorded."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
from peft import PeftModel

from fedrec.aggregation.server_optimizer import OptimizerState
from fedrec.config import SimulationConfig
from fedrec.data.partition import deal_users
from fedrec.model.adapter import AdapterDelta, AdapterState
from fedrec.model.recommender import read_state
from fedrec.privacy.ledger import PrivacyLedger
from fedrec.privacy.mechanism import Event
from fedrec.privacy.plan import PrivacyPlan
from fedrec.training.local import PlainSettings
from fedrec.wire import RoundPlan
from fedrec_client.worker import PartnerData, Worker
from fedrec_server.rounds.schedule import RoundSpec
from fedrec_sim.federation import plain_schedule, private_plan, private_schedule
from fedrec_sim.seeds import seeded_root
from fedrec_sim.world import World

Setting = Literal["none", "inspect_8", "inspect_1", "answer_opened"]
SETTINGS: tuple[Setting, ...] = ("none", "inspect_8", "inspect_1", "answer_opened")
"""Without privacy; each partner's own noise at epsilon 8 and 1; a secagg answer whose masks were broken."""

_PLAIN_ROUNDS = 2  # after the prior; what they add to an attack shows at once


@dataclass(frozen=True)
class Stage:
    """What all shadow trainings of one setting share.

    Attributes:
        model: warm; every training begins at `initial`.
        pool: int32 histories of all users who may be at the partner; private in earnest.
        schedule: of the demo; without privacy its first rounds.
        plan: None without privacy.
        plain: settings of training without privacy; `max_history` counts in either.
    """

    model: PeftModel = field(repr=False)
    initial: AdapterState = field(repr=False)
    pool: tuple[np.ndarray, ...] = field(repr=False)
    schedule: tuple[RoundSpec, ...]
    plan: PrivacyPlan | None
    plain: PlainSettings

    def noise_std(self, part: str) -> float:
        """Of the noise on each coordinate of what this one partner releases; 1 as a unit where there is none."""
        return self.plan.noise_std(part) if self.plan else 1.0


@dataclass(frozen=True)
class Answer:
    """One round as the coordinator sees it: what it asked, from which adapter, and the difference that came back."""

    asked: RoundPlan
    start: AdapterState = field(repr=False)
    difference: AdapterDelta = field(repr=False)

    def noised_sum(self, names: Sequence[str]) -> np.ndarray:
        """The sum over users of these tensors' gradients as it was released, float64 `[params]`.

        A partner steps by minus its learning rate times the noised sum, so the difference gives the sum away. Without
        privacy it is the same quotient: a stand-in for the gradient.
        """
        flat = np.concatenate([self.difference.tensors[name].reshape(-1) for name in names])
        return -flat.astype(np.float64) / self.asked.learning_rate


def stage(world: World, setting: Setting, seed: int) -> Stage:
    """The demo's model and first partner under a setting."""
    config = with_epsilon(world.config, setting)
    histories = world.corpus(seed).histories
    users = deal_users(len(histories), config.partners, seed)[0]
    model = world.model(config.plain.shape if setting == "none" else config.private.shape, seed)
    plan, schedule = None, plain_schedule(config)[: 1 + _PLAIN_ROUNDS]
    if setting != "none":
        plan, schedule = plan_of(config, setting), private_schedule(config, len(histories))
    p, read = config.plain, config.data.max_history
    if setting != "none":
        read = config.private.max_history or read
    plain = PlainSettings(p.learning_rate, p.weight_decay, p.batch_users, read)
    return Stage(model, read_state(model), tuple(histories[user] for user in users), schedule, plan, plain)


def with_epsilon(config: SimulationConfig, setting: Setting) -> SimulationConfig:
    """The configuration with the setting's epsilon; the demo's own but for `inspect_1`."""
    if setting != "inspect_1":
        return config
    return config.model_copy(update={"private": config.private.model_copy(update={"epsilon": 1.0})})


def plan_of(config: SimulationConfig, setting: Setting) -> PrivacyPlan:
    """What the partner agrees to."""
    return private_plan(config, "secagg" if setting == "answer_opened" else "inspect")


def events_that_hold(plan: PrivacyPlan) -> list[Event]:
    """What this one partner's answers cost somebody who sees them: with its own share of the noise alone."""
    share = plan.quorum**0.5 if plan.mode == "secagg" else 1.0
    return [(part, prob, noise / share, steps) for part, prob, noise, steps in plan.events()]


def toss_coins(n_users: int, seed: int, number: int) -> np.ndarray:
    """Who is at the partner in shadow training `number`: bool `[users]`, each with probability 1/2."""
    return np.random.default_rng([seed, number]).random(n_users) < 0.5


def shadow_root(setting: str, seed: int, number: int) -> bytes:
    """The noise key of one shadow training, 32 bytes; everybody can compute it, so that figures can be repeated."""
    return hashlib.sha256(seeded_root(seed) + f"shadow|{setting}|{number}".encode()).digest()


def shadow_training(stage: Stage, present: Sequence[np.ndarray], root: bytes) -> Iterator[Answer]:
    """Train with these users at the partner, and yield every answer; the coordinator follows it alone.

    The partner's worker, its ledger (in a folder of its own) and the coordinator's optimizers are the real ones. Other
    partners' answers would move the adapter too; without them what the attacker sees is about this partner alone.

    Args:
        present: histories of the users who are there; private in earnest.
        root: keys the noise, and what plain training draws.
    """
    with TemporaryDirectory() as folder:
        worker = _worker(stage, present, root, Path(folder))
        state, moments = stage.initial, dict[str, OptimizerState]()
        for number, spec in enumerate(stage.schedule, start=1):
            asked = _ask(stage, spec, number, state, root)
            _, difference = worker.train(asked, state)
            yield Answer(asked, state, difference)
            moved, moments[spec.part] = spec.optimizer.step(difference, moments.get(spec.part, {}))
            state = state.plus(moved)


def _worker(stage: Stage, present: Sequence[np.ndarray], root: bytes, folder: Path) -> Worker:
    ledger = None
    if stage.plan is not None:
        path, delta = folder / "ledger.sqlite", stage.plan.delta
        ledger = PrivacyLedger.create(path, partner="shadow", dataset="shadow", budget_epsilon=1e6, budget_delta=delta)
    return Worker("shadow", stage.model, PartnerData.of(present), stage.plan, ledger, root, stage.plain)


def _ask(stage: Stage, spec: RoundSpec, number: int, state: AdapterState, root: bytes) -> RoundPlan:
    return RoundPlan(
        run="shadow",
        round=number,
        attempt=1,
        part=spec.part,
        local_epochs=spec.local_epochs,
        local_steps=spec.local_steps,
        learning_rate=spec.learning_rate,
        parent_hash=state.hash,
        privacy_plan_hash=stage.plan.hash if stage.plan else "none",
        mode=stage.plan.mode if stage.plan else "none",
        quorum=stage.plan.quorum if stage.plan else 1,
        deadline_s=600.0,
        seed=int.from_bytes(root[:7], "big"),
    )
