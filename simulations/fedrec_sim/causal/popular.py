"""How much of each ranking's score on MovieLens-100K is popularity: plain and propensity-weighted HR@10 and NDCG@10."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedrec.config import BaselinesConfig
from fedrec.data.datasets import Say, load_data
from fedrec.data.sequences import build_sequences
from fedrec.data.splits import EvaluationSplit, leave_one_out
from fedrec.errors import ConfigError
from fedrec.evaluation.baselines.linear import item_popularity
from fedrec.evaluation.debiased import fit_power, propensity_weights, weighted_mean
from fedrec.evaluation.off_policy import effective_size
from fedrec.evaluation.protocol import Scorer, evaluate_users
from fedrec_sim.baseline_rows import Bench, fit_floor
from fedrec_sim.run import Json, Run, read_run

FLOORS = ("popularity", "item_knn", "ease")
POWERS = ("plain", "half", "full")
FIGURES = ("hr@10", "ndcg@10")


def debias_ranking(run: Path | None, replicates: int, seed: int, say: Say) -> Json:
    """Every row's figures at three powers of popularity, protocol B.

    Args:
        run: whose adapter is asked too, if any; it decides the seed that ties are broken by.
    Raises: ConfigError: a run on other data or of another protocol. RunError: no such run.
    """
    scorers: dict[str, Scorer] = {}
    if run is not None:
        seed, scorers["adapter"] = _adapter_of(run, say)
    catalog, table = load_data("ml-100k", say)
    splits, n_items = leave_one_out(build_sequences(table, seed)), len(catalog)  # type: ignore[arg-type]
    bench, settings = Bench(splits, n_items, seed), BaselinesConfig()
    for row in ("popularity", "item_knn", "ease"):
        say(f"ml-100k: {row}, chosen on validation")
        scorers[row] = fit_floor(row, settings, bench).scorer
    counts = item_popularity(bench.train, n_items)
    power = fit_power(targets_of(splits, "validation"), counts)
    powers = {"plain": 0.0, "half": power / 2, "full": power}
    rows = {
        row: _figures(scorers[row], splits, counts, powers, replicates, seed) for row in (*FLOORS, *_others(scorers))
    }
    asked = targets_of(splits, "test")
    return {
        "data": "ml-100k",
        "protocol": "B",
        "which": "test",
        "seed": seed,
        "run": run.name if run is not None else None,
        "users": len(asked),
        "powers": powers,
        "effective_users": {
            name: effective_size(propensity_weights(asked, counts, power)) for name, power in powers.items()
        },
        "rows": rows,
    }


def _others(scorers: dict[str, Scorer]) -> tuple[str, ...]:
    return tuple(name for name in scorers if name not in FLOORS)


def refuse_unfit(run: Path) -> Run:
    """A run whose adapter can be asked. Raises ConfigError: other data or protocol. RunError: no such run."""
    held = read_run(run)
    if held.config.data.source != "ml-100k" or held.config.evaluation.protocol != "B":
        raise ConfigError(f"run {run.name} is not on ml-100k under protocol B", "name another run, or none")
    return held


def _adapter_of(run: Path, say: Say) -> tuple[int, Scorer]:
    from fedrec_sim.serving import load_adapter
    from fedrec_sim.world import load_world, on_any_device

    held = refuse_unfit(run)
    world = load_world(on_any_device(held.config), say)
    return held.config.seeds[0], load_adapter(held, world).recommender


def targets_of(splits: Sequence[EvaluationSplit], which: str) -> NDArray[np.int64]:
    """The one item that each evaluated user is asked for, in the order of `evaluate_users`."""
    found = []
    for split in splits:
        history, wanted = split.history(which), getattr(split, which)  # type: ignore[arg-type]
        found.append(np.setdiff1d(wanted, history))
    return np.concatenate(found).astype(np.int64)


def _figures(
    scorer: Scorer,
    splits: Sequence[EvaluationSplit],
    counts: NDArray[np.int64],
    powers: dict[str, float],
    replicates: int,
    seed: int,
) -> Json:
    users, asked = (
        evaluate_users(scorer, splits, "test", n_items=len(counts), tie_seed=seed),
        targets_of(splits, "test"),
    )
    found: Json = {}
    for figure in FIGURES:
        values = users.column(figure)
        found[figure] = {
            name: asdict(
                weighted_mean(
                    values, propensity_weights(asked, counts, power), replicates, np.random.default_rng([seed, 0xDEB1])
                )
            )
            for name, power in powers.items()
        }
        whole = found[figure]["plain"]["value"]
        found[figure]["kept"] = found[figure]["full"]["value"] / whole if whole else None
    return found
