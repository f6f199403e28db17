"""A scenario in a run's summary: what it is about, and each row's figures over the seeds."""

import statistics
from collections.abc import Sequence

import numpy as np

from fedrec.config import ScenarioConfig
from fedrec.data.datasets import Interactions
from fedrec.data.scene import Scene
from fedrec_sim.run import Json, Run, read_json
from fedrec_sim.world import World


def scenario_of(run: Run, world: World) -> Json:
    """`{"scenario": ...}` of a run that has one, nothing of another."""
    scenario, scene = run.config.scenario, world.scene
    if scenario is None or scene is None:
        return {}
    seed = run.config.seeds[0]
    rows = {
        row: over_seeds([read_json(run.row_path(row, seed))["scenario"] for seed in run.config.seeds])
        for row in run.config.rows
    }
    facts = scenario_facts(scene, scenario, world.table)
    facts["partners"] = [len(users) for users in world.shares(world.corpus(seed), seed)]
    facts["partners_by"] = scenario.partners_by
    return {"scenario": facts | {"rows": rows}}


def over_seeds(found: Sequence[Json]) -> Json:
    """Mean over seeds of every figure, however nested; of one seed the figures themselves."""
    merged: Json = {}
    for key, first in found[0].items():
        values = [one[key] for one in found]
        merged[key] = over_seeds(values) if isinstance(first, dict) else statistics.fmean(values)
    return merged


def scenario_facts(scene: Scene, scenario: ScenarioConfig, table: Interactions) -> Json:
    """What stands above the figures: what is real, events, fields and rules. Exact counts: for the own report."""
    counts = scene.log.counts()
    rules = [rule.model_dump(mode="json", exclude_defaults=True) for rule in scenario.book().rules]
    return {
        "domain": scenario.domain,
        "told": scene.told,
        "made": scene.made,
        "events": {
            name: {"means": one.means, "weight": one.weight, "count": counts[name]}
            for name, one in scenario.events.items()
        },
        "positive_from": scenario.positive_from,
        "pairs": len(np.unique(scene.log.user_codes.astype(np.int64) * len(scene.catalog) + scene.log.item_codes)),
        "positives": table.n_rows,
        "users_seen": len(scene.log.user_ids),
        "fields": list(scenario.fields),
        "provider": scenario.provider,
        "calibration": scenario.calibration,
        "rules": rules,
    }
