"""The two federations of a rehearsal: a real model that is trained, and one number whose sum shows who is in it."""

import csv
import shutil
from pathlib import Path

import numpy as np

from fedrec.aggregation.server_optimizer import ServerOptimizer
from fedrec.config import ModelConfig, PartConfig, ShapeConfig, load_config
from fedrec.data.catalog import read_stored_catalog, write_catalog
from fedrec.data.datasets import load_data
from fedrec.data.interactions import InteractionTable
from fedrec.data.partition import deal_users
from fedrec.errors import DataError
from fedrec.model.adapter import AdapterState
from fedrec.privacy.integer_code import IntegerCode
from fedrec.privacy.plan import PartPlan, PrivacyPlan
from fedrec.privacy.statement import privacy_statement
from fedrec.rows import Mode
from fedrec.secagg.graph import two_thirds
from fedrec.terms import FORMAT, FederationTerms, ModelTerms, WorkTerms
from fedrec_server.rounds.federation import Federation
from fedrec_server.rounds.schedule import RoundSpec
from fedrec_sim.cli_output import DEMO
from fedrec_sim.federation_maker import make_federation

# So many numbers as the demo's private head has, so that as much travels.
NUMBERS = 120_000
_NOISE = 20.0
_RANGE_USERS = 4096
# Below the 8 that a node allows unless its owner says otherwise.
_ROWS: dict[Mode, str] = {"inspect": "federated_eps7_inspect", "secagg": "federated_eps7_secagg"}


def sums_federation(
    catalog: Path, *, rounds: int, quorum: int, mode: Mode = "inspect", numbers: int = NUMBERS
) -> Federation:
    """One tensor, a mean without any damping, and a privacy plan that partners pay for although nothing is trained.

    It has as many steps to spare as rounds: under masks an attempt that fails is paid for.

    Under masks integers are added up, and the learning rate undoes their grain.
    """
    initial = AdapterState({"w": np.zeros(numbers, np.float32)})
    part = PartPlan("head", sampling_prob=1.0, l2_clip_norm=1.0, noise_multiplier=_NOISE, total_steps=2 * rounds)
    masked = mode == "secagg"
    plan = PrivacyPlan("user", "secagg" if masked else "inspect", 1e-5, (part,), quorum - masked, int(masked))
    rate = 1 / IntegerCode.of(plan, "head", quorum, _RANGE_USERS).grain if masked else 1.0
    nothing = "0" * 64
    model = ModelTerms(
        config=ModelConfig(),
        backbone_hash=nothing,
        catalog_hash=read_stored_catalog(catalog).hash,
        feature_hash=nothing,
        shape=ShapeConfig(),
    )
    terms = FederationTerms(
        format=FORMAT,
        name="sums",
        mode=plan.mode,
        privacy_plan=plan.to_dict(),
        model=model,
        work=WorkTerms(max_history=50, weight_decay=0.0, batch_users=8),
        parts={"head": {"w": (numbers,)}},
        initial_hash=initial.hash,
        seed=1,
        range_users=_RANGE_USERS if masked else None,
    )
    average = ServerOptimizer("sgd", server_learning_rate=1.0, momentum=0.0)
    schedule = (RoundSpec("head", local_epochs=1, local_steps=1, learning_rate=rate, optimizer=average),) * rounds
    statement = privacy_statement(plan, noise_source="secret", simulated=False, masked=masked)
    return Federation(terms, schedule, statement, initial, catalog.read_bytes())


def trained_federation(catalog: Path, *, partners: int, rounds: int, mode: Mode = "inspect") -> Federation:
    """The demo's model and private settings, cut to so many rounds: the prior, then the head."""
    quorum = two_thirds(partners) if mode == "secagg" else partners
    asked = (f"partners={partners}", f"rounds.quorum={quorum}", f"rounds.dishonest={int(mode == 'secagg')}")
    config = load_config(DEMO, (*asked, "private.delta=1e-5"))
    prior, head, *_ = config.for_row(_ROWS[mode]).private.parts
    parts: tuple[PartConfig, ...] = (prior,)
    if rounds > 1:
        parts += (head.model_copy(update={"rounds": rounds - 1}),)
    whole = sum(part.share for part in parts)
    parts = tuple(part.model_copy(update={"share": part.share / whole}) for part in parts)
    private = config.private.model_copy(update={"parts": parts, "tuned": ()})
    config = config.model_copy(update={"private": private})
    told = {"name": "rehearsal", "row": _ROWS[mode], "users_per_partner": 943 // partners, "seed": 1}
    return make_federation(config, catalog=catalog.read_bytes(), **told)  # type: ignore[arg-type]


def deal_rows(folder: Path, names: list[str], seed: int = 1) -> tuple[Path, dict[str, Path]]:
    """MovieLens-100K's catalogue, and its users dealt to the partners, as files that partners import; a new folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    catalog, table = load_data("ml-100k", lambda _: None)
    if not isinstance(table, InteractionTable):
        raise DataError("MovieLens-100K is not held in memory")
    write_catalog(catalog, folder / "catalog.parquet")
    files = {}
    for name, users in zip(names, deal_users(table.n_users, len(names), seed), strict=True):
        files[name] = folder / f"{name}.csv"
        mine = np.isin(table.user_codes, users)
        rows = zip(table.user_codes[mine], table.item_codes[mine], table.timestamp[mine], strict=True)
        with files[name].open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["user", "item", "timestamp"])
            writer.writerows((table.user_ids[user], table.item_ids[item], at) for user, item, at in rows)
        files[name].chmod(0o600)
    return folder / "catalog.parquet", files
