"""Subprocesses: they end with the process that started them, and are started anew if they die before."""

import ctypes
import fcntl
import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fedrec.errors import RunError

_log = logging.getLogger(__name__)
_LONGEST_WAIT_S = 30.0
# A process that ran so long begins its back-off anew.
_GOOD_S = 60.0
_PR_SET_PDEATHSIG = 1


def start_process(
    command: Sequence[str], log: Path, environment: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a subprocess, its output appended to a file that its owner alone may read."""
    log.parent.mkdir(parents=True, exist_ok=True)
    quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as output:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **quiet, **(environment or {})},
        )


def stop_process(process: subprocess.Popen[bytes], timeout_s: float = 10.0) -> None:
    """Ask it to end; after the time out it is killed."""
    process.terminate()
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@dataclass
class Child:
    """A process to be kept running.

    Attributes:
        name: for the log.
        log: file that takes its output.
        failures: in a row; each doubles the wait before the next start, with jitter.
        patience_s: that it is given to end in order.
    """

    name: str
    command: list[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    failures: int = 0
    environment: dict[str, str] = field(default_factory=dict)
    started: float = 0.0
    not_before: float = 0.0
    patience_s: float = 10.0

    def is_running(self) -> bool:
        """Whether it is there just now."""
        process = self.process
        return process is not None and process.poll() is None

    def look(self) -> None:
        """Start it if it does not run and may."""
        if self.is_running():
            return
        moment = time.monotonic()
        if self.process is not None:
            self.failures = 1 if moment - self.started > _GOOD_S else self.failures + 1
            wait = min(_LONGEST_WAIT_S, 0.5 * 2**self.failures) * random.uniform(0.5, 1.0)
            _log.warning("%s ended with %d; again in %.1f s", self.name, self.process.returncode, wait)
            self.not_before, self.process = moment + wait, None
        if moment >= self.not_before:
            self.process, self.started = start_process(self.command, self.log, self.environment), moment


@contextmanager
def only_one(path: Path, remedy: str) -> Iterator[None]:
    """Hold a lock file that says which process holds it. Raises RunError: another one does."""
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(f"{path.parent.parent}: runs already", remedy) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def holder_of(path: Path) -> int | None:
    """The process that holds a lock file, on this machine; None if none does."""
    try:
        with path.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except OSError:
        return int(path.read_text() or 0) or None
    return None


def end_with_parent() -> None:
    """Let the kernel end this process when its parent dies, however it dies; on Linux.

    Called by the child itself: code between fork and exec may deadlock in a parent that has threads.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
