"""One federated row: partners with their own data, ledger and keys; Flower's ServerApp over an in-process Grid."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Context, RecordDict
from flwr.supercore.run import Run as FlowerRun
from peft import PeftModel

from fedrec.aggregation.nested import NestedMean
from fedrec.aggregation.robust import aggregator_of
from fedrec.aggregation.server_optimizer import ServerOptimizer
from fedrec.config import SimulationConfig
from fedrec.errors import PrivacyError
from fedrec.model.adapter import AdapterSpec, AdapterState
from fedrec.model.methods import members_of, part_in_round
from fedrec.model.recommender import adapter_parameters, item_token_model, read_state, tensor_parts
from fedrec.privacy.accounting import epsilon_pld
from fedrec.privacy.plan import PrivacyPlan, calibrate
from fedrec.privacy.statement import privacy_statement
from fedrec.registry.registry import Registry
from fedrec.rows import Mode
from fedrec.training.catalog_start import start_from_catalog
from fedrec_client.app import app as client_app
from fedrec_server.app import RoundSession, make_server_app
from fedrec_server.rounds.masked import MaskedRounds
from fedrec_server.rounds.schedule import RoundSpec
from fedrec_sim.grid import InProcessGrid
from fedrec_sim.partners import Account, Partners
from fedrec_sim.run import Run
from fedrec_sim.world import Corpus, World

OnEvent = Callable[[dict[str, Any]], None]
# Questions open at once. Partners answer one after the other here, so that more would only fill memory.
_IN_FLIGHT = 16


@dataclass(frozen=True)
class Federation:
    """A federated row, ready to run or to go on.

    Attributes:
        model: shared by the simulated partners; each worker loads the round's adapter first.
        plan: private plan, or None without privacy.
        schedule: one entry a round.
        registry: where every round is committed.
        partners: whose workers are made when they are asked.
    """

    config: SimulationConfig
    mode: Mode
    model: PeftModel = field(repr=False)
    plan: PrivacyPlan | None
    schedule: tuple[RoundSpec, ...] = field(repr=False)
    registry: Registry = field(repr=False)
    session: RoundSession = field(repr=False)
    before_answer: Callable[[int], None] = field(repr=False)
    statement: dict[str, Any] = field(repr=False)
    partners: Partners = field(repr=False)

    def epsilon_after(self, rounds: int) -> float | None:
        """Epsilon that the first `rounds` rounds cost (PLD), or None without privacy."""
        if self.plan is None:
            return None
        done = Counter(spec.part for spec in self.schedule[:rounds])
        return epsilon_pld(self.plan.events(done), self.plan.delta)

    def run(self) -> AdapterState:
        """Run every round that is not yet committed; the last round's adapter."""
        if self.config.engine == "ray":
            from fedrec_sim.ray_engine import run_on_ray

            run_on_ray(self.session, self.partners)
            return self.registry.load_head()
        addresses = {node: f"{self.partners.place}/{name}" for node, name in self.session.partners.items()}
        grid = InProcessGrid(client_app, addresses, FlowerRun.create_empty(1), self.before_answer)
        with self.partners.listening():
            make_server_app(self.session)(grid, server_context())
        return self.registry.load_head()


def federate(
    world: World,
    corpus: Corpus,
    run: Run,
    *,
    row: str,
    seed: int,
    mode: Mode,
    on_event: OnEvent,
    stop: Callable[[], bool],
    before_answer: Callable[[int], None] = lambda _: None,
    account: Account | None = None,
) -> Federation:
    """Set up partners, plan, schedule and coordinator of one row; with an account that others share, if there is."""
    partners = partners_of(world, corpus, run, row=row, seed=seed, mode=mode, account=account)
    config, model, plan = partners.config, partners.model, partners.plan
    registry = Registry(run.folder / "registry" / f"{row}-{seed}")
    partners.enrol(begun=registry.head() is not None)
    initial = first_adapter(world, model, seed)
    schedule = plain_schedule(config) if mode == "none" else private_schedule(config, corpus.n_trained)
    reads_public = plan is not None and config.private.shape.public_dim > 0
    statement = privacy_statement(
        plan,
        noise_source=config.private.noise_source,
        simulated=True,
        masked=mode == "secagg" and config.rounds.masks,
        public_data=config.model.public_data if reads_public else None,
        start=config.model.start,
    )
    session = RoundSession(
        run=f"{run.config.name}/{row}-{seed}",
        mode=mode,
        seed=seed,
        schedule=schedule,
        registry=registry,
        initial_state=initial,
        spec=adapter_spec(world, model),
        aggregator=NestedMean(partners.ranks) if partners.ranks else aggregator_of(config.rounds),
        partners=dict(enumerate(partners.names, start=2)),
        partners_per_round=config.rounds.partners_per_round,
        in_flight=_IN_FLIGHT,
        quorum=config.rounds.quorum,
        max_attempts=config.rounds.max_attempts,
        round_timeout_s=config.rounds.timeout_s,
        max_norm=config.rounds.max_delta_norm,
        privacy_plan_hash=plan.hash if plan else "none",
        statement=statement,
        on_event=on_event,
        stop=stop,
        masked=masked_rounds(partners),
    )
    return Federation(config, mode, model, plan, schedule, registry, session, before_answer, statement, partners)


def first_adapter(world: World, model: PeftModel, seed: int) -> AdapterState:
    """What everybody begins with: public first weights, or what walks over the public catalogue taught."""
    if world.config.model.start == "catalog":
        start_from_catalog(model, world.catalog, world.features.vectors, seed)
    return read_state(model)


def partners_of(
    world: World, corpus: Corpus, run: Run, *, row: str, seed: int, mode: Mode, account: Account | None = None
) -> Partners:
    """The partners of a row, the same in every process that makes them of the same run."""
    config = world.config.for_row(row)
    model = world.model(config.plain.shape if mode == "none" else config.private.shape, seed)
    plan = None if mode == "none" else private_plan(config, mode)
    if plan is not None:
        refuse_delta(plan, len(corpus.histories))
    shares = tuple(world.shares(corpus, seed))
    return Partners(config, corpus, run, f"{row}-{seed}", seed, model, plan, shares, account)


def masked_rounds(partners: Partners) -> MaskedRounds | None:
    """What sums under masks need; None in rows that have none, or simulate them."""
    rounds = partners.config.rounds
    if partners.plan is None or partners.plan.mode != "secagg" or not rounds.masks:
        return None
    identities = {name: partners.identity(name).public for name in partners.names}
    return MaskedRounds(partners.plan, rounds.range_users, identities, audit=partners.check_sum)


def server_context() -> Context:
    """What Flower hands a ServerApp; ours keeps nothing in it."""
    return Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})


def private_plan(config: SimulationConfig, mode: Mode) -> PrivacyPlan:
    """Calibrate the noise of every part so that the whole run costs just below `private.epsilon`."""
    private = config.private
    spare = config.rounds.spare_attempts if mode == "secagg" else 0  # in other modes a repeated question costs once
    shares = []
    for p in private.parts:
        # RoLoRA's halves are parts of their own; with shares by rounds they bear the noise that one part would.
        turns = Counter(part_in_round(p.part, number, private.shape.method) for number in range(p.rounds))
        shares += [
            (part, rounds + spare, p.sampling_prob, p.l2_clip_norm, p.share * (rounds / p.rounds))
            for part, rounds in turns.items()
        ]
    dishonest = config.rounds.dishonest if mode == "secagg" else 0
    quorum = config.rounds.quorum - dishonest
    return calibrate(shares, private.epsilon, private.delta, mode=mode, quorum=quorum, dishonest=dishonest)


def refuse_delta(plan: PrivacyPlan, n_users: int) -> None:
    """A delta of one over the users or more would allow the plan to give one of them away entirely.

    Args:
        n_users: of all partners together, whom the adapter speaks for, however few each of them has.
    Raises: PrivacyError.
    """
    if plan.delta * n_users >= 1:
        raise PrivacyError(
            f"private.delta {plan.delta:g} is not below one over the {n_users} users, {1 / n_users:.2g}",
            f"set it to {0.1 / n_users:.0e} or less",
        )


def private_schedule(config: SimulationConfig, n_users: int) -> tuple[RoundSpec, ...]:
    """The parts one after the other, one step a round.

    A partner sends minus the noised sum divided by a public number, here the mean number of users a partner samples:
    in the demo that number is declared by the simulation, in a real federation by configuration.
    """
    schedule = []
    for part in config.private.parts:
        expected = 1.0 if part.part == "prior" else part.sampling_prob * n_users / config.partners
        for number in range(part.rounds):
            trained = part_in_round(part.part, number, config.private.shape.method)
            optimizer = ServerOptimizer(
                kind=part.optimizer,
                server_learning_rate=part.server_learning_rate * _cool_down(number / part.rounds),
                momentum=part.momentum,
            )
            schedule.append(
                RoundSpec(trained, local_epochs=1, local_steps=1, learning_rate=1 / expected, optimizer=optimizer)
            )
    return tuple(schedule)


def plain_schedule(config: SimulationConfig) -> tuple[RoundSpec, ...]:
    """The exact prior once, then head and item vectors alone, then everything together; each on a cosine.

    The coordinator steps with Nesterov momentum, as DiLoCo does. How much of the gain is due to it was not separated
    from the other settings that changed with it.
    """
    plain = config.plain
    average = ServerOptimizer(kind="sgd", server_learning_rate=1.0, momentum=0.0)
    outer = ServerOptimizer("nesterov", plain.server_learning_rate, plain.server_momentum)
    prior = RoundSpec("prior", local_epochs=1, local_steps=1, learning_rate=1.0, optimizer=average)
    schedule = [prior]
    for part, rounds, epochs, rate in (
        ("head", plain.head_rounds, plain.head_local_epochs, plain.head_learning_rate),
        ("all", plain.rounds, plain.local_epochs, plain.learning_rate),
    ):
        rates = [rate * cosine(number / rounds) for number in range(rounds)]
        schedule += [
            RoundSpec(
                part_in_round(part, number, plain.shape.method),
                local_epochs=epochs,
                local_steps=1,
                learning_rate=r,
                optimizer=outer,
            )
            for number, r in enumerate(rates)
        ]
    return tuple(schedule)


def cosine(progress: float) -> float:
    """From 1 to 0 over progress 0..1."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def _cool_down(progress: float, from_share: float = 0.7) -> float:
    """Constant, then linearly to nearly nothing: the last steps average the noise out."""
    return min(1.0, (1 - progress) / (1 - from_share))


def adapter_spec(world: World, model: PeftModel) -> AdapterSpec:
    """What the coordinator checks replies against: names and shapes by part, and what they belong to."""
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}
    parameters, method = adapter_parameters(model), item_token_model(model).shape.method
    wholes = {part_in_round("all", number, method) for number in range(2)}
    for name, part in tensor_parts(model).items():
        for whole in (part, *(whole for whole in wholes if part in members_of(whole))):
            shapes.setdefault(whole, {})[name] = tuple(parameters[name].shape)
    return AdapterSpec(
        backbone=world.backbone.name,
        backbone_hash=world.backbone.hash,
        catalog_hash=world.catalog.hash,
        feature_hash=world.features.hash,
        parts=shapes,
    )
