"""What is left of the quality under each attack, by aggregator, as JSON."""

import statistics
from collections.abc import Mapping, Sequence

from fedrec.defence import AggregatorName, AttackName
from fedrec_sim.run import SUMMARY_FORMAT, Json, Run

Place = tuple[AttackName, AggregatorName, int]
RESULT = "robustness.json"  # in the folder of the run
_ENOUGH = 0.9
_FIGURES = ("ndcg@10", "hr@10", "exposure")


def tabulate(run: Run, results: Mapping[Place, Json], untrained: Sequence[Json]) -> Json:
    """Means over seeds of every cell, with their spread, and which aggregator one would have chosen on validation.

    Args:
        results: by attack, aggregator and seed; "none" among the attacks.
        untrained: of each seed, what the first adapter is worth.
    """
    config, seeds = run.config, list(run.config.seeds)
    by_cell: dict[str, dict[str, list[Json]]] = {}
    for (attack, defence, _), found in results.items():
        by_cell.setdefault(attack, {}).setdefault(defence, []).append(found)
    cells = {attack: {d: _over_seeds(found) for d, found in row.items()} for attack, row in by_cell.items()}
    for row in cells.values():
        for name, cell in row.items():
            _compare(cell, cells["none"][name], cells["none"].get("mean"))
    first = next(iter(results.values()))
    return {
        "format": SUMMARY_FORMAT,
        "name": config.name,
        "row": config.rows[0],
        "protocol": config.evaluation.protocol,
        "which": "test",
        "seeds": seeds,
        "partners": config.partners,
        "hostile": config.attack.hostile,
        "quorum": config.rounds.quorum,
        "epsilon": first["epsilon"],
        "rounds": first["rounds"],
        "command": run.command,
        "commit": run.commit,
        "created_at": run.created_at,
        "seconds": run.seconds(),
        "untrained_ndcg@10": statistics.fmean(one["ndcg@10"] for one in untrained),
        "cells": cells,
        "chosen_on_validation": chosen(cells),
        "config": config.model_dump(mode="json"),
    }


def chosen(cells: Mapping[str, Mapping[str, Json]]) -> str:
    """The aggregator under which the promoted item is seen least in the worst attack, on validation.

    Among those whose worst attack leaves 90% of the best unattacked NDCG@10; if there is none, the one that leaves
    most. Test figures are not looked at.
    """
    worst = {name: min(row[name]["validation"]["ndcg@10"] for row in cells.values()) for name in cells["none"]}
    seen = {name: max(row[name]["validation"]["exposure"] for row in cells.values()) for name in cells["none"]}
    enough = _ENOUGH * max(cell["validation"]["ndcg@10"] for cell in cells["none"].values())
    fit = [name for name in worst if worst[name] >= enough]
    return min(fit, key=lambda name: (seen[name], -worst[name])) if fit else max(worst, key=lambda name: worst[name])


def _over_seeds(found: list[Json]) -> Json:
    cell: Json = {"validation": {name: statistics.fmean(one["validation"][name] for one in found) for name in _FIGURES}}
    for name in _FIGURES:
        values = [one["test"][name] for one in found]
        cell[name], cell[f"{name}_std"] = statistics.fmean(values), statistics.stdev(values) if len(found) > 1 else 0.0
    return cell | {"seconds": sum(one["seconds"] for one in found)}


def _compare(cell: Json, unattacked: Json, plain: Json | None) -> None:
    """Shares of the unattacked NDCG@10: of the same aggregator's, and of the mean's."""
    cell["kept"] = cell["ndcg@10"] / unattacked["ndcg@10"]
    cell["kept_of_mean"] = cell["ndcg@10"] / plain["ndcg@10"] if plain else None
    cell["exposure_before"] = unattacked["exposure"]
