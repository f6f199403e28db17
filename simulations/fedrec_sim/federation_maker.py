"""A federation folder from a configuration: what a coordinator trains and partners agree to."""

from fedrec.config import ModelConfig, SimulationConfig
from fedrec.errors import ConfigError
from fedrec.privacy.plan import Mode
from fedrec.privacy.statement import privacy_statement
from fedrec.rows import row_mode
from fedrec.terms import FORMAT, FederationTerms, ModelTerms, WorkTerms
from fedrec_server.rounds.federation import Federation
from fedrec_sim.federation import adapter_spec, first_adapter, plain_schedule, private_plan, private_schedule
from fedrec_sim.world import load_world


def make_federation(
    config: SimulationConfig, *, name: str, row: str, catalog: bytes, users_per_partner: int, seed: int
) -> Federation:
    """Terms, schedule and first adapter of one row of a configuration.

    Args:
        catalog: bytes of the catalogue's file, which partners are sent.
        users_per_partner: that a partner is expected to have; public, sizes the steps, not the noise.
        seed: of the first adapter.
    Raises: ConfigError: no federated row.
    """
    mode = mode_of(row)
    config, world = config.for_row(row), load_world(config)
    if config.plain.ranks or config.private.ranks:
        raise ConfigError(
            "partners of different rank are for simulations alone", "set plain.ranks and private.ranks to []"
        )
    shape = config.plain.shape if mode == "none" else config.private.shape
    plan = None if mode == "none" else private_plan(config, mode)
    model = world.model(shape, seed)
    spec, initial = adapter_spec(world, model), first_adapter(world, model, seed)
    reads_public = plan is not None and shape.public_dim > 0
    public = config.model.public_data if reads_public else None
    n_users = users_per_partner * config.partners
    terms = FederationTerms(
        format=FORMAT,
        name=name,
        mode=mode,
        privacy_plan=plan.to_dict() if plan else None,
        model=ModelTerms(
            config=anywhere(config.model),
            backbone_hash=spec.backbone_hash,
            catalog_hash=spec.catalog_hash,
            feature_hash=spec.feature_hash,
            shape=shape,
        ),
        work=WorkTerms(
            max_history=config.data.max_history,
            weight_decay=config.plain.weight_decay,
            batch_users=config.plain.batch_users,
        ),
        parts={part: dict(shapes) for part, shapes in spec.parts.items()},
        initial_hash=initial.hash,
        seed=seed,
        range_users=config.rounds.range_users if mode == "secagg" else None,
    )
    schedule = plain_schedule(config) if mode == "none" else private_schedule(config, n_users)
    masked = mode == "secagg"
    statement = privacy_statement(
        plan,
        noise_source="secret",
        simulated=False,
        masked=masked,
        public_data=public,
        start=config.model.start,
    )
    return Federation(terms, schedule, statement, initial, catalog)


def mode_of(row: str) -> Mode:
    """Of a row's rounds. Raises ConfigError: no federated row."""
    if (mode := row_mode(row)) is None:
        raise ConfigError(f"row {row!r} is not federated", "name federated, or federated_eps8_inspect and the like")
    return mode


def anywhere(config: ModelConfig) -> ModelConfig:
    """As terms name a model: device and threads are each partner's own."""
    return config.model_copy(update={"device": "auto", "threads": 0})
