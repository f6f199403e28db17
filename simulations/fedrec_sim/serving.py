"""Load what a run handed on, and recommend with it."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from fedrec.config import ShapeConfig
from fedrec.data.splits import CUT_BY_ALL
from fedrec.errors import DataError, ModelError, RunError
from fedrec.files import storage_errors, sync_folder
from fedrec.model.adapter_folder import AdapterCard, adapter_shape, read_adapter, read_card, save_adapter
from fedrec.model.recommender import write_state
from fedrec.privacy.statement import privacy_statement
from fedrec.privacy.statement_page import statement_page
from fedrec.query.query_model import QUERY_WEIGHT
from fedrec.recommend.explain import leave_one_out
from fedrec.recommend.recommender import ModelRecommender, top_k
from fedrec.registry.registry import Registry
from fedrec.rows import handed_on_row, is_private
from fedrec_sim.run import Json, Run, read_json
from fedrec_sim.world import World

_EXAMPLE_USERS = 3


@dataclass(frozen=True)
class LoadedAdapter:
    """A run's adapter in a model, ready to recommend."""

    recommender: ModelRecommender = field(repr=False)
    card: AdapterCard


def hand_on(run: Run, world: World) -> LoadedAdapter | None:
    """Write the run's adapter as a PEFT folder, whole or not at all; None if no row was federated.

    Where the protocol cuts a user's items by what others have, what a private row promises does not hold for them, and
    it is not handed on.
    """
    row = row_handed_on(run)
    if row is None:
        return None
    config = run.config.for_row(row)
    seed = run.config.seeds[0]
    result = read_json(run.row_path(row, seed))
    registry = Registry(run.folder / "registry" / f"{row}-{seed}")
    number = (result.get("chosen_on_validation") or {}).get("round") or registry.head_round()
    state = registry.load(number)
    shape = config.private.shape if is_private(row) else config.plain.shape
    model = world.model(shape, seed)
    card = AdapterCard(
        version=f"round-{number:04d}",
        adapter_hash=state.hash,
        backbone=run.config.model.backbone,
        backbone_hash=world.backbone.hash,
        layers=world.backbone.n_layers,
        catalog_hash=world.catalog.hash,
        features_hash=world.features.hash,
        shape=adapter_shape(model),
    )
    statement = result.get("privacy") or privacy_statement(None, noise_source="seeded", simulated=True)
    target, fresh = run.folder / "adapter", run.folder / ".adapter.new"
    with storage_errors(run.folder):
        shutil.rmtree(fresh, ignore_errors=True)
        save_adapter(fresh, model, state, card, statement, statement_page(statement, card.version))
        shutil.rmtree(target, ignore_errors=True)
        fresh.rename(target)
        sync_folder(run.folder)
    write_state(model, state)
    return LoadedAdapter(ModelRecommender(model, config.data.max_history), card)


def row_handed_on(run: Run) -> str | None:
    """The row whose adapter a run hands on; None if it has none."""
    rows = [row for row in run.config.rows if not (is_private(row) and run.config.evaluation.protocol in CUT_BY_ALL)]
    return handed_on_row(rows)


def load_adapter(run: Run, world: World) -> LoadedAdapter:
    """The adapter of a finished run. Raises RunError if the run has none, ModelError if it fits other data or model."""
    folder = run.folder / "adapter"
    row = row_handed_on(run)
    if row is None or not folder.is_dir():
        remedy = "finish it with `fedrec simulate --resume`; only a run with a federated row hands an adapter on"
        raise RunError(f"{run.folder}: no adapter yet", remedy)
    card = read_card(folder)
    for what, own, there in (
        ("catalogue", card.catalog_hash, world.catalog.hash),
        ("model", card.backbone_hash, world.backbone.hash),
        ("item features", card.features_hash, world.features.hash),
    ):
        if own != there:
            raise ModelError(f"{folder}: made for another {what}", "fetch what the run was made with, or train anew")
    model = world.model(ShapeConfig(**asdict(card.shape)), run.config.seeds[0])
    write_state(model, read_adapter(folder))
    return LoadedAdapter(ModelRecommender(model, run.config.for_row(row).data.max_history), card)


def user_history(world: World, run: Run, user: str) -> np.ndarray:
    """Everything a user of the data has interacted with, oldest first. Raises DataError if there is no such user."""
    for sequence in world.sequences(run.config.seeds[0]):
        if sequence.user == user:
            return sequence.items
    raise DataError("no such user in this data set", "name one by the id that it has in the data")


def titles_history(world: World, titles: Sequence[str]) -> np.ndarray:
    """Catalogue codes of titles, as someone new would name them. Raises DataError listing every unknown title."""
    codes, problems = [], []
    for title in titles:
        try:
            codes.append(world.catalog.find_title(title))
        except DataError as error:
            problems.append(str(error.problem))
    if problems:
        raise DataError.of_all(problems, "write titles as the catalogue does", "--history")
    return np.array(codes, dtype=np.int32)


def recommend(
    adapter: LoadedAdapter, world: World, history: np.ndarray, k: int, worded: np.ndarray | None = None
) -> list[Json]:
    """The k best unseen items with titles, scores and reasons.

    Args:
        worded: nats to be added to each item's score, `[items]`, by a request in words.
    """
    ranked = adapter.recommender.rank(history, k)
    if worded is not None:
        scores = (adapter.recommender.score([history])[0] + QUERY_WEIGHT * worded).astype(np.float32)
        ranked = top_k(scores, history, k, ranked.source)
    reasons = leave_one_out(adapter.recommender, history, ranked)
    return [
        {
            "item": world.catalog.ids[item],
            "title": world.catalog.titles[item],
            "score": round(float(score), 6),
            "reason": reason.in_words(world.catalog),
        }
        for item, score, reason in zip(ranked.items, ranked.scores, reasons, strict=True)
    ]


def example_recommendations(adapter: LoadedAdapter, world: World, run: Run, k: int = 5) -> list[Json]:
    """Three users of the data, drawn by the run's seed: what they watched last and what they are offered next."""
    splits = world.corpus(run.config.seeds[0]).splits
    drawn = np.random.default_rng(run.config.seeds[0]).choice(
        len(splits), min(_EXAMPLE_USERS, len(splits)), replace=False
    )
    examples = []
    for place in sorted(drawn):
        history = splits[place].history("test")
        unseen = len(world.catalog) - len(np.unique(history))
        if unseen == 0:
            continue  # whoever has seen everything cannot be recommended anything
        watched = [world.catalog.titles[item] for item in history[-5:]]
        examples.append(
            {
                "user": splits[place].user,
                "watched": watched,
                "recommended": recommend(adapter, world, history, min(k, unseen)),
            }
        )
    return examples
