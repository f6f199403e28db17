"""Every row asked for items and for users that its training never met, beside floors that can answer."""

import hashlib
import statistics
from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
from peft import PeftModel

from fedrec.config import ShapeConfig, SimulationConfig
from fedrec.data.catalog import ItemCatalog
from fedrec.data.datasets import Say
from fedrec.data.splits import EvaluationSplit
from fedrec.errors import ConfigError
from fedrec.evaluation.cold_scorers import Chance, GenrePopularity, NewItemsLast
from fedrec.evaluation.cold_start import (
    Fit,
    evaluate_new_items,
    evaluate_new_users,
    means_of,
    on_histories,
    withhold_items,
    withhold_users,
)
from fedrec.evaluation.protocol import Scorer
from fedrec.model.adapter_folder import adapter_shape
from fedrec.model.new_items import admit_new_items
from fedrec.model.recommender import read_state, write_state
from fedrec.recommend.recommender import ModelRecommender
from fedrec_sim.cold_start_page import RESULT
from fedrec_sim.rows import RowContext, run_row
from fedrec_sim.run import SUMMARY_FORMAT, Json, Run, read_json, write_json
from fedrec_sim.world import Corpus, World

FLOORS = ("chance", "genre_popularity")
_EXPERIMENTS = ("new_items", "new_users")
_FIGURES = ("hr@10", "ndcg@10")


def refuse_other_protocols(config: SimulationConfig) -> None:
    """Raises ConfigError unless the protocol is the one whose questions are asked."""
    if (protocol := config.evaluation.protocol) != "B":
        raise ConfigError(
            f"evaluation.protocol is {protocol}, but the cold start asks for latest items",
            "use --set evaluation.protocol=B",
        )


def run_cold_start(run: Run, world: World, say: Say) -> Json:
    """Train and ask what is missing in the run's folder, and write `cold_start.json` there.

    Returns: for each experiment and row the means over seeds of what was asked, with their spread.
    Raises: ConfigError: a protocol other than B.
    """
    refuse_other_protocols(run.config)
    rows = (*FLOORS, *run.config.cold_start.rows)
    with run.timed():
        for seed in run.config.seeds:
            for experiment in _EXPERIMENTS:
                for row in rows:
                    path = run.row_path(f"{experiment}-{row}", seed)
                    if not path.is_file():
                        say(f"{experiment.replace('_', ' ')}, {row}, seed {seed}")
                        write_json(path, _ask(run, world, experiment, row, seed))
    summary = {
        "format": SUMMARY_FORMAT,
        "name": run.config.name,
        "protocol": "B",
        "which": "test",
        "command": run.command,
        "commit": run.commit,
        "created_at": run.created_at,
        "seconds": run.seconds(),
        "seeds": list(run.config.seeds),
        "data": {"name": run.config.data.source, "hash": world.table.hash, "catalog_hash": world.catalog.hash},
        **{experiment: {row: _over_seeds(run, experiment, row) for row in rows} for experiment in _EXPERIMENTS},
        "config": run.config.model_dump(mode="json"),
    }
    write_json(run.folder / RESULT, summary)
    return summary


def _ask(run: Run, world: World, experiment: str, row: str, seed: int) -> Json:
    """One row and seed of an experiment: means over users by what was asked."""
    settings, n_items = run.config.cold_start, len(world.catalog)
    # Registry and ledgers of their own: what is trained here is no row of the run.
    inside = replace(run, folder=run.folder / experiment)
    if experiment == "new_items":
        items = withhold_items(world.sequences(seed), n_items, settings.items_share, seed)
        fit = _floor(world, row) or _fit_without(world, items.withheld, inside, row, seed)
        return means_of(evaluate_new_items(fit, items, seed))
    users = withhold_users(world.sequences(seed), settings.users_share, settings.shots, seed)
    fit = _floor(world, row) or fit_row(world, inside, row, seed)
    return means_of(evaluate_new_users(fit, users, n_items, seed))


def _floor(world: World, row: str) -> Fit | None:
    n_items = len(world.catalog)
    match row:
        case "chance":
            return lambda _: Chance(n_items)
        case "genre_popularity":
            return on_histories(lambda histories: GenrePopularity(world.catalog.categories).fit(histories, n_items))
        case _:
            return None


def fit_row(world: World, run: Run, row: str, seed: int) -> Fit:
    """A row of the ladder as something that trains on splits: it runs as there, its last scorer is kept."""

    def fit(splits: Sequence[EvaluationSplit]) -> Scorer:
        kept: list[Scorer] = []
        corpus = Corpus.of(list(splits), len(world.catalog))
        run_row(RowContext(world, corpus, run, row, seed, lambda _: None, lambda: False, on_scorer=kept.append))
        return kept[-1]

    return fit


def _fit_without(world: World, withheld: np.ndarray, run: Run, row: str, seed: int) -> Fit:
    """A row trained on the catalogue without the withheld items, which join it afterwards.

    So no item is learnt as one that is never next. A model that reads items by their text can score them; any other
    row ranks them last.
    """
    known = np.flatnonzero(~withheld)
    places = np.full(len(withheld), -1, np.int32)
    places[known] = np.arange(len(known), dtype=np.int32)

    def fit(splits: Sequence[EvaluationSplit]) -> Scorer:
        recoded = recoded_splits(splits, places)
        scorer = fit_row(without_items(world, known), run, row, seed)(recoded)
        if isinstance(scorer, ModelRecommender):
            whole = with_new_items(world, scorer.model, known, seed)
            return ModelRecommender(whole, scorer.max_history)
        return NewItemsLast(scorer, known, len(withheld))

    return fit


def recoded_splits(splits: Sequence[EvaluationSplit], places: np.ndarray) -> list[EvaluationSplit]:
    """The same by other item codes, int32 `[items]`."""
    return [EvaluationSplit(one.user, places[one.train], places[one.validation], places[one.test]) for one in splits]


def without_items(world: World, known: np.ndarray) -> World:
    """The world before the other items came. Its table is still the whole one: only rows that are given splits fit."""
    old, features = world.catalog, world.features
    columns = (old.ids, old.titles, old.texts, old.categories, old.years)
    catalog = ItemCatalog(*(tuple(column[item] for item in known) for column in columns))  # type: ignore[arg-type]
    name = hashlib.sha256(f"{features.hash}|{catalog.hash}".encode()).hexdigest()
    return replace(world, catalog=catalog, shared=replace(world.shared, features=features.of_items(known, name)))


def with_new_items(
    world: World, trained: PeftModel, known: np.ndarray, seed: int, behaviour: np.ndarray | None = None
) -> PeftModel:
    """The trained adapter over the whole catalogue.

    Args:
        behaviour: of all items, `[items, public_dim]`; None: new items come without what the public did with them.
    """
    state, shape = read_state(trained), adapter_shape(trained)  # before the backbone is wrapped anew
    if behaviour is None:
        behaviour = np.zeros_like(world.features.behaviour)
        behaviour[known] = world.features.behaviour[known]
    world = replace(world, shared=replace(world.shared, features=replace(world.features, behaviour=behaviour)))
    whole = world.model(ShapeConfig(**asdict(shape)), seed)
    boost = world.config.cold_start.new_item_boost
    write_state(whole, admit_new_items(state, read_state(whole), shape, world.features.vectors, known, boost))
    return whole


def _over_seeds(run: Run, experiment: str, row: str) -> Json:
    """Means and standard deviations over seeds, and how many users were asked in each."""
    results = [read_json(run.row_path(f"{experiment}-{row}", seed)) for seed in run.config.seeds]
    figures: Json = {}
    for asked in results[0]:
        found: Json = {"users": [result[asked]["users"] for result in results]}
        for figure in _FIGURES:
            values = [result[asked][figure] for result in results]
            found[figure] = statistics.fmean(values)
            found[f"{figure}_std"] = statistics.stdev(values) if len(values) > 1 else 0.0
        figures[asked] = found
    # Against whole histories: of the users trained on, who are other people, and of the same new users.
    for asked, found in figures.items():
        for whole in ("known_users", "new_users"):
            if asked.startswith("new_users") and figures[whole]["ndcg@10"]:
                found[f"share_of_{whole}_ndcg@10"] = found["ndcg@10"] / figures[whole]["ndcg@10"]
    return figures
