"""Group commit: what many callers write at once is one transaction, and one sync of the disk."""

import itertools
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from sqlalchemy import Connection

from fedrec.database import Database
from fedrec.errors import FedrecError, StorageError
from fedrec_client.serving.records import Event
from fedrec_client.serving.store.event_book import AddedEvents, Mode, add_batches, add_events, with_ids

# So many are committed together at most, that the first need not wait long for the last.
TOGETHER = 256
_T = TypeVar("_T")


# Of a transaction: "one failed" of several, and all still wait; "no answer": it could not even begin, and they know.
Outcome = Literal["written", "one failed", "no answer"]


class BusyError(StorageError):
    """More waits to be written than may, or the writer is closed."""


@dataclass(frozen=True, repr=False)
class _Events:
    """Events to be added, which others' of the tenant may be added with."""

    tenant: str
    events: Sequence[Event]


@dataclass(frozen=True, repr=False)
class _Waiting:
    write: Callable[[Connection], Any] | _Events
    future: "Future[Any]"


class Writer:
    """One thread that commits all that waits in one transaction. A future is done only when its rows are on the disk.

    If one of them fails, all are rolled back and tried again, each alone: the others lose nothing. So what is submitted
    must not mind being run twice, and must not swallow an error of the database.
    """

    def __init__(self, database: Database, waiting: int = 4096) -> None:
        """Args:
        waiting: how many may wait; beyond them `submit` raises.
        """
        self._database = database
        self._queue: queue.Queue[_Waiting | None] = queue.Queue(waiting)
        self._closing = threading.Lock()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="fedrec-store-writer", daemon=True)
        self._thread.start()

    def submit(self, write: Callable[[Connection], _T]) -> "Future[_T]":
        """Have something written, in the order of calls. Raises BusyError: too much waits, or the writer is closed."""
        return self._wait(write)

    def add_events(self, tenant: str, events: Sequence[Event], mode: Mode = "add") -> "Future[AddedEvents]":
        """`EventBook.add`, together with others'. Raises BusyError."""
        named = with_ids(events)  # once: a second try must find what the first may have written
        if mode == "add":
            return self._wait(_Events(tenant, named))
        return self._wait(lambda connection: add_events(connection, tenant, named, mode))

    def close(self) -> None:
        """Write all that waits, then end; nothing more is taken."""
        with self._closing:
            was_closed, self._is_closed = self._is_closed, True
        if not was_closed:
            self._queue.put(None)
        self._thread.join()

    def _wait(self, write: Callable[[Connection], Any] | _Events) -> "Future[Any]":
        future: Future[Any] = Future()
        with self._closing:
            if self._is_closed:
                raise BusyError("the store is closing", "try again later")
            try:
                self._queue.put_nowait(_Waiting(write, future))
            except queue.Full:
                raise BusyError("the store has more to write than it can keep up with", "try again later") from None
        return future

    def _run(self) -> None:
        is_open = True
        while is_open:
            group, is_open = self._take()
            if group and self._commit(group) == "one failed":
                self._commit_each(group)

    def _take(self) -> tuple[list[_Waiting], bool]:
        """All that waits, and whether more may come."""
        group: list[_Waiting] = []
        found = self._queue.get()
        while found is not None:
            if found.future.set_running_or_notify_cancel():
                group.append(found)
            if len(group) >= TOGETHER:
                return group, True
            try:
                found = self._queue.get_nowait()
            except queue.Empty:
                return group, True
        return group, False

    def _commit(self, group: Sequence[_Waiting]) -> Outcome:
        results: list[Any] = []
        is_begun = False
        try:
            with self._database.write() as connection:
                is_begun = True
                for some in _together(group):
                    results += _write(connection, some)
        except BaseException as error:  # noqa: BLE001 -- it is for those who wait; this thread must live
            if is_begun and len(results) < len(group) > 1:
                return "one failed"
            for waiting in group:
                waiting.future.set_exception(_public(error))
            return "written" if is_begun else "no answer"
        for waiting, result in zip(group, results, strict=True):
            waiting.future.set_result(result)
        return "written"

    def _commit_each(self, group: Sequence[_Waiting]) -> None:
        for place, one in enumerate(group):
            if self._commit([one]) == "no answer":  # the next would wait for it as long
                for waiting in group[place + 1 :]:
                    waiting.future.set_exception(BusyError("the serving store does not answer", "try again later"))
                return


def _together(group: Sequence[_Waiting]) -> Iterator[list[_Waiting]]:
    """Events for one tenant that wait one after the other are written at once; all else alone."""

    def kind(place: int) -> str | int:
        write = group[place].write
        return write.tenant if isinstance(write, _Events) else place

    for _, places in itertools.groupby(range(len(group)), kind):
        yield [group[place] for place in places]


def _write(connection: Connection, some: Sequence[_Waiting]) -> list[Any]:
    events = [one.write.events for one in some if isinstance(one.write, _Events)]
    first = some[0].write
    if isinstance(first, _Events):
        return [*add_batches(connection, first.tenant, events)]
    return [first(connection)]


def _public(error: BaseException) -> FedrecError:
    """An error without values: those of others may quote what could not be stored."""
    if isinstance(error, FedrecError):
        return error
    return StorageError(f"an event or the like cannot be stored: {type(error).__name__}", "the others are stored")
