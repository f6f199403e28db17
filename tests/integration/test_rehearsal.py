"""The network as real processes: a coordinator is killed, a partner answers nonsense, an outsider tries."""

from pathlib import Path

import pytest

from fedrec_sim.rehearsal.faults import Fault
from fedrec_sim.rehearsal.outsider import ATTEMPTS
from fedrec_sim.rehearsal.rehearse import rehearse_sums


@pytest.mark.real
@pytest.mark.timeout(500)
def test_nothing_is_lost_or_counted_twice(tmp_path: Path) -> None:
    faults = [Fault("kill", "server", 2), Fault("garbage", "client-3", 0)]
    found = rehearse_sums(tmp_path / "sums", partners=3, rounds=3, faults=faults, say=lambda _: None)
    assert found["rounds_committed"] == 3
    assert found["exact_sum"]
    assert all(found["checks"].values()), found["checks"]
    assert found["outsider"].keys() == ATTEMPTS.keys()
    for name, status in found["outsider"].items():
        assert status in (401, 403, 404), name
    assert any(one["status"] == "asked" for one in found["attempts"])  # the one that the kill cut short
