"""TensorBoard's event files, a folder for each row, so that rows lie over each other in one plot."""

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedrec.tracking.tracker import Facts, Status


class TensorboardTracker:
    """One writer for a row; torch is not needed.

    Args:
        folder: gets `tensorboard/ROW/`.
    """

    def __init__(self, folder: Path) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer import event_file_writer

        self._event, self._summary, self._open = event_pb2.Event, summary_pb2.Summary, event_file_writer.EventFileWriter
        self._root, self._folder = folder / "tensorboard", folder
        self._writer: Any = None

    def begin(self, facts: Facts) -> None:
        """See `Tracker`. A row that goes on gets a second file, which TensorBoard reads after the first."""
        self._folder = self._root / facts.name
        self._writer = self._open(str(self._folder))
        lines = ["| setting | value |", "| --- | --- |", *(f"| {k} | {v} |" for k, v in facts.settings.items())]
        self._put(0, [self._text("settings", "\n".join(lines))])

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """See `Tracker`."""
        self._put(step, [self._summary.Value(tag=name, simple_value=value) for name, value in metrics.items()])
        self._writer.flush()

    def artifact(self, path: Path) -> None:
        """See `Tracker`. TensorBoard shows no files: it lies beside the events."""
        shutil.copyfile(path, self._folder / path.name)

    def end(self, status: Status) -> None:
        """See `Tracker`."""
        self._put(0, [self._text("status", status)])
        self._writer.close()

    def _put(self, step: int, values: list[Any]) -> None:
        summary = self._summary(value=values)
        self._writer.add_event(self._event(wall_time=time.time(), step=step, summary=summary))

    def _text(self, tag: str, text: str) -> Any:
        from tensorboard.plugins.text.metadata import create_summary_metadata
        from tensorboard.util.tensor_util import make_tensor_proto

        made = create_summary_metadata(display_name=tag, description="")
        return self._summary.Value(tag=tag, metadata=made, tensor=make_tensor_proto([text.encode()]))
