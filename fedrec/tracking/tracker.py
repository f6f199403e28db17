"""What a tracker is: one row of a run is begun, told of figures by step, handed a file, ended."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

Status = Literal["finished", "stopped", "failed"]
Setting = str | int | float | bool


@dataclass(frozen=True)
class Facts:
    """What is known of a row before it begins. Public figures of the configuration alone.

    Attributes:
        experiment: name of the run, which holds rows side by side.
        name: of the row, with its seed.
        key: names this row of this run and no other, also if it is begun again after a stop.
        settings: by dotted name.
    """

    experiment: str
    name: str
    key: str
    settings: Mapping[str, Setting] = field(repr=False)


class Tracker(Protocol):
    """Told of one row. Writes below a folder of its own, and calls no network."""

    def begin(self, facts: Facts) -> None:
        """Before the first figure, once; of a row that was begun before it goes on."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Finite figures of a step; steps ascend."""

    def artifact(self, path: Path) -> None:
        """Keep a copy of a file."""

    def end(self, status: Status) -> None:
        """After the last figure, once; everything is on the disk when this returns."""
