"""`fedrec bench labels`: its parts, each kept in the run's folder as it is done, so that a stopped one goes on."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

from fedrec.config import SimulationConfig, load_config
from fedrec.evaluation.protocol import Scorer
from fedrec.recommend.live_model import LiveModel
from fedrec.recommend.recommender import ModelRecommender
from fedrec_sim.cli_output import CONFIGS
from fedrec_sim.cold_start import fit_row
from fedrec_sim.labels import active, alignment, pseudo, start
from fedrec_sim.run import Json, Run, read_json, write_json
from fedrec_sim.tasks.trial import TaskWorld
from fedrec_sim.world import World

Part = Literal["active", "pseudo", "alignment", "start"]
SEEDS = (21, 22, 23)
ROW = "federated_eps8_secagg"
EPSILON, DELTA = 8.0, 1e-4
_PRIVATE = {"protocol": "B", "which": "test", "epsilon": EPSILON, "delta": DELTA}
Say = Callable[[str], None]


def labels_config() -> SimulationConfig:
    """leaderboard.toml's private row, in one process; the sum under masks is simulated."""
    rows = f'rows=["{ROW}"]'
    return load_config(
        CONFIGS / "leaderboard.toml", ('name="labels"', rows, "jobs=1", "rounds.masks=false", "model.threads=1")
    )


def bench_part(part: Part, run: Run, world: Callable[[], World], say: Say, seeds: Sequence[int] = SEEDS) -> Json:
    """One part's figures; each seed's training and answers are kept in the run's folder."""
    # Registries and ledgers of their own, as for a cold start.
    inside = replace(run, folder=run.folder / part)
    match part:
        case "active":
            told = {"protocol": "later half of withheld users", "which": "test", "epsilon": EPSILON, "delta": DELTA}
            return told | active.over_seeds(
                seeds, _each(run, part, seeds, lambda seed: _active(inside, world(), seed, say))
            )
        case "pseudo":
            return _kept(run, part, 0, lambda: pseudo.bench_pseudo(TaskWorld.load(say), say))
        case "alignment":
            results = _each(run, part, seeds, lambda seed: alignment.bench_alignment(inside, world(), ROW, seed, say))
            return _PRIVATE | alignment.over_seeds(seeds, results)
        case "start":
            results = _each(run, part, seeds, lambda seed: start.bench_start(inside, world(), ROW, seed, say))
            return _PRIVATE | start.over_seeds(seeds, results)


def _each(run: Run, part: str, seeds: Sequence[int], make: Callable[[int], Json]) -> list[Json]:
    return [_kept(run, part, seed, partial(make, seed)) for seed in seeds]


def _kept(run: Run, part: str, seed: int, make: Callable[[], Json]) -> Json:
    path = run.row_path(part, seed)
    if not path.is_file():
        write_json(path, make())
    return read_json(path)


def _active(run: Run, world: World, seed: int, say: Say) -> Json:
    say(f"seed {seed}: training at epsilon {EPSILON:g} without the users who are asked")
    withheld = active.withheld_users(world, seed)
    scorer = fit_row(world, run, ROW, seed)(withheld.known)
    return active.seed_figures(_live(scorer), active.new_users(world, withheld, tuning=False), seed, say)


def _live(scorer: Scorer) -> LiveModel:
    assert isinstance(scorer, ModelRecommender)
    return LiveModel(scorer.model, "labels", scorer.max_history)


def all_parts(
    parts: Sequence[Part], run: Run, world: Callable[[], World], say: Say, seeds: Sequence[int] = SEEDS
) -> Json:
    """By name."""
    return {part: bench_part(part, run, world, say, seeds) for part in parts}
