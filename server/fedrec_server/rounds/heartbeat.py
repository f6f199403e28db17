"""Whether the driver's main loop still goes round: a process that is there may yet hang."""

import os
import threading
import time
from contextlib import suppress
from pathlib import Path

from fedrec.files import replace_file

_EVERY_S = 2.0


class BeatingStop(threading.Event):
    """The driver's stop signal; each look of its main thread at it is noted on the disk.

    The driver looks between rounds, and within one whenever it has looked for answers; its other threads, which may
    outlive a main thread that hangs, do not count. The note is a file's time: after the first one, which writes down
    the process, it needs no space on the disk.

    Args:
        folder: the coordinator's.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._path, self._last = _beat_file(folder), -1.0

    def is_set(self) -> bool:
        """Whether to stop."""
        self._beat()
        return super().is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Until told to stop, or so long."""
        self._beat()
        return super().wait(timeout)

    def _beat(self) -> None:
        moment = time.monotonic()
        is_early = self._last >= 0 and moment - self._last < _EVERY_S
        if is_early or threading.current_thread() is not threading.main_thread():
            return
        with suppress(OSError):  # a beat that is missing says enough
            if self._last < 0:
                replace_file(self._path, str(os.getpid()).encode())
            os.utime(self._path)
        self._last = moment


def is_driver_there(folder: Path) -> bool:
    """Whether the driver that beat last is still a process of this machine: not so between a crash and its restart."""
    try:
        os.kill(int(_beat_file(folder).read_text()), 0)
    except (OSError, ValueError):
        return False
    return True


def last_beat(folder: Path) -> float | None:
    """Unix time of the driver's last beat; None if there never was one."""
    try:
        return _beat_file(folder).stat().st_mtime
    except OSError:
        return None


def _beat_file(folder: Path) -> Path:
    return folder / "state" / "driver.beat"
