"""New items get a behaviour vector that their text predicts: by contrast, by regression, by nothing, or the true one.

The cold start's new items: withheld from training, catalogue and public data alike, so that the public behaviour that
the others have knows nothing of them.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedrec.data.datasets import load_data
from fedrec.errors import ModelError
from fedrec.evaluation.cold_start import evaluate_new_items, withhold_items
from fedrec.evaluation.metrics import MetricSums
from fedrec.model.alignment import align_by_regression, align_contrastively, found_share
from fedrec.model.behaviour import behaviour_vectors
from fedrec.recommend.recommender import ModelRecommender
from fedrec_sim.cold_start import fit_row, recoded_splits, with_new_items, without_items
from fedrec_sim.labels.start import few_rounds
from fedrec_sim.run import Json, Run
from fedrec_sim.world import World

WAYS = ("nothing", "regression", "contrast", "true")
ASKED = ("known_items", "new_items", "among_new_items")
_FIGURES = ("hr@10", "ndcg@10")
Floats = NDArray[np.float32]


def bench_alignment(run: Run, world: World, row: str, seed: int, say: Callable[[str], None]) -> Json:
    """Train without a tenth of the items, by few rounds, then ask for them with each way's behaviour vectors."""
    world = replace(world, config=few_rounds(world.config))
    settings, n_items = world.config.cold_start, len(world.catalog)
    items = withhold_items(world.sequences(seed), n_items, settings.items_share, seed)
    known = np.flatnonzero(~items.withheld)
    before = _without_public_traces(without_items(world, known))
    places = np.full(n_items, -1, np.int32)
    places[known] = np.arange(len(known), dtype=np.int32)
    say(f"seed {seed}: training without {int(items.withheld.sum())} items")
    scorer = fit_row(before, run, row, seed)(recoded_splits(items.training, places))
    assert isinstance(scorer, ModelRecommender)
    found: Json = {"ways": {}}
    vectors, found["found_at_10"] = _predicted(world, before, known, items.withheld, seed)
    trained = scorer.model
    for way in WAYS:
        say(f"seed {seed}: new items with {way}")
        whole = with_new_items(world, trained, known, seed, vectors[way])
        asked = ModelRecommender(whole, scorer.max_history)
        sums = evaluate_new_items(lambda _, asked=asked: asked, items, seed)  # type: ignore[misc]
        found["ways"][way] = {name: _told(sums[name]) for name in ASKED}
    return found


def _without_public_traces(world: World) -> World:
    """As if the public had never met the withheld items either."""
    model = world.config.model
    public_catalog, public = load_data(model.public_data, lambda _: None)
    vectors = behaviour_vectors(world.catalog, public_catalog, public.tables(), model.public_dim)
    features = world.features.with_behaviour(vectors, f"{public.hash}|{model.public_dim}")
    return replace(world, shared=replace(world.shared, features=features))


def _predicted(
    world: World, before: World, known: NDArray[np.int64], withheld: NDArray[np.bool_], seed: int
) -> tuple[dict[str, Floats], Json]:
    """Behaviour of all items by each way, and how well a new item's text finds its own among the new ones'."""
    texts, of_known = world.features.vectors, before.features.behaviour
    new = np.flatnonzero(withheld)
    contrast = align_contrastively(texts[known], of_known, seed)
    true = _turned(world.features.behaviour, of_known, known)
    of_new = {
        "nothing": np.zeros((len(new), of_known.shape[1])),
        "regression": align_by_regression(texts[known], of_known).predict(texts[new]),
        "contrast": contrast.predict(texts[new]),
        "true": true[new],
    }
    there = np.linalg.norm(true[new], axis=1) > 0
    shares = {
        way: found_share(of_new[way][there], true[new][there].astype(np.float32)) for way in ("regression", "contrast")
    }
    vectors = {}
    for way, rows in of_new.items():
        vectors[way] = np.zeros((len(texts), of_known.shape[1]), np.float32)
        vectors[way][known], vectors[way][new] = of_known, rows
    return vectors, {**shares, "new_items": int(there.sum()), "scale": contrast.scale}


def _turned(whole: Floats, of_known: Floats, known: NDArray[np.int64]) -> Floats:
    """Vectors of all items in the space of those that were made without some: both know the same items, so that the
    rotation between the two is known (Procrustes). The bound of what any prediction could be worth.
    """
    left, _, right = np.linalg.svd(whole[known].T @ of_known)
    return np.asarray(whole @ (left @ right), np.float32)


def _told(sums: MetricSums) -> Json:
    means = sums.means()
    return {"users": sums.n_users, **{name: means[name] for name in _FIGURES}}


def over_seeds(seeds: Sequence[int], results: Sequence[Json]) -> Json:
    """Means and spread over seeds."""
    if not results:
        raise ModelError("no seed was trained", "name one")
    ways = {
        way: {name: {f: _spread([one["ways"][way][name][f] for one in results]) for f in _FIGURES} for name in ASKED}
        for way in WAYS
    }
    shares = {way: _spread([one["found_at_10"][way] for one in results]) for way in ("regression", "contrast")}
    users = [one["ways"]["nothing"]["new_items"]["users"] for one in results]
    return {"seeds": list(seeds), "users": users, "ways": ways, "found_at_10": shares}


def _spread(values: Sequence[float]) -> Json:
    std = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.fmean(values), "std": std, "seeds": list(values)}
