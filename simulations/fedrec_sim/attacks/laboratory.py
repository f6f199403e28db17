"""Every attack on every aggregator: train, ask what is left of the quality, and who sees the promoted item."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import get_args

from fedrec.config import RoundsConfig, SimulationConfig
from fedrec.data.datasets import Say
from fedrec.defence import AggregatorName, AttackName, Defence
from fedrec.errors import ConfigError
from fedrec.evaluation.protocol import Which, evaluate_users
from fedrec.model.recommender import write_state
from fedrec.recommend.recommender import ModelRecommender
from fedrec.rows import row_mode
from fedrec.training.local import ContextCache
from fedrec_sim.attacks.forged import FROM_ALL
from fedrec_sim.attacks.hostile import Attacker
from fedrec_sim.attacks.poisoned import item_of
from fedrec_sim.attacks.table import RESULT, tabulate
from fedrec_sim.federation import Federation, federate
from fedrec_sim.rows import Stopped
from fedrec_sim.run import Json, Run, read_json, write_json
from fedrec_sim.world import Corpus, World


@dataclass(frozen=True)
class Cell:
    """One training: an attack on an aggregator, for one seed."""

    attack: AttackName
    defence: AggregatorName
    seed: int

    @property
    def name(self) -> str:
        """Of its result's file."""
        return f"{self.attack}-{self.defence}"


@dataclass
class Bench:
    """What the cells of one seed share, so that the LLM reads every history once.

    Attributes:
        contexts: of each partner's users in training.
        recommender: of the last cell.
    """

    run: Run
    world: World
    corpus: Corpus
    seed: int
    promoted: int
    stop: Callable[[], bool]
    contexts: dict[str, ContextCache] = field(default_factory=dict, repr=False)
    recommender: ModelRecommender | None = field(default=None, repr=False)


def refuse_unfit(config: SimulationConfig) -> None:
    """Raises ConfigError: all reasons why an attack cannot be tried on this configuration, at once."""
    attack, asked = config.attack, config.rounds.partners_per_round or config.partners
    problems = [] if len(config.rows) == 1 else [f"rows: one is attacked, not {len(config.rows)}"]
    problems += [f"rows: {row} is not federated" for row in config.rows if row_mode(row) is None]
    problems += [] if config.engine == "inline" else ['engine: only "inline" has hostile partners']
    problems += [] if asked == config.partners else ["rounds.partners_per_round: every partner is asked here"]
    if not attack.hostile < config.partners:
        problems.append(f"attack.hostile {attack.hostile} of {config.partners} partners leaves nobody honest")
    masked = any(row_mode(row) == "secagg" for row in config.rows)
    blind = [name for name in attack.attacks if masked and name in (*FROM_ALL, "sybil")]
    problems += [f"attack.attacks: {name} reads honest answers, which masks hide" for name in blind]
    for defence in attack.defences:
        problems += _rounds_of(config, defence).problems(config.rounds.quorum, secagg=masked)
    if problems:
        raise ConfigError.of_all(problems, "see simulations/configs/attack-inspect.toml", "attacks")


def run_laboratory(run: Run, world: World, say: Say, stop: Callable[[], bool] = lambda: False) -> Json:
    """Train and ask what is missing in the run's folder, and write `robustness.json` there.

    Args:
        say: takes progress.
        stop: true once a person asked to stop.
    Returns: the table, see `tabulate`.
    Raises: ConfigError: see `refuse_unfit`. Stopped: what is finished stays.
    """
    refuse_unfit(run.config)
    item, cells = item_of(world.catalog.titles, run.config.attack.promoted), cells_of(run.config)
    bench: Bench | None = None
    with run.timed():
        for number, cell in enumerate(cells, start=1):
            path, label = run.row_path(cell.name, cell.seed), f"{cell.name}-{cell.seed}"
            if path.is_file():
                continue
            say(f"{number} of {len(cells)}: {cell.attack} on {cell.defence}, seed {cell.seed}")
            if bench is None or bench.seed != cell.seed:
                bench = Bench(run, world, world.corpus(cell.seed), cell.seed, item, stop)
            with run.timed(label):
                found = _try(bench, cell)
            write_json(path, found | {"seconds": run.seconds(label)})
        untrained = [_untrained(run, world, seed, item) for seed in run.config.seeds]
    results = {(c.attack, c.defence, c.seed): read_json(run.row_path(c.name, c.seed)) for c in cells}
    summary = tabulate(run, results, untrained)
    summary["data"] = {"name": run.config.data.source, "hash": world.table.hash, "catalog_hash": world.catalog.hash}
    write_json(run.folder / RESULT, summary)
    return summary


def cells_of(config: SimulationConfig) -> list[Cell]:
    """In the order in which they are tried: one seed after the other, the unattacked first."""
    attacks = dict.fromkeys(("none", *config.attack.attacks))
    return [
        Cell(attack, defence, seed) for seed in config.seeds for attack in attacks for defence in config.attack.defences
    ]


def _try(bench: Bench, cell: Cell) -> Json:
    """Train under attack; registry and ledgers are the cell's own, and go with it."""
    config = bench.run.config.model_copy(update={"rounds": _rounds_of(bench.run.config, cell.defence)})
    folder = bench.run.folder / "cells" / f"{cell.name}-{cell.seed}"
    shutil.rmtree(folder, ignore_errors=True)  # of a cell that was stopped
    federation = _federation(bench, replace(bench.world, config=config), replace(bench.run, folder=folder))
    attacker = Attacker(cell.attack, config, federation.partners, bench.promoted, bench.contexts)
    federation.partners.stand_in = attacker.stand_in
    state = federation.run()
    if bench.stop():
        raise Stopped
    shutil.rmtree(folder)
    write_state(federation.model, state)
    found: Json = {"hostile": [] if cell.attack == "none" else attacker.hostile, "adapter_hash": state.hash}
    found |= {"epsilon": federation.statement["epsilon"], "rounds": len(federation.schedule)}
    max_history = federation.config.data.max_history
    last = bench.recommender or ModelRecommender(federation.model, max_history, remember=True)
    bench.recommender = last.over(federation.model)
    return found | {which: _asked(bench, bench.recommender, which) for which in get_args(Which)}


def _untrained(run: Run, world: World, seed: int, item: int) -> Json:
    """What the first adapter is worth, before any partner is asked: public text and public data alone."""
    path = run.row_path("untrained", seed)
    if not path.is_file():
        bench = Bench(run, world, world.corpus(seed), seed, item, lambda: False)
        folder = run.folder / "cells" / f"untrained-{seed}"
        federation = _federation(bench, world, replace(run, folder=folder))
        shutil.rmtree(folder, ignore_errors=True)  # rows without privacy made none
        write_state(federation.model, federation.session.initial_state)
        recommender = ModelRecommender(federation.model, federation.config.data.max_history)
        write_json(path, _asked(bench, recommender, "test"))
    return read_json(path)


def _federation(bench: Bench, world: World, run: Run) -> Federation:
    (row,) = run.config.rows
    mode, quiet = row_mode(row), lambda _: None
    assert mode is not None  # refused before
    seed, stop = bench.seed, bench.stop
    return federate(world, bench.corpus, run, row=row, seed=seed, mode=mode, on_event=quiet, stop=stop)


def _asked(bench: Bench, recommender: ModelRecommender, which: Which) -> Json:
    """Quality, and the share of users in whose top ten the promoted item stands."""
    n_items, splits = len(bench.world.catalog), bench.corpus.splits
    sums = evaluate_users(recommender, splits, which, n_items=n_items, tie_seed=bench.seed).sums()
    figures = {name: float(sums.means()[name]) for name in ("hr@10", "ndcg@10")}
    return {**figures, "exposure": float(sums.exposure[bench.promoted]) / sums.n_users, "users": sums.n_users}


def _rounds_of(config: SimulationConfig, defence: AggregatorName) -> RoundsConfig:
    """The rounds with an aggregator that knows how many are hostile."""
    hostile = 0 if defence == "mean" else config.attack.hostile
    chosen = Defence(aggregator=defence, hostile=hostile, clip_norm=0.0)
    return config.rounds.model_copy(update=chosen.model_dump())
