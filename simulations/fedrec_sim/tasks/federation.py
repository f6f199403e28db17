"""A task head trained by partners of one process: Flower's ServerApp, real ledgers, and masks where asked for."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from flwr.supercore.run import Run as FlowerRun
from numpy.typing import NDArray

from fedrec.aggregation.mean import UniformMean
from fedrec.errors import PrivacyError
from fedrec.model.adapter import AdapterState
from fedrec.privacy.plan import PrivacyPlan, calibrate
from fedrec.privacy.statement import privacy_statement
from fedrec.registry.registry import Registry
from fedrec.tasks.examples import TaskExamples
from fedrec.tasks.head import TaskHead, score_rows, write_head
from fedrec.tasks.item_part import ITEMS, ItemPart
from fedrec.tasks.own_rows import TasteRows
from fedrec.tasks.terms import TaskTerms
from fedrec_client.app import app as client_app
from fedrec_server.app import RoundSession, make_server_app
from fedrec_sim.federation import server_context
from fedrec_sim.grid import InProcessGrid
from fedrec_sim.tasks.partners import TaskPartners
from fedrec_sim.tasks.rounds import TaskPromise, TaskRounds

OnEvent = Callable[[dict[str, Any]], None]
_ROUND_S = 600.0
_MAX_NORM = 1e6


@dataclass(frozen=True)
class TrainedHead:
    """What came of it. Public to partners.

    Attributes:
        plan: None without privacy.
        statement: goes with the head, as `privacy.json`.
    """

    terms: TaskTerms
    state: AdapterState = field(repr=False)
    plan: PrivacyPlan | None
    statement: dict[str, Any] = field(repr=False)

    def predict(self, inputs: NDArray[np.float32]) -> NDArray[np.float64]:
        """As `Task.predictions`, of rows `[rows, width]`."""
        head = TaskHead(self.terms.shape)
        write_head(head, self.state)
        return self.terms.task.predictions(score_rows(head, inputs))


def federate_head(
    terms: TaskTerms,
    shares: Sequence[TaskExamples | TasteRows],
    rounds: TaskRounds,
    *,
    run: str,
    seed: int,
    promise: TaskPromise | None = None,
    folder: Path | None = None,
    on_event: OnEvent = lambda _: None,
) -> TrainedHead:
    """Train a head by rounds; every partner pays from its own ledger.

    Args:
        shares: each partner's own examples, private; a partner may have none.
        run: name, in every message and ledger.
        seed: of what is drawn without privacy, and of noise that the promise lets repeat.
        promise: None for no privacy.
        folder: where registry and ledgers are kept, of this training alone; None: a temporary one.
    Raises: PrivacyError: a delta that users outnumber, or a head that cannot be private. QuorumError: as rounds.
    """
    if folder is None:
        with TemporaryDirectory(prefix="fedrec-task-") as made:
            kept = Path(made)
            return federate_head(
                terms, shares, rounds, run=run, seed=seed, promise=promise, folder=kept, on_event=on_event
            )
    n_users = sum(examples.n_users for examples in shares)
    plan = None if promise is None else plan_of(promise, rounds, terms.items, len(shares), n_users)
    if terms.items is not None:
        terms = replace(terms, items=told(terms.items, plan, len(shares), n_users))
    partners = TaskPartners(terms, tuple(shares), rounds, run, seed, plan, promise, folder)
    statement = privacy_statement(
        plan,
        noise_source=promise.noise_source if promise else "seeded",
        simulated=True,
        masked=plan is not None and plan.mode == "secagg",
        public_data=terms.public_data,
        user_is=terms.user_is,
    )
    session = RoundSession(
        run=run,
        mode="none" if plan is None else plan.mode,
        seed=seed,
        schedule=rounds.schedule(
            max(rounds.sampling_prob * n_users / len(shares), 1e-6),
            private=plan is not None,
            items=terms.items is not None,
        ),
        registry=Registry(folder / "registry"),
        initial_state=terms.start,
        spec=terms.spec,
        aggregator=UniformMean(),
        partners=dict(enumerate(partners.names, start=2)),
        quorum=plan.quorum + plan.dishonest if plan else len(shares),
        max_attempts=1,
        round_timeout_s=_ROUND_S,
        max_norm=_MAX_NORM,
        privacy_plan_hash=plan.hash if plan else "none",
        statement=statement,
        on_event=on_event,
        stop=lambda: False,
        masked=partners.masked,
    )
    addresses = {node: f"{partners.place}/{name}" for node, name in session.partners.items()}
    with partners.listening():
        make_server_app(session)(InProcessGrid(client_app, addresses, FlowerRun.create_empty(1)), server_context())
    return TrainedHead(terms, session.registry.load_head(), plan, statement)


def plan_of(
    promise: TaskPromise, rounds: TaskRounds, items: ItemPart | None, partners: int, n_users: int
) -> PrivacyPlan:
    """The least noise that keeps the promise. Raises PrivacyError: a delta of one over the users or more."""
    if promise.delta * n_users >= 1:
        raise PrivacyError(f"delta {promise.delta:g} is not below one over {n_users} users", "set a smaller delta")
    shares = [
        (part, steps + promise.spare, prob, clip, share) for part, steps, prob, clip, share in rounds.parts(items)
    ]
    quorum, dishonest = promise.quorum or partners, promise.dishonest
    return calibrate(
        shares, promise.epsilon, promise.delta, mode=promise.mode, quorum=quorum - dishonest, dishonest=dishonest
    )


def told(items: ItemPart, plan: PrivacyPlan | None, partners: int, n_users: int) -> ItemPart:
    """What everybody is told about items: how many users take part, and how much noise is on their mean."""
    if plan is None:
        return replace(items, n_users=n_users)
    return replace(items, n_users=n_users, noise_std=plan.noise_std(ITEMS) * math.sqrt(partners) / max(n_users, 1))
