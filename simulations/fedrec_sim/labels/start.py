"""A self-supervised start on the catalogue: before and after few private rounds, with and without public data."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product

from fedrec.config import SimulationConfig
from fedrec.errors import ModelError
from fedrec.evaluation.metrics import MetricSums
from fedrec.evaluation.protocol import evaluate_users
from fedrec.recommend.recommender import ModelRecommender
from fedrec_sim.cold_start import fit_row
from fedrec_sim.federation import first_adapter
from fedrec_sim.run import Json, Run
from fedrec_sim.world import World

ROUNDS = 12
STARTS, PUBLIC = ("nothing", "catalog"), (False, True)
_FIGURES = ("hr@10", "ndcg@10")


def few_rounds(config: SimulationConfig) -> SimulationConfig:
    """The private row with the prior and some rounds of the head, the whole budget on those."""
    prior, head = (part for part in config.private.parts if part.part in ("prior", "head"))
    parts = (prior, head.model_copy(update={"rounds": ROUNDS, "share": 1 - prior.share}))
    return config.model_copy(update={"private": config.private.model_copy(update={"parts": parts})})


def cell_name(start: str, public: bool) -> str:
    """Of a setting, as it stands in the figures."""
    return f"{start}{'+public' if public else ''}"


def bench_start(run: Run, world: World, row: str, seed: int, say: Callable[[str], None]) -> Json:
    """Every setting of one seed, on the test of protocol B."""
    found: Json = {}
    for start, public in product(STARTS, PUBLIC):
        name = cell_name(start, public)
        say(f"seed {seed}: {name}")
        chosen = _with(world, start, public)
        config = chosen.config.for_row(row)
        model = chosen.model(config.private.shape, seed)
        first_adapter(chosen, model, seed)
        untrained = _asked(chosen, ModelRecommender(model, config.data.max_history), seed)
        inside = replace(run, folder=run.folder / name)
        scorer = fit_row(chosen, inside, row, seed)(list(chosen.corpus(seed).splits))
        assert isinstance(scorer, ModelRecommender)
        found[name] = {"before": untrained, "after": _asked(chosen, scorer, seed)}
    return found


def _with(world: World, start: str, public: bool) -> World:
    config = few_rounds(world.config)
    shape = config.private.shape if public else config.private.shape.model_copy(update={"public_dim": 0})
    changed = {
        "model": config.model.model_copy(update={"start": start}),
        "private": config.private.model_copy(update={"shape": shape}),
    }
    return replace(world, config=config.model_copy(update=changed))


def _asked(world: World, scorer: ModelRecommender, seed: int) -> Json:
    splits = world.corpus(seed).splits
    sums: MetricSums = evaluate_users(scorer, splits, "test", n_items=len(world.catalog), tie_seed=seed).sums()
    means = sums.means()
    return {"users": sums.n_users, **{name: means[name] for name in _FIGURES}}


def over_seeds(seeds: Sequence[int], results: Sequence[Json]) -> Json:
    """Means and spread over seeds of each setting, and what the start adds, paired by seed."""
    if not results:
        raise ModelError("no seed was trained", "name one")
    cells: Json = {}
    for start, public in product(STARTS, PUBLIC):
        name = cell_name(start, public)
        cells[name] = {
            when: {f: _spread([one[name][when][f] for one in results]) for f in _FIGURES}
            for when in ("before", "after")
        }
    gains = {
        ("public" if public else "no_public"): _spread(
            [
                one[cell_name("catalog", public)]["after"]["ndcg@10"]
                - one[cell_name("nothing", public)]["after"]["ndcg@10"]
                for one in results
            ]
        )
        for public in PUBLIC
    }
    return {"seeds": list(seeds), "rounds": ROUNDS, "cells": cells, "gain_ndcg@10": gains}


def _spread(values: Sequence[float]) -> Json:
    std = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.fmean(values), "std": std, "seeds": list(values)}
