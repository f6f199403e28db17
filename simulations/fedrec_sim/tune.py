"""Choose the settings of a trained baseline on validation, once, and write down what was tried."""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from fedrec.config import FedMFConfig, PFedRecConfig, SASRecConfig, SimulationConfig
from fedrec.data.datasets import load_data
from fedrec.data.sequences import build_sequences
from fedrec.data.splits import leave_one_out
from fedrec.data.stored import StoredInteractions
from fedrec.evaluation.protocol import evaluate_users
from fedrec_sim.baseline_rows import Bench, TrainedRow, TrainedSettings, train_floor
from fedrec_sim.run import Json, commit_of_checkout, write_json

FORMAT = 1
Say = Callable[[str], None]

_SASREC = SASRecConfig(
    max_history=100,
    hidden=64,
    blocks=2,
    heads=1,
    dropout=0.5,
    learning_rate=1e-3,
    batch_users=32,
    epochs=80,
    every=5,
    patience=3,
)
_FEDMF = FedMFConfig(
    factors=32,
    learning_rate=1.0,
    item_learning_rate=3.0,
    l2=0.003,
    negatives=4,
    local_steps=5,
    epochs=400,
    every=10,
    patience=5,
)
# As published, but for the item learning rate: theirs is learning_rate * items * 80, by the mean over a batch.
_PFEDREC = PFedRecConfig(
    factors=32,
    learning_rate=0.1,
    item_learning_rate=1e4,
    negatives=4,
    local_steps=1,
    epochs=400,
    every=10,
    patience=5,
)
_START: Mapping[TrainedRow, TrainedSettings] = MappingProxyType(
    {"sasrec": _SASREC, "fedmf": _FEDMF, "pfedrec": _PFEDREC}
)
# One change at a time, kept where validation gains: each is tried on the best so far.
_CHANGES: Mapping[TrainedRow, Sequence[dict[str, Any]]] = MappingProxyType(
    {
        "sasrec": (
            {"learning_rate": 2e-3},
            {"dropout": 0.4},
            {"heads": 2},
            {"max_history": 200},
            {"hidden": 96},
            {"blocks": 3},
        ),
        "fedmf": (
            {"factors": 64},
            {"item_learning_rate": 1.0},
            {"l2": 0.01},
            {"negatives": 1},
            {"local_steps": 1},
        ),
        "pfedrec": (
            {"factors": 64},
            {"learning_rate": 0.3},
            {"item_learning_rate": 3e3},
            {"local_steps": 5},
            {"negatives": 1},
        ),
    }
)


def tune_row(row: TrainedRow, config: SimulationConfig, seed: int, command: str, say: Say) -> Json:
    """Try the start and then each change on the best so far; protocol B, the test is never read.

    Args:
        config: names the data; its own settings of the row are not read.
        say: takes a line of progress.
    Returns: every candidate with its validation figures, the chosen one, and all that is needed to repeat it.
    """
    commit = commit_of_checkout()  # now: it takes long, and the checkout may move on
    torch.set_num_threads(config.model.threads or 1)  # sums depend on it
    catalog, table = load_data(config.data.source, say)
    sequences = table.sequences(seed) if isinstance(table, StoredInteractions) else build_sequences(table, seed)
    splits = leave_one_out(sequences)
    began, best, reached, candidates = time.monotonic(), _START[row], -1.0, []
    for change in ({}, *_CHANGES[row]):
        settings = type(best).model_validate({**best.model_dump(), **change})
        say(f"{row}: {change or 'start'}")
        tried = _try(settings, Bench(splits, len(catalog), seed, _tell_tens(say)), say)
        candidates.append({"change": change, **tried})
        if tried["validation"]["ndcg@10"] > reached:
            best, reached = settings, tried["validation"]["ndcg@10"]
    return {
        "format": FORMAT,
        "row": row,
        "protocol": "B",
        "which": "validation",
        "seed": seed,
        "data": config.data.source,
        "data_hash": table.hash,
        "candidates": candidates,
        "chosen": best.model_dump(mode="json"),
        "command": command,
        "commit": commit,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - began, 1),
    }


def _tell_tens(say: Say) -> Callable[[int, int], None]:
    def tell(done: int, total: int) -> None:
        if done % 10 == 0:
            say(f"  {done} of at most {total}")

    return tell


def _try(settings: TrainedSettings, bench: Bench, say: Say) -> Json:
    began = time.monotonic()
    floor, curve = train_floor(settings, bench)
    users = evaluate_users(floor.scorer, bench.splits, "validation", n_items=bench.n_items, tie_seed=bench.seed)
    means = users.sums().means()
    validation = {name: round(means[name], 6) for name in ("hr@10", "ndcg@10")}
    seconds = round(time.monotonic() - began, 1)
    say(f"  {validation} at epoch {curve.epoch} of {curve.epochs}, {seconds} s")
    return {
        "settings": settings.model_dump(mode="json"),
        "validation": validation,
        "epoch": curve.epoch,
        "epochs_trained": curve.epochs,
        "seconds": seconds,
    }


def write_tuned(folder: Path, found: Json) -> Path:
    """Write `ROW.json`. Raises StorageError if the disk refuses."""
    path = folder / f"{found['row']}.json"
    write_json(path, found)
    return path
