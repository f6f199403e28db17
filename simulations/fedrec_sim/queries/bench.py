"""`fedrec bench requests`: the trained reader beside BM25 and sentence-encoder search, alone and with a history."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fedrec.errors import ModelError, RunError
from fedrec.model.shared import encoder_folder
from fedrec.query.made import QueryMaker, training_vocabulary
from fedrec.query.query_model import QueryModel
from fedrec.query.rule import CatalogFacts
from fedrec_sim.queries.personal import personal_figures
from fedrec_sim.queries.published import published_queries
from fedrec_sim.queries.searches import bm25_scores, encoder_scores, precision_of, reader_scores, table
from fedrec_sim.run import commit_of_checkout, read_run
from fedrec_sim.serving import load_adapter
from fedrec_sim.world import World, load_world, on_any_device

_MADE_CHINESE, _TIES = 300, 1


def bench_requests(run: Path, model_of: Callable[[World], QueryModel], say: Callable[[str], None]) -> dict[str, Any]:
    """All figures; those that are asked for stand at the top. Raises RunError: no such run; DataError."""
    held = read_run(run)
    world = load_world(on_any_device(held.config), say)
    catalog, facts = world.catalog, CatalogFacts.of(world.catalog)
    queries = published_queries(catalog)
    texts = [query.text for query in queries]
    encoder = encoder_folder(held.config.model)
    if encoder is None:
        raise ModelError("the run has no sentence encoder to compare with", "set model.sentence_encoder")
    model = model_of(world)
    say("searching by BM25 and by the sentence encoder")
    scores = {
        "reader": reader_scores(model, catalog, texts),
        "bm25": bm25_scores(catalog, texts),
        "encoder": encoder_scores(catalog, encoder, texts),
    }
    precisions = {name: precision_of(of, queries, facts, _TIES) for name, of in scores.items()}
    searches = table(precisions, queries)
    say("with histories")
    seed = held.config.seeds[0]
    corpus = world.corpus(seed)
    personal = personal_figures(
        model, load_adapter(held, world).recommender, catalog, corpus.splits, corpus.popularity, seed
    )
    means = {name: float(values.mean()) for name, values in precisions.items()}
    best = max(means["bm25"], means["encoder"])
    ndcg = personal["ndcg_at_10"]
    if not isinstance(ndcg, dict):
        raise RunError("no user has an item to be asked for")
    return {
        "precision_at_10": round(means["reader"], 4),
        "bm25_precision_at_10": round(means["bm25"], 4),
        "encoder_precision_at_10": round(means["encoder"], 4),
        "ratio": round(means["reader"] / best, 3),
        "request_ndcg_at_10": ndcg["request"]["mean"],
        "personal_ndcg_at_10": ndcg["request_personal"]["mean"],
        "requests": len(queries),
        "searches": searches,
        "chinese": _chinese(model, world),
        "personal": personal,
        "protocol": "rule satisfied among the first ten; with a history: B, made requests about the held-out item",
        "run": run.name,
        "reader": model.reader_hash[:16],
        "commit": commit_of_checkout(),
    }


def _chinese(model: QueryModel, world: World) -> dict[str, float | int]:
    """Precision on made requests in Chinese: other ones than those of training, from the same phrases."""
    maker = QueryMaker(world.catalog, training_vocabulary())
    made = [maker.make(np.random.default_rng([0x2E, number]), "zh") for number in range(_MADE_CHINESE)]
    items = model.space.of_catalog(world.catalog)
    found = []
    for query in made:
        scores = model.scores(model.understand(query.text(world.catalog)), items)
        right = maker.facts.satisfied(query.rule)
        found.append(right[np.argsort(-scores, kind="stable")[:10]].sum() / min(10, right.sum()))
    return {"precision_at_10": round(float(np.mean(found)), 4), "requests": len(made)}
