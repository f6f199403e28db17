"""MLflow's store in one SQLite file of the run's folder. Its pages: docs/tracking.md."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedrec.tracking.tracker import Facts, Status

_ENDS: Mapping[Status, str] = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


class MlflowTracker:
    """One MLflow run for a row. The client is explicit: no active run, no global address.

    Args:
        folder: gets `mlflow.sqlite` and `mlflow-artifacts/`.
    """

    def __init__(self, folder: Path) -> None:
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # it tells its makers of calls otherwise
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        from mlflow import MlflowClient

        self._artifacts = (folder / "mlflow-artifacts").resolve().as_uri()
        folder.mkdir(parents=True, exist_ok=True)
        self._client: Any = MlflowClient(tracking_uri=f"sqlite:///{(folder / 'mlflow.sqlite').resolve()}")
        self._run = ""

    def begin(self, facts: Facts) -> None:
        """See `Tracker`."""
        from mlflow.entities import Param

        experiment = self._experiment(facts.experiment)
        known = self._client.search_runs([experiment], filter_string=f"tags.`fedrec.key` = '{facts.key}'")
        if known:
            self._run = known[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
            return
        tags = {"fedrec.key": facts.key}
        self._run = self._client.create_run(experiment, run_name=facts.name, tags=tags).info.run_id
        self._client.log_batch(self._run, params=[Param(name, str(value)) for name, value in facts.settings.items()])

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """See `Tracker`. MLflow takes no @ in names."""
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        told = [Metric(name.replace("@", "_at_"), value, now_ms, step) for name, value in metrics.items()]
        self._client.log_batch(self._run, metrics=told)

    def artifact(self, path: Path) -> None:
        """See `Tracker`."""
        self._client.log_artifact(self._run, str(path))

    def end(self, status: Status) -> None:
        """See `Tracker`."""
        self._client.set_terminated(self._run, _ENDS[status])

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        made = found.experiment_id if found else self._client.create_experiment(name, self._artifacts)
        return str(made)
