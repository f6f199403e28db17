"""What one reading of request and history gives beside two: NDCG@10 of the item that somebody had next."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from rich.progress import Progress, TaskID

from fedrec.data.datasets import Say, load_data
from fedrec.data.interactions import InteractionTable
from fedrec.data.splits import EvaluationSplit
from fedrec.errors import ConfigError
from fedrec.query.attributes import Floats
from fedrec.query.made import QueryMaker, training_vocabulary
from fedrec.query.query_model import QueryModel
from fedrec.recommend.recommender import Recommender
from fedrec_sim.queries.joint import JointPlan, JointReader, PublicNext, answer_columns, public_next, teach_joint
from fedrec_sim.queries.personal import Asked, Scores, Which, asked_of, best_weight, ndcg_of
from fedrec_sim.run import commit_of_checkout, read_run
from fedrec_sim.serving import load_adapter
from fedrec_sim.world import World, load_world, on_any_device

_PUBLIC = "movielens-small"
_READ_AT_ONCE = 64
_NAMES = {"words_alone": False, "words_and_history": True}


def bench_joint(
    run: Path, model_of: Callable[[World], QueryModel], say: Say, progress: Progress, plan: JointPlan | None = None
) -> dict[str, Any]:
    """Teach a reader of words with the history behind them, and one of words alone by the same steps; ask both.

    Each stands alone (beside what is popular among the public) and beside the model that reads the history apart, with
    a weight from validation. Requests as in `personal_figures`.

    Args:
        plan: None: the usual one.
    Raises: RunError: no such run.
    """
    plan = plan or JointPlan()
    held = read_run(run)
    world = load_world(on_any_device(held.config), say)
    model, recommender = model_of(world), load_adapter(held, world).recommender
    splits = world.corpus(held.config.seeds[0]).splits
    public_catalog, public = load_data(_PUBLIC, say)
    if not isinstance(public, InteractionTable):
        raise ConfigError("the public data are no table", "fetch them anew")
    people = public_next(world.catalog, public_catalog, public, plan.seed)
    popular = _log_popularity(people, len(world.catalog))
    columns = answer_columns(model.space, world.catalog, world.features, plan.taste_dim)
    maker = QueryMaker(world.catalog, training_vocabulary())
    found: dict[str, Any] = {}
    for name, with_history in _NAMES.items():
        task = progress.add_task(f"teaching {name}", total=plan.steps)
        joint = JointReader(model.reader, columns.shape[0] - model.space.width, with_history=with_history)
        teach_joint(joint, maker, people, columns, popular, plan, partial(_show, progress, task))
        progress.remove_task(task)
        found[name] = _asked_both(joint, model, recommender, world, splits, columns, popular, plan)
        say(f"{name}: NDCG@10 {found[name]['with_history_model']['mean']} beside the history's model")
    return {
        "protocol": "B, made requests about the held-out item",
        "taught_on": f"{_PUBLIC}: {len(people)} next items, a made request about each",
        "plan": asdict(plan),
        "ndcg_at_10": found,
        "run": run.name,
        "reader": model.reader_hash[:16],
        "commit": commit_of_checkout(),
    }


def _show(progress: Progress, task: TaskID, done: int, _total: int) -> None:
    progress.update(task, completed=done)


def _log_popularity(people: Sequence[PublicNext], n_items: int) -> Floats:
    counts = np.bincount([one.target for one in people], minlength=n_items)
    nats: Floats = np.log(counts + 1.0).astype(np.float32)
    return nats


def _asked_both(
    joint: JointReader,
    model: QueryModel,
    recommender: Recommender,
    world: World,
    splits: Sequence[EvaluationSplit],
    columns: Floats,
    popular: Floats,
    plan: JointPlan,
) -> dict[str, Any]:
    """By itself, and beside the history's own model with the weight that validation chooses."""
    seed, weight, found = plan.seed, 1.0, dict[str, Any]()
    for which in get_args(Which):
        asked = asked_of(world.catalog, splits, which, seed)
        worded = _scores(joint, model, asked, columns, plan)
        history = recommender.score([one.history for one in asked]).astype(np.float64)
        if which == "validation":
            weight = best_weight(history, worded, asked, seed)
            alone = best_weight(np.tile(popular, (len(asked), 1)).astype(np.float64), worded, asked, seed)
            continue
        found = {
            "weights": {"alone": alone, "with_history_model": weight},
            "alone": ndcg_of(popular + alone * worded, asked, seed),
            "with_history_model": ndcg_of(history + weight * worded, asked, seed),
        }
    return found


def _scores(joint: JointReader, model: QueryModel, asked: Sequence[Asked], columns: Floats, plan: JointPlan) -> Scores:
    """Nats of each item, `[people, items]`: refusals and years by rule, as the service has them; the rest as read."""
    space, n_categories = model.space, len(model.space.categories)
    understood = [model.understand(one.text) for one in asked]
    remainders = [model.remainder_of(one.text) for one in asked]
    rows = []
    for start in range(0, len(asked), _READ_AT_ONCE):
        some = slice(start, start + _READ_AT_ONCE)
        histories = [one.history[-plan.items :].tolist() for one in asked[some]]
        with torch.no_grad():
            rows.append(joint(remainders[some], histories).numpy())
            plain = model.reader(remainders[some]).numpy()
        weights = rows[-1]
        # What the rules made of the taught reader's weights, they make of these.
        weights[:, :n_categories] += (
            np.stack([u.weights for u in understood[some]])[:, :n_categories] - plain[:, :n_categories]
        )
        for row, one in zip(weights, understood[some], strict=True):
            if one.first_year is not None or one.last_year is not None:
                row[n_categories : space.width] = one.weights[n_categories:]
    scores = np.concatenate(rows).astype(np.float64) @ columns
    scores -= np.logaddexp.reduce(scores, 1)[:, None]
    return scores
