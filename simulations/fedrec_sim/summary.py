"""Every figure of a run in one JSON object: means and spread over seeds, and all that is needed to repeat it."""

import statistics
from collections.abc import Sequence
from importlib import metadata

import numpy as np

from fedrec.model.recommender import adapter_parameters, tensor_parts
from fedrec.rows import handed_on_row, is_private
from fedrec_sim.run import SUMMARY_FORMAT, Json, Run, read_events, read_json
from fedrec_sim.scenarios.summary import scenario_of
from fedrec_sim.world import World, drawn_users

_PACKAGES = (
    "fedrec",
    "torch",
    "transformers",
    "peft",
    "opacus",
    "flwr",
    "dp-accounting",
    "implicit",
    "numpy",
    "cryptography",
)
_FIGURES = (
    *(f"{metric}@{k}" for metric in ("hr", "ndcg", "mrr", "recall", "precision") for k in (5, 10, 20)),
    "coverage@10",
    "novelty@10",
)


def summarise(run: Run, world: World) -> Json:
    """Read the rows that are done and put them together."""
    rows = {row: _row([read_json(run.row_path(row, seed)) for seed in run.config.seeds]) for row in run.config.rows}
    return {
        "format": SUMMARY_FORMAT,
        "name": run.config.name,
        "protocol": run.config.evaluation.protocol,
        "which": "test",
        "command": run.command,
        "commit": run.commit,
        "created_at": run.created_at,
        "seeds": list(run.config.seeds),
        "partners": run.config.partners,
        "seconds": run.seconds(),
        "versions": {name: metadata.version(name) for name in _PACKAGES},
        "data": {
            "name": _data_name(run, world),
            "generated": world.made,
            "hash": world.table.hash,
            "catalog_hash": world.catalog.hash,
            "items": world.table.n_items,
            **_counts(run, world),
        },
        "model": {
            "name": world.backbone.name,
            "hash": world.backbone.hash,
            "layers": world.backbone.n_layers,
            "parameters_trained": _trained(world),
        },
        "privacy": _privacy(run),
        "rows": rows,
        **scenario_of(run, world),
        "lost_turns": _lost_turns(run),
        "popularity_curve": _popularity_curve(run, world),
        "config": run.config.model_dump(mode="json"),
    }


def _counts(run: Run, world: World) -> Json:
    """Users, and their interactions; of drawn users, those of the first seed."""
    if not drawn_users(run.config):
        return {"users": world.table.n_users, "interactions": world.table.n_rows}
    drawn = world.sequences(run.config.seeds[0])
    return {"users": len(drawn), "interactions": sum(len(sequence.items) for sequence in drawn)}


def _data_name(run: Run, world: World) -> str:
    """Whatever shows the data's name shows that they are made."""
    made, drawn = world.made, drawn_users(run.config)
    remarks = [remark for remark in (made, drawn and f"{drawn} of its users, drawn by the seed") if remark]
    return f"{run.config.data.source} ({'; '.join(remarks)})" if remarks else run.config.data.source


def _row(results: Sequence[Json]) -> Json:
    """Mean over seeds of every figure, and the standard deviation of each where there are several seeds."""
    means: Json = {"seeds": len(results)}
    for figure in _FIGURES:
        values = [result["test"][figure] for result in results]
        means[figure] = statistics.fmean(values)
        means[f"{figure}_std"] = statistics.stdev(values) if len(values) > 1 else 0.0
    means["epsilon"] = max((r["epsilon"] for r in results if r["epsilon"] is not None), default=None)
    means["bytes_up_per_partner"] = results[0].get("bytes_up_per_partner")
    # Of rows under masks: how many sums were compared with the plain one, to the bit.
    means["exact_sums"] = sum(result.get("exact_sums", 0) for result in results)
    means["users"] = [result["test"]["users"] for result in results]
    means["skipped_users"] = [result["test"]["skipped_users"] for result in results]
    # Rows written before there were protocols with cold users have none.
    means["cold_users"] = [result["test"].get("cold_users", 0) for result in results]
    means["seconds"] = statistics.fmean([result["seconds"] for result in results])
    means["chosen_on_validation"] = [result.get("chosen_on_validation") for result in results]
    means["per_seed"] = [{"seed": r["seed"], **{f: r["test"][f] for f in _FIGURES}} for r in results]
    return means


def _privacy(run: Run) -> Json:
    """The statement of the first private row: what the handed-on adapter promises."""
    row = handed_on_row(run.config.rows)
    if row and is_private(row):
        statement: Json = read_json(run.row_path(row, run.config.seeds[0]))["privacy"]
        return statement
    return {
        "unit": "user",
        "mode": "none",
        "epsilon": None,
        "delta": None,
        "assumption": "none: no privacy is claimed",
    }


def _lost_turns(run: Run) -> Json:
    """How often a partner was refused or late, and how often a round was asked again. Who and why: events.jsonl."""
    events, unreadable = read_events(run.folder / "events.jsonl")
    told = [event["event"] for event in events]
    return {
        "partner_refused": told.count("partner_refused"),
        "rounds_repeated": told.count("round_failed"),
        "unreadable_events": unreadable,
    }


def _trained(world: World) -> Json:
    """Parameters by part, for the plain adapter, the private one, and those of rows that are tuned otherwise."""
    counts: Json = {}
    for kind, shape in ((place.removesuffix(".shape"), shape) for place, shape in world.config.shapes()):
        parts: dict[str, int] = {}
        model = world.model(shape, seed=0)
        part_of = tensor_parts(model)
        for name, parameter in adapter_parameters(model).items():
            parts[part_of[name]] = parts.get(part_of[name], 0) + parameter.numel()
        counts[kind] = parts
    return counts


def _popularity_curve(run: Run, world: World) -> Json:
    """Share of interactions by item, most popular first, and each row's share of top-10 places in that order."""
    popularity = world.corpus(run.config.seeds[0]).popularity
    order = np.argsort(-popularity, kind="stable")
    rows = {}
    for row in run.config.rows:
        exposure = np.array(read_json(run.row_path(row, run.config.seeds[0]))["exposure"], dtype=np.float64)
        rows[row] = (exposure[order] / exposure.sum()).round(7).tolist()
    return {"catalog": (popularity[order] / popularity.sum()).round(7).tolist(), "rows": rows}
