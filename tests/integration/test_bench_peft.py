"""`fedrec bench peft` on made data: every figure is there, halves cost half, finished pieces are taken as they are."""

from pathlib import Path

import pytest

from fedrec.config import load_config
from fedrec_sim import bench_peft, peft_steps
from fedrec_sim.bench_peft import bench_of, measure
from fedrec_sim.world import load_world


def test_each_way_is_measured_beside_the_head_alone(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peft_steps, "_REPEATS", 1)
    said: list[str] = []
    bench = bench_of(load_world(load_config(config_file)), 2, tmp_path, said.append)
    result = measure(bench, [1], "fedrec test", ways=("head", "lora", "rolora", "dora"))
    ways = result["ways"]
    assert ways["dora"]["private"] is None
    assert 7.5 < result["epsilon"] <= 8.0
    assert ways["rolora"]["plain"]["bytes_up_per_round"] * 2 == ways["lora"]["plain"]["bytes_up_per_round"]
    assert ways["lora"]["step_s"].keys() == {"plain", "private"}
    assert ways["dora"]["step_s"].keys() == {"plain"}
    assert ways["head"]["plain"]["gain_by_seed"] == [0.0]
    assert all(0 <= ways[way]["plain"]["ndcg@10"]["mean"] <= 1 for way in ways)
    monkeypatch.setattr(bench_peft.Bench, "_trained", None)  # nothing is trained again
    monkeypatch.setattr(bench_peft, "seconds_of_steps", lambda *_: {})
    assert measure(bench, [1], "fedrec test", ways=("head", "lora", "rolora", "dora"))["ways"].keys() == ways.keys()
