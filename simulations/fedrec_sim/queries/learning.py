"""A correction of the reader of requests, learnt by simulated partners from requests of their own users."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fedrec.aggregation.server_optimizer import ServerOptimizer
from fedrec.data.catalog import ItemCatalog
from fedrec.query.attributes import Floats
from fedrec.query.correction import Correction, RequestInputs
from fedrec.query.made import QueryMaker, training_vocabulary
from fedrec.query.query_model import PUBLIC_BATCH, QueryModel
from fedrec.query.rule import CatalogFacts
from fedrec.query.taken import TakenItem
from fedrec.tasks.examples import TaskExamples
from fedrec.tasks.terms import TaskTerms
from fedrec.tasks.training import PlainWork
from fedrec_sim.run import Json
from fedrec_sim.tasks.federation import federate_head
from fedrec_sim.tasks.rounds import TaskPromise, TaskRounds

# Chosen on validation requests of seed 1, see docs/requests.md.
DIRECTIONS, WORDS = 64, 4000
_MADE, _HELD_BACK = 1000, 30.0
# Users for whom the private step was chosen.
_MANY_USERS = 650
_MOST_ROWS = 64
_READS = "texts of requests as people typed them, and the items that they took after them"
_COVERS = (
    "adding or removing one user with the texts of all requests and the items taken after them, at one partner, over "
    "all rounds of this correction's training; a further attempt at a round is a step of the plan, which has no more "
    "than it says"
)
_LEDGER_COVERS = "in this call of `fedrec query learn` alone: no other call, and not the run's adapter"
_OTHER_LEDGERS = (
    "other calls of `fedrec query learn`, and the run's adapter: each call has ledgers of its own, and for the same "
    "people the epsilons of calls and adapter add up"
)


@dataclass(frozen=True)
class Learnt:
    """What came of it. Public to partners."""

    correction: Correction
    statement: Json = field(repr=False)


@dataclass(frozen=True, eq=False)
class PublicTaking:
    """What people take whatever they ask for, as published data say.

    Attributes:
        log_prior: float32 `[items]`; all alike where there are no published data.
        name: of the data.
    """

    log_prior: Floats = field(repr=False)
    name: str | None


@dataclass(frozen=True, eq=False)
class PublicGround:
    """All that partners agree on before they read a request of anybody. Public.

    Attributes:
        held_back: see `RequestInputs.held_back_by`, of requests made from the catalogue; None: nothing is.
    """

    inputs: RequestInputs
    terms: TaskTerms
    held_back: Floats | None = field(repr=False)

    @classmethod
    def of(cls, model: QueryModel, catalog: ItemCatalog, taking: PublicTaking) -> "PublicGround":
        """Of the public reader: the head starts as it."""
        inputs, maker = model.inputs(DIRECTIONS, WORDS), QueryMaker(catalog, training_vocabulary())
        made = [maker.make(np.random.default_rng([_MADE, number])).text(catalog) for number in range(_MADE)]
        remainders = [pieces for pieces in map(model.remainder_of, made) if pieces]
        held_back = inputs.held_back_by(*model.readings(remainders, batch=PUBLIC_BATCH), _HELD_BACK)
        return cls(inputs, terms_of(inputs, model, catalog, taking), held_back)


def rounds_of(epsilon: float | None, n_users: int = _MANY_USERS) -> TaskRounds:
    """How a correction is learnt; chosen on validation requests of seed 1.

    Args:
        n_users: of all partners together. Noise on their mean grows as they are fewer, so the steps become shorter: a
            small federation learns less, and does no more harm.
    """
    if epsilon is None:
        work = PlainWork(0.02, batch_users=16, most_rows=_MOST_ROWS)
        return TaskRounds(8, ServerOptimizer("sgd", 1.0, 0.0), work, local_epochs=2)
    work, rate = PlainWork(batch_users=16, most_rows=_MOST_ROWS), 100.0 * min(1.0, n_users / _MANY_USERS)
    return TaskRounds(16, ServerOptimizer("sgd", rate, 0.0), work, l2_clip_norm=0.3)


def terms_of(inputs: RequestInputs, model: QueryModel, catalog: ItemCatalog, taking: PublicTaking) -> TaskTerms:
    """What partners agree on: the head starts as the public reader."""
    facts = CatalogFacts.named(model.space.categories, catalog.categories, catalog.years)
    shape, first = inputs.untrained()
    told = f"{inputs.hash}|{hashlib.sha256(taking.log_prior.tobytes()).hexdigest()}"
    return TaskTerms(
        task=TakenItem(facts.has.astype(np.float32), taking.log_prior),
        shape=shape,
        initial=first,
        inputs="request-words",
        inputs_hash=hashlib.sha256(told.encode()).hexdigest(),
        catalog_hash=catalog.hash,
        public_data=taking.name,
    )


def learn(
    ground: PublicGround,
    shares: Sequence[TaskExamples],
    *,
    run: str,
    seed: int,
    promise: TaskPromise | None,
    folder: Path | None = None,
    rounds: TaskRounds | None = None,
) -> Learnt:
    """Train by rounds; every partner pays from its own ledger.

    Args:
        shares: of each partner, private.
        folder: where registry and ledgers are kept; None: a temporary one.
        rounds: in place of those that were chosen; for tuning.
    Raises: as `federate_head`.
    """
    n_users = sum(share.n_users for share in shares)
    chosen = rounds or rounds_of(promise.epsilon if promise else None, n_users)
    trained = federate_head(ground.terms, shares, chosen, run=run, seed=seed, promise=promise, folder=folder)
    statement = {**trained.statement, "reads": _READS}
    if trained.plan is not None:
        statement |= {"covers": _COVERS, "ledger_covers": _LEDGER_COVERS}
        statement["does_not_cover"] = [_OTHER_LEDGERS, *statement["does_not_cover"]]
    return Learnt(Correction.of(ground.inputs, trained.state, ground.held_back), statement)
