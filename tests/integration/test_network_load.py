"""A real coordinator under a small load: every answer is counted, and what it took is told."""

import pytest

from fedrec_sim.load.network import Load, sweep


@pytest.mark.real
def test_a_real_coordinator_counts_every_answer_of_a_load(tmp_path_factory: pytest.TempPathFactory) -> None:
    load = Load(partners=5, rounds=1, numbers=4096, idle_s=0.5)
    (size,) = sweep(tmp_path_factory.mktemp("load"), [load], lambda _: None)["sizes"]
    assert (size["good_answers"], size["lost"], size["exact"]) == ([5], {}, True)
    assert size["wire_bytes_up"] > size["tensor_bytes"] == 4 * 4096
    assert size["wire_bytes_down"] > size["tensor_bytes"]
    assert size["calls"]["push-object"] == size["calls"]["pull-object"] == 3
    for name in ("superlink", "gateway", "driver"):
        assert size["peak_rss_bytes"][name] > 10 << 20
        assert size["cpu_s_per_round"][name] > 0
