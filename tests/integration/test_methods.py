"""Federated rows that tune the language model otherwise, through the real rounds: with masks, with ranks, halved."""

from pathlib import Path
from typing import Any

import numpy as np

from fedrec.config import load_config
from fedrec.registry.registry import Registry
from fedrec_sim.ladder import run_ladder
from fedrec_sim.run import hold_run, start_run
from fedrec_sim.world import load_world


def run(config_file: Path, root: Path, *overrides: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    config, events = load_config(config_file, overrides), list[dict[str, Any]]()
    with hold_run(root, config.name, resume=False) as place:
        held = start_run(place, config, "fedrec test")
        return run_ladder(held, load_world(held.config), events.append, lambda: False), events


def moved(root: Path, row: str, first: int, last: int) -> set[str]:
    """Kinds of LoRA tensors that differ between two rounds."""
    registry = Registry(root / f"tiny/registry/{row}-1")
    before, after = registry.load(first).tensors, registry.load(last).tensors
    return {n.split(".lora_")[1][0] for n in before if ".lora_" in n and not np.array_equal(before[n], after[n])}


def test_rolora_trains_b_and_a_in_turn_under_masks_and_costs_what_was_agreed(config_file: Path, tmp_path: Path) -> None:
    summary, events = run(config_file, tmp_path, 'private.shape.method="rolora"', 'rows=["federated_dp"]')
    parts = [event["part"] for event in events if event["event"] == "round_committed"]
    assert parts == ["prior", "head", "head", "head", "lora_b", "lora_a"]
    assert moved(tmp_path, "federated_dp", 4, 5) == {"B"}
    assert moved(tmp_path, "federated_dp", 5, 6) == {"A"}
    assert 7.5 < summary["privacy"]["epsilon"] <= 8.0
    assert summary["rows"]["federated_dp"]["exact_sums"] == 6


def test_partners_of_different_rank_send_b_alone(config_file: Path, tmp_path: Path) -> None:
    """FFA-LoRA, in inspect mode and without privacy; A stays where public chance put it."""
    rows = 'rows=["federated", "federated_eps8_inspect"]'
    ranks = ("plain.ranks=[1, 2]", "private.ranks=[1, 2]")
    methods = ('plain.shape.method="ffa-lora"', 'private.shape.method="ffa-lora"')
    _, events = run(config_file, tmp_path, rows, *ranks, *methods)
    assert not [event for event in events if event["event"] == "partner_refused"]
    for row in ("federated", "federated_eps8_inspect"):
        assert moved(tmp_path, row, 0, 5) == {"B"}
        tensors = Registry(tmp_path / f"tiny/registry/{row}-1").load(5).tensors
        b = np.concatenate([tensor for name, tensor in tensors.items() if ".lora_B." in name])
        assert (np.abs(b).sum(0) > 0).all(), "the second direction is moved by those who train it"


def test_prompt_vectors_are_trained_under_masks_and_handed_on(config_file: Path, tmp_path: Path) -> None:
    run(config_file, tmp_path, 'private.shape.method="prompt"', 'rows=["federated_dp"]')
    registry = Registry(tmp_path / "tiny/registry/federated_dp-1")
    before, after = registry.load(4).tensors, registry.load(6).tensors
    assert [name for name in before if not np.array_equal(before[name], after[name])] == [
        "base_model.model.prompt.weight"
    ]
    assert (tmp_path / "tiny/adapter/adapter_config.json").is_file()
