"""Between the event loop and the LLM: one thread reads what waits, several people in a pass."""

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import torch

from fedrec.recommend.live_model import Floats
from fedrec.recommend.readings import HistoryReader, Wanted


class DeskClosedError(Exception):
    """The desk takes no more questions: another one has taken over."""


@dataclass
class _Question:
    wanted: Wanted
    answer: "asyncio.Future[Floats]" = field(repr=False)
    loop: asyncio.AbstractEventLoop = field(repr=False)

    def reply(self, context: Floats) -> None:
        self.loop.call_soon_threadsafe(lambda: None if self.answer.done() else self.answer.set_result(context))

    def fail(self, error: Exception) -> None:
        self.loop.call_soon_threadsafe(lambda: None if self.answer.done() else self.answer.set_exception(error))


class ReadingDesk:
    """Micro-batching over people. Extensions by one token go first, together; whole histories follow one by one.

    Args:
        reader: used by this desk's thread alone from now on.
        batch_users: extensions in one pass.
        threads: of a pass.
    """

    def __init__(self, reader: HistoryReader, batch_users: int, threads: int = 1) -> None:
        self._reader, self._batch_users, self._threads = reader, batch_users, threads
        self._questions: queue.SimpleQueue[_Question | tuple[Hashable] | None] = queue.SimpleQueue()
        self._waiting = 0
        self._closing, self._is_closed = threading.Lock(), False
        self._thread = threading.Thread(target=self._work, name="readings", daemon=True)
        self._thread.start()

    @property
    def reader(self) -> HistoryReader:
        """For its figures."""
        return self._reader

    @property
    def waiting(self) -> int:
        """People whose reading is under way."""
        return self._waiting

    def ask(self, wanted: Wanted) -> "asyncio.Future[Floats]":
        """The LLM's reading of a history, `[context_dim]`; asked at once, in the event loop.

        Raises: DeskClosedError: this one ends; another has taken over.
        """
        loop = asyncio.get_running_loop()
        question = _Question(wanted, loop.create_future(), loop)
        with self._closing:
            if self._is_closed:
                raise DeskClosedError
            self._questions.put(question)
        self._waiting += 1
        question.answer.add_done_callback(self._answered)
        return question.answer

    def _answered(self, _: "asyncio.Future[Floats]") -> None:
        self._waiting -= 1

    def forget(self, key: Hashable) -> None:
        """Drop keys and values of a person, also of what was asked before and is not read yet."""
        self._questions.put((key,))

    def stop(self) -> None:
        """Take nothing more, and end once what waits is answered."""
        with self._closing:
            if not self._is_closed:
                self._is_closed = True
                self._questions.put(None)

    def close(self) -> None:
        """Answer what waits, then end."""
        self.stop()
        self._thread.join(timeout=10.0)

    def _work(self) -> None:
        torch.set_num_threads(self._threads)
        whole: deque[_Question] = deque()
        is_open = True
        while is_open or whole:
            short, may_come = self._take(whole, may_wait=is_open and not whole)
            is_open = is_open and may_come
            self._answer(short)
            if whole:  # one at a time: several together take as long, and whoever has one new item would wait
                self._answer([whole.popleft()])

    def _take(self, whole: "deque[_Question]", *, may_wait: bool) -> tuple[list[_Question], bool]:
        """Extensions that wait, up to a batch, and whether more may come; whole histories join those that wait."""
        short: list[_Question] = []
        while len(short) < self._batch_users:
            try:
                found = self._questions.get(block=may_wait and not short)
            except queue.Empty:
                return short, True
            if found is None:
                return short, False
            if isinstance(found, _Question):
                (short if self._reader.grows(found.wanted) else whole).append(found)
                may_wait = may_wait and not whole
            else:
                (key,) = found
                self._reader.forget(key)
                for question in (*short, *whole):
                    if question.wanted.key == key:
                        question.wanted = Wanted(None, question.wanted.codes)
        return short, True

    def _answer(self, some: Sequence[_Question]) -> None:
        if not some:
            return
        try:
            for question, context in zip(some, self._reader.read([q.wanted for q in some]), strict=True):
                question.reply(context)
        except Exception as error:  # noqa: BLE001  # whoever asked must hear of it; the thread goes on
            for question in some:
                question.fail(error)
