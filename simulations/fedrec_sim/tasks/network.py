"""A federation folder for a task's head: what a coordinator without torch trains, and nodes agree to."""

from dataclasses import replace

from fedrec.config import SimulationConfig
from fedrec.errors import ConfigError
from fedrec.model.shared import SharedModel, load_shared
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.statement import privacy_statement
from fedrec.tasks.item_part import ItemPart
from fedrec.tasks.taste_head import SPREAD, PublicRows, head_terms, taste_terms
from fedrec.tasks.terms import TaskTerms
from fedrec.terms import FORMAT, FederationTerms, ModelTerms, TaskName, WorkTerms
from fedrec_client.importing import read_catalog_bytes
from fedrec_server.rounds.federation import Federation
from fedrec_sim.federation_maker import anywhere, mode_of
from fedrec_sim.tasks.federation import plan_of, told
from fedrec_sim.tasks.rounds import TaskPromise, TaskRounds
from fedrec_sim.tasks.trial import Wanted, rounds_of

# Of a user, the latest: what a prediction takes grows with the cube of it, and nobody in MovieLens-100K has so many.
_MOST_ROWS = 1000


def make_task_federation(
    config: SimulationConfig,
    *,
    task: TaskName,
    name: str,
    row: str,
    catalog: bytes,
    users_per_partner: int,
    seed: int,
    rounds: int = 0,
) -> Federation:
    """Terms, schedule and first head of a task.

    Args:
        config: its model makes the inputs, its partners and quorum size the noise, `private.delta` is the promise's.
        row: `federated_eps8_secagg`, say; `federated` is without privacy.
        catalog: bytes of the catalogue's file, which partners are sent.
        users_per_partner: that a partner is expected to have; public, sizes the steps, not the noise.
        rounds: of the head, after the one about items; 0: as many as docs/tasks.md has.
    Raises: ConfigError: no federated row, or no published ratings to start from.
    """
    mode, config = mode_of(row), config.for_row(row)
    if config.model.public_data == "none":
        raise ConfigError("a task's head starts from published ratings", "set model.public_data, as movielens-small")
    items, public = read_catalog_bytes(catalog), config.model.public_data
    shared = load_shared(config.model, items, None)
    taste = PublicRows.named(public).taste(task, items, shared.features)
    made = taste_terms(task, taste, items, public, is_fresh=False, items=ItemPart(1, SPREAD[task]))
    promise = None if mode == "none" else promise_of(config, row)
    chosen = chosen_rounds(task, promise, rounds)
    n_users = users_per_partner * config.partners
    plan = None if promise is None else plan_of(promise, chosen, made.items, config.partners, n_users)
    assert made.items is not None  # as asked for above
    made = replace(made, items=told(made.items, plan, config.partners, n_users))
    terms = FederationTerms(
        format=FORMAT,
        name=name,
        mode=mode,
        privacy_plan=plan.to_dict() if plan else None,
        model=_model_terms(config, shared, made),
        work=WorkTerms(
            max_history=chosen.work.most_rows,
            weight_decay=chosen.work.weight_decay,
            batch_users=chosen.work.batch_users,
        ),
        parts={part: dict(shapes) for part, shapes in made.spec.parts.items()},
        initial_hash=made.start.hash,
        seed=seed,
        range_users=chosen.range_users if mode == "secagg" else None,
        task=head_terms(made, task, is_fresh=False),
    )
    schedule = chosen.schedule(users_per_partner, private=plan is not None, items=True)
    return Federation(terms, schedule, _statement(plan, public), made.start, catalog)


def promise_of(config: SimulationConfig, row: str) -> TaskPromise:
    """What a row's training promises, by the configuration."""
    mode, private, rounds = mode_of(row), config.for_row(row).private, config.rounds
    masked = mode == "secagg"
    return TaskPromise(
        private.epsilon,
        private.delta,
        mode,
        noise_source="secret",
        quorum=rounds.quorum,
        dishonest=rounds.dishonest if masked else 0,
        spare=rounds.spare_attempts if masked else 0,
    )


def chosen_rounds(task: TaskName, promise: TaskPromise | None, rounds: int = 0) -> TaskRounds:
    """As simulations train it, see `rounds_of`; but all rows of a user that are read are rows that are learnt from."""
    chosen = rounds_of(Wanted(task, "split721", 0, epsilon=promise.epsilon if promise else None))
    return replace(chosen, rounds=rounds or chosen.rounds, work=replace(chosen.work, most_rows=_MOST_ROWS))


def _model_terms(config: SimulationConfig, shared: SharedModel, made: TaskTerms) -> ModelTerms:
    return ModelTerms(
        config=anywhere(config.model),
        backbone_hash=shared.backbone.hash,
        catalog_hash=made.catalog_hash,
        feature_hash=shared.features.hash,
        shape=type(config.plain.shape)(),
    )


def _statement(plan: PrivacyPlan | None, public: str) -> dict[str, object]:
    masked = plan is not None and plan.mode == "secagg"
    return privacy_statement(plan, noise_source="secret", simulated=False, masked=masked, public_data=public)
