"""Figures of a rehearsed head: pooled over partners as if all rows lay in one place."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedrec.errors import ConfigError
from fedrec.tasks.click import Click
from fedrec.tasks.rating import Rating
from fedrec_sim.cli_rehearse import rehearse
from fedrec_sim.rehearsal.heads import pooled


@pytest.mark.parametrize("task", [Rating(), Click()])
def test_figures_of_partners_are_those_of_all_their_rows(task: Rating | Click) -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 2, 90).astype(np.float32)
    said = np.clip(truth + 0.6 * rng.standard_normal(90), 0.05, 0.95)
    users = np.zeros(90, np.int64)
    cuts = (slice(0, 20), slice(20, 60), slice(60, 90))
    each = [{"rows": len(truth[cut]), "figures": task.figures(truth[cut], said[cut], users[cut])} for cut in cuts]
    whole, found = task.figures(truth, said, users), pooled(each)
    for name in found.keys() & whole.keys():
        assert found[name] == pytest.approx(whole[name], rel=1e-6)
    assert {"rmse", "mae"} <= found.keys() or {"log_loss", "accuracy", "mean_auc"} <= found.keys()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"kill": ["server@1"]}, "rehearsal of its own"),
        ({"pages": True}, "rehearsal of its own"),
        ({"rounds": 1}, "trains no head"),
        ({"mode": "secagg", "partners": 2}, "hide nothing"),
    ],
)
def test_what_a_rehearsal_of_a_head_cannot_do_is_refused(asked: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        rehearse(**{"task": "rating", "folder": tmp_path, "mode": "inspect", "rounds": None, **asked})
    assert not list(tmp_path.iterdir())
