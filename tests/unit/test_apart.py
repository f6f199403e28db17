"""How rows in processes of their own end: all done, stopped, failed, or dead without a word."""

import queue
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from fedrec.errors import PrivacyError, RunError
from fedrec_sim.apart import _listen
from fedrec_sim.rows import Stopped


def listen(*told: tuple[str, Any], exitcodes: tuple[int | None, ...] = (0, 0), stop: bool = False) -> list[Any]:
    """Events that came through, of two tasks."""
    messages: queue.Queue[tuple[str, Any]] = queue.Queue()
    for message in told:
        messages.put(message)
    workers = [SimpleNamespace(exitcode=code) for code in exitcodes]
    events: list[Any] = []
    stopped = threading.Event()
    try:
        _listen(workers, 2, messages, stopped, events.append, lambda: stop)
    finally:
        failed = any(what == "failed" for what, _ in told)
        assert stopped.is_set() == (stop or failed)
    return events


ENDED = ("ended", None)


def test_all_done() -> None:
    assert listen(("event", 1), ("done", 0), ENDED, ("event", 2), ("done", 1), ENDED) == [1, 2]


def test_stopped_by_a_person_before_all_was_done() -> None:
    with pytest.raises(Stopped):
        listen(("done", 0), ENDED, ENDED, stop=True)


def test_a_failure_stops_the_others_and_is_what_a_person_hears() -> None:
    with pytest.raises(PrivacyError, match="gone"):
        listen(("failed", PrivacyError("gone")), ENDED, ("failed", Stopped()), ENDED)
    with pytest.raises(PrivacyError, match="gone"):
        listen(("failed", Stopped()), ENDED, ("failed", PrivacyError("gone")), ENDED)


def test_a_process_that_died_ends_the_run() -> None:
    with pytest.raises(RunError, match="died"):
        listen(("done", 0), ENDED, exitcodes=(0, -9))
