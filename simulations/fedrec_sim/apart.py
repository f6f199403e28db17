"""Rows trained at the same time, each in a process of its own with its share of the cores.

Small steps leave a second core half idle: two rows side by side on one core each take less time than one after the
other on both.
"""

import contextlib
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from typing import Any

from fedrec.errors import FedrecError, RunError
from fedrec.rows import RowName
from fedrec_sim.rows import Stopped, finish_row
from fedrec_sim.run import Json, Run
from fedrec_sim.world import load_world

Task = tuple[RowName, int]
_LOOK_S = 0.1


def finish_apart(
    run: Run, tasks: Sequence[Task], jobs: int, on_event: Callable[[Json], None], stop: Callable[[], bool]
) -> None:
    """Run rows, up to `jobs` at a time; each one's result is on the disk when this returns.

    Args:
        tasks: (row, seed), begun in this order.
        on_event: called in this process, with the events of all rows as they come.
        stop: as in `run_ladder`.
    Raises:
        Stopped: a person asked for it; what is committed stays.
        FedrecError: of the first row that failed; the others stop after the round under way.
        RunError: a process died; what it had to say stands on the terminal.
    """
    if run.config.private.noise_source == "secret":
        run.noise_root()  # made once, before several processes want it
    # Not by fork: torch's threads do not survive it.
    context = multiprocessing.get_context("spawn")
    waiting, told, stopped = context.Queue(), context.Queue(), context.Event()
    workers = [
        context.Process(target=_work, args=(run, waiting, told, stopped), daemon=True)
        for _ in range(min(jobs, len(tasks)))
    ]
    for task in (*tasks, *[None] * len(workers)):  # None: no more
        waiting.put(task)
    try:
        for worker in workers:
            worker.start()
        _listen(workers, len(tasks), told, stopped, on_event, stop)
    finally:
        for worker in workers:
            if worker.is_alive():
                worker.kill()
            worker.join()


def _listen(
    workers: Sequence[Any],
    left: int,
    told: Any,
    stopped: Any,
    on_event: Callable[[Json], None],
    stop: Callable[[], bool],
) -> None:
    """Pass events on until every task has ended, by whatever way."""
    failure: Exception | None = None
    ended = 0
    while ended < len(workers):
        if stop():
            stopped.set()
        try:
            what, value = told.get(timeout=_LOOK_S)
        except queue.Empty:
            if any(worker.exitcode not in (None, 0) for worker in workers):
                remedy = "resume; if memory ran out, start anew with --set jobs=1"
                raise RunError("a process that trained a row died", remedy) from None
            continue
        match what:
            case "event":
                on_event(value)
            case "done":
                left -= 1
            case "failed":
                stopped.set()
                failure = failure if failure and not isinstance(failure, Stopped) else value
            case _:
                ended += 1
    if failure is not None:
        raise failure
    if left:
        raise Stopped


def _work(run: Run, waiting: Any, told: Any, stopped: Any) -> None:
    """One process: take tasks until none is left or a person stops the run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        world = load_world(run.config)
        while (task := waiting.get()) is not None and not stopped.is_set():
            row, seed = task
            finish_row(run, world, row, seed, lambda event: told.put(("event", event)), stopped.is_set)
            told.put(("done", task))
    except (Stopped, FedrecError) as error:
        told.put(("failed", error))
    told.put(("ended", None))


def _end_with_parent() -> None:
    """A run that is killed must not go on in processes that nobody sees: the next one would meet them."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        with contextlib.suppress(OSError):
            wait([parent.sentinel])
        os._exit(1)
