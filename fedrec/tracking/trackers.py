"""Several trackers of one row as one: none of them can stop a run, nor can its absence go unnoticed."""

import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fedrec.errors import ConfigError
from fedrec.sections.tracking import TrackerName
from fedrec.tracking.tracker import Facts, Status, Tracker

Warn = Callable[[str], None]


def refuse_missing(names: Sequence[TrackerName]) -> None:
    """Raises ConfigError: trackers whose package is not installed, all at once, with the extra that brings it."""
    # Each extra has the name of the package that it brings, and is imported by it.
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        remedy = f"pip install 'fedrec[{','.join(missing)}]', or track without"
        raise ConfigError.of_all([f"{name} is not installed" for name in missing], remedy, "tracking")


def open_tracker(name: TrackerName, folder: Path) -> Tracker:
    """A tracker of one row, its package imported.

    Args:
        folder: where it writes, made if it is not there.
    """
    match name:
        case "mlflow":
            from fedrec.tracking.mlflow_store import MlflowTracker

            return MlflowTracker(folder)
        case "tensorboard":
            from fedrec.tracking.tensorboard_files import TensorboardTracker

            return TensorboardTracker(folder)
        case "wandb":
            from fedrec.tracking.wandb_offline import WandbTracker

            return WandbTracker(folder)


class Trackers:
    """A `Tracker` that tells all of them. One that fails is told no more, and a person is warned once.

    Args:
        open_one: as `open_tracker`.
        broken: names of those that failed, of other rows too; added to.
        warn: takes the warning.
    """

    def __init__(
        self, names: Sequence[TrackerName], open_one: Callable[[TrackerName], Tracker], broken: set[str], warn: Warn
    ) -> None:
        self._names, self._open, self._broken, self._warn = names, open_one, broken, warn
        self._trackers: dict[TrackerName, Tracker] = {}

    def begin(self, facts: Facts) -> None:
        """See `Tracker`."""
        for name in self._names:
            self._try(name, lambda name=name: self._trackers.update({name: self._open(name)}))  # type: ignore[misc]
        self._each(lambda tracker: tracker.begin(facts))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """See `Tracker`; figures that are not finite are left out."""
        finite = {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
        if finite:
            self._each(lambda tracker: tracker.log(step, finite))

    def artifact(self, path: Path) -> None:
        """See `Tracker`."""
        self._each(lambda tracker: tracker.artifact(path))

    def end(self, status: Status) -> None:
        """See `Tracker`."""
        self._each(lambda tracker: tracker.end(status))

    def _each(self, tell: Callable[[Tracker], None]) -> None:
        for name, tracker in self._trackers.items():
            self._try(name, lambda tracker=tracker: tell(tracker))  # type: ignore[misc]

    def _try(self, name: TrackerName, deed: Callable[[], None]) -> None:
        if name in self._broken:
            return
        try:
            deed()
        except Exception as error:  # noqa: BLE001  # a stranger's code, and whatever it is, the run is worth more
            self._broken.add(name)
            why = (str(error).splitlines() or [""])[0][:200]
            self._warn(f"{name} failed and is told no more, the run goes on: {type(error).__name__}: {why}")
