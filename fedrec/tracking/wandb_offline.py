"""Weights & Biases, offline: what it writes stays in the run's folder until a person types `wandb sync`."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedrec.tracking.tracker import Facts, Status

_EXITS: Mapping[Status, int] = {"finished": 0, "stopped": 130, "failed": 1}


class WandbTracker:
    """One offline W&B run for a row; nothing of the machine, the console or the checkout goes into it.

    Args:
        folder: gets `wandb/`.
    """

    def __init__(self, folder: Path) -> None:
        os.environ["WANDB_ERROR_REPORTING"] = "false"  # its own crashes would be sent otherwise
        import wandb

        self._wandb: Any = wandb
        self._folder, self._run = folder, None

    def begin(self, facts: Facts) -> None:
        """See `Tracker`. A row that goes on is a second folder under the same id."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._run = self._wandb.init(
            project=facts.experiment,
            name=facts.name,
            id=hashlib.sha256(facts.key.encode()).hexdigest()[:16],
            config=dict(facts.settings),
            dir=str(self._folder),
            reinit="create_new",  # rows may run side by side
            settings=self._wandb.Settings(
                mode="offline",
                silent=True,
                console="off",
                disable_git=True,
                disable_code=True,
                save_code=False,
                x_disable_stats=True,
                x_disable_meta=True,
                x_disable_machine_info=True,
            ),
        )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """See `Tracker`."""
        self._opened().log(dict(metrics), step=step)

    def artifact(self, path: Path) -> None:
        """See `Tracker`. Copied, since W&B would keep a link to a file that may go."""
        run = self._opened()
        copy = Path(run.dir) / path.name
        copy.write_bytes(path.read_bytes())

    def end(self, status: Status) -> None:
        """See `Tracker`."""
        self._opened().finish(_EXITS[status])

    def _opened(self) -> Any:
        assert self._run is not None, "begin comes first"
        return self._run
