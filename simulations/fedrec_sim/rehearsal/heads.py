"""A rehearsal of a task: nodes train its head over the network, and each asks it about rows that it had held back."""

import csv
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from fedrec.config import SimulationConfig, load_config
from fedrec.data.catalog import write_catalog
from fedrec.data.datasets import load_data
from fedrec.data.interactions import ColumnMapping, InteractionTable
from fedrec.data.partition import deal_users
from fedrec.data.sequences import build_sequences
from fedrec.data.splits import EvaluationSplit, split_by
from fedrec.errors import DataError, RunError
from fedrec.rows import Mode
from fedrec.secagg.graph import two_thirds
from fedrec.tasks.head import TaskHead, write_head
from fedrec.tasks.own_rows import TasteRows
from fedrec.tasks.stars import StarsOf
from fedrec.terms import TaskName
from fedrec_client.held_head import HeldHead, figures_of
from fedrec_server.rounds.federation import Federation
from fedrec_sim.cli_output import DEMO
from fedrec_sim.rehearsal import checks
from fedrec_sim.rehearsal.rehearse import Timeline, checked, run_the_rounds, settle
from fedrec_sim.rehearsal.stage import Stage, set_stage, wait_until
from fedrec_sim.tasks.federation import federate_head
from fedrec_sim.tasks.network import chosen_rounds, make_task_federation, promise_of
from fedrec_sim.tasks.rounds import TaskPromise, TaskRounds

_USERS = 943
_COLUMNS = ColumnMapping("user", "item", "rating", "timestamp")
_ROUND_TIMEOUT_S = 240.0
# The one about items, and those that docs/tasks.md has for the head.
ROUNDS = 9
Say = Callable[[str], None]


def rehearse_head(
    folder: Path,
    *,
    task: TaskName,
    partners: int,
    mode: Mode,
    epsilon: float,
    say: Say,
    rounds: int = ROUNDS,
    seed: int = 1,
) -> dict[str, Any]:
    """Train a task's head over the network from MovieLens-100K's ratings; what came of it, in figures.

    Args:
        rounds: of all, the first of which asks about items.
        epsilon: over all rounds, at each node's own delta.
        seed: of the deal of users to partners, and of the rows that are held back.
    """
    timeline, names = Timeline(say), [f"client-{number}" for number in range(1, partners + 1)]
    catalog, imported, held = deal_ratings(folder, names, seed)
    told = Told.of(task, partners, rounds, mode, epsilon)
    made = told.federation(task, catalog)
    made.write(folder / "federation")
    timeline.note(f"{task}: federation of {rounds} rounds, epsilon {made.statement['epsilon']:.2f}")
    columns, place = ("--rating", "rating"), folder / "federation"
    stage = set_stage(folder, place, imported, say=timeline.note, mode=mode, columns=columns)
    try:
        settle(stage, timeout_s=_ROUND_TIMEOUT_S)
        seconds = run_the_rounds(stage, rounds, (), timeline)
        wait_until(lambda: checks.adapters_are_verified(stage), "every partner to hold the newest head", 90.0)
    finally:
        stage.close()
    asked = {name: stage.client_says(name, "evaluate", str(held[name])) for name in names}
    figures = pooled(list(asked.values()))
    timeline.note(", ".join(f"{name} {value:.4f}" for name, value in figures.items()))
    found, kept = checked(stage, rounds), kept_promises(stage, rounds, mode)
    found["checks"] |= kept.pop("checks")
    simulated = simulated_head(stage, held, told, seed)
    return {
        "task": task,
        "partners": partners,
        "figures": figures,
        "simulated": simulated,
        "rounds_committed": len(checks.committed_rounds(stage)),
        "s_per_round": round(seconds / rounds, 3),
        "by_partner": asked,
        **kept,
        **found,
        "timeline": timeline.lines,
    }


def kept_promises(stage: Stage, rounds: int, mode: Mode) -> dict[str, Any]:
    """What the registry's statement says of the head, and what each node's own ledger says was paid for it."""
    statement = stage.coordinator.registry.version(rounds).statement
    spent = {name: stage.client_says(name, "budget")["epsilon_spent"] for name in stage.clients}
    same = [math.isclose(one, statement["epsilon"], abs_tol=0.05) for one in spent.values()]
    named = ("unit", "mode", "masked", "epsilon", "delta", "public_data", "other_partner_epsilon")
    return {
        "privacy": {name: statement[name] for name in named},
        "epsilon_spent": spent,
        "checks": {
            "ledgers_say_what_the_statement_says": all(same),
            "statement_names_unit_and_masks": (statement["unit"], statement["masked"]) == ("user", mode == "secagg"),
        },
    }


def simulated_head(stage: Stage, held: dict[str, Path], told: "Told", seed: int) -> dict[str, float]:
    """The same figures of a head that a simulation trains on the nodes' own rows, with the same plan and other noise.

    Raises: RunError: the simulation has another plan.
    """
    nodes = {name: HeldHead.load(stage.node(name)) for name in stage.clients}
    first = next(iter(nodes.values()))
    shares = [TasteRows(one.public, tuple(one.rows.values())) for one in nodes.values()]
    trained = federate_head(
        first.terms,
        shares,
        told.chosen,
        run="simulated",
        seed=seed,
        promise=replace(told.promise, noise_source="seeded"),
    )
    if trained.plan is None or trained.plan.hash != first.agreed.plan_hash:
        raise RunError("the simulation has another privacy plan than the network")
    head, taste = TaskHead(first.terms.shape), trained.terms.corrected(first.public, trained.state)
    write_head(head, trained.state)
    asked = [figures_of(replace(one, head=head, taste=taste), held[name], _COLUMNS) for name, one in nodes.items()]
    return pooled(asked)


@dataclass(frozen=True)
class Told:
    """What the operator of a rehearsed federation chose.

    Attributes:
        row: of the configuration.
        chosen: how the head is trained.
    """

    config: SimulationConfig = field(repr=False)
    row: str
    promise: TaskPromise
    chosen: TaskRounds

    @classmethod
    def of(cls, task: TaskName, partners: int, rounds: int, mode: Mode, epsilon: float) -> "Told":
        """The task's settings of docs/tasks.md, at a node's own delta."""
        masked, row = mode == "secagg", f"federated_eps{epsilon:g}_{mode}"
        quorum = two_thirds(partners) if masked else partners
        asked = (f"partners={partners}", f"rounds.quorum={quorum}", f"rounds.dishonest={int(masked)}")
        config = load_config(DEMO, (*asked, "private.delta=1e-5"))
        promise = promise_of(config, row)
        work = chosen_rounds(task, promise, rounds - 1)
        return cls(config, row, promise, work)

    def federation(self, task: TaskName, catalog: Path) -> Federation:
        """As `fedrec federation make --task` writes it."""
        return make_task_federation(
            self.config,
            task=task,
            name="rehearsal",
            row=self.row,
            catalog=catalog.read_bytes(),
            users_per_partner=_USERS // self.config.partners,
            seed=1,
            rounds=self.chosen.rounds,
        )


def deal_ratings(folder: Path, names: list[str], seed: int) -> tuple[Path, dict[str, Path], dict[str, Path]]:
    """MovieLens-100K's catalogue, and for each partner ratings to import and ratings held back; a new folder.

    Rows are cut as protocol D does: a random quarter of each user's is asked, what is known of a user is the rest.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    catalog, table = load_data("ml-100k", lambda _: None)
    if not isinstance(table, InteractionTable):
        raise DataError("MovieLens-100K is not held in memory")
    write_catalog(catalog, folder / "catalog.parquet")
    splits = {split.user: split for split in split_by("D", build_sequences(table, seed), seed)}
    stars, imported, held = StarsOf(table), dict[str, Path](), dict[str, Path]()
    for name, places in zip(names, deal_users(table.n_users, len(names), seed), strict=True):
        users = [table.user_ids[place] for place in places]
        mine = [splits[user] for user in users if user in splits]
        imported[name], held[name] = folder / f"{name}.csv", folder / f"{name}-held.csv"
        _write(imported[name], table, stars, [(one, one.history("test")) for one in mine])
        _write(held[name], table, stars, [(one, one.test) for one in mine])
    return folder / "catalog.parquet", imported, held


def _write(path: Path, table: InteractionTable, stars: StarsOf, rows: list[tuple[EvaluationSplit, np.ndarray]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["user", "item", "rating", "timestamp"])
        for split, items in rows:
            said = stars.of(split.user, items)
            # The place in the history in place of the time, which a head does not read.
            writer.writerows(
                (split.user, table.item_ids[item], float(one), place)
                for place, (item, one) in enumerate(zip(items, said, strict=True))
            )
    path.chmod(0o600)


def pooled(each: list[dict[str, Any]]) -> dict[str, float]:
    """Figures over all partners' rows from each partner's; of those that are means over rows."""
    rows = [one["rows"] for one in each]

    def mean(name: str, power: float) -> float:
        total = sum(n * one["figures"][name] ** power for n, one in zip(rows, each, strict=True))
        return float((total / sum(rows)) ** (1 / power))

    if "rmse" in each[0]["figures"]:
        return {"rmse": mean("rmse", 2.0), "mae": mean("mae", 1.0)}
    return {"log_loss": mean("log_loss", 1.0), "accuracy": mean("accuracy", 1.0), "mean_auc": mean("auc", 1.0)}
