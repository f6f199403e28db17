"""A tenant's live engine: the adapter of now, its items, and everybody's reading; swapped without a failed request."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from fedrec.recommend.live_model import Floats, LiveModel
from fedrec.recommend.readings import HistoryReader, Wanted
from fedrec_client.serving.errors import NotReadyError
from fedrec_client.serving.people import Person
from fedrec_client.serving.reading_desk import DeskClosedError, ReadingDesk
from fedrec_client.serving.settings import LiveSettings

_log = logging.getLogger(__name__)
Encode = Callable[[Sequence[str]], Floats]
# Latest people whose histories the next adapter reads before it takes over, and for so long at most.
_READ_AHEAD, _READ_AHEAD_S = 2000, 60.0


@dataclass
class _Generation:
    """A model, and who reads histories for it."""

    model: LiveModel
    desk: ReadingDesk = field(repr=False)


class Engine:
    """Scores items for people. Everything but reading and encoding is done on the event loop's thread.

    Args:
        model: the tenant's own branch.
        settings: `[model]`.
        encode: text features of new items, `[texts, feature_dim]`; slow, called in a thread.
        state_bytes: for keys and values.
    """

    def __init__(self, model: LiveModel, settings: LiveSettings, encode: Encode, state_bytes: int) -> None:
        self._settings, self._encode, self._state_bytes = settings, encode, state_bytes
        self._now = self._generation(model)
        self._reads: dict[tuple[str, str], asyncio.Future[Floats]] = {}
        self._coming: _Generation | None = None
        self.on_read: Callable[[Person], None] = lambda _: None

    def _generation(self, model: LiveModel) -> _Generation:
        reader = HistoryReader(model, self._state_bytes, self._settings.batch_users)
        return _Generation(model, ReadingDesk(reader, self._settings.batch_users, self._settings.threads))

    @property
    def model(self) -> LiveModel:
        """Of now; a request keeps the one that it began with."""
        return self._now.model

    @property
    def desk(self) -> ReadingDesk:
        """Of now, for its figures."""
        return self._now.desk

    def close(self) -> None:
        """Answer what waits, then end."""
        self._now.desk.close()

    def forget(self, key: tuple[str, str]) -> None:
        """Drop what is kept of a person, by an adapter that is about to take over too."""
        self._now.desk.forget(key)
        if self._coming is not None:
            self._coming.desk.forget(key)

    async def user_vector(self, person: Person, *, is_kept: bool = True) -> tuple[LiveModel, Floats]:
        """The head's vector of somebody as of their last event, `[width]`, and the model that it is for.

        Args:
            is_kept: keep their keys and values for the next event.
        Raises: NotReadyError: the service is ending.
        """
        while True:
            generation = self._now
            model = generation.model
            if not person.codes:
                return model, model.prior_vector()
            slack = self._settings.window_slack
            if not person.is_read(model, slack):
                try:
                    await self._read(generation, person, is_kept=is_kept)
                except DeskClosedError:  # another adapter has taken over: on with that one, if there is one
                    if generation is self._now:
                        raise NotReadyError("the service is ending", "try again in a moment") from None
            if person.is_read(model, slack):  # unless an event came meanwhile, or another adapter
                assert person.read is not None
                return model, model.user_vector(person.user_window(person.read[1]))

    async def _read(self, generation: _Generation, person: Person, *, is_kept: bool) -> None:
        """Two who ask for one person at a time share the answer, and none takes it from the other by going away."""
        if not is_kept:
            wanted, what = self._wanted(generation, person, None)
            person.context, person.read = await generation.desk.ask(wanted), what
            return
        reading = self._reading(generation, person)
        await asyncio.wait([reading])
        reading.result()

    def _wanted(
        self, generation: _Generation, person: Person, key: tuple[str, str] | None
    ) -> tuple[Wanted, tuple[str, int, int]]:
        start, codes = person.window(generation.model, self._settings.window_slack)
        return Wanted(key, codes), (generation.model.reading, start, start + len(codes))

    def _reading(self, generation: _Generation, person: Person) -> "asyncio.Future[Floats]":
        """What is under way for a person, or is asked now. Raises DeskClosedError."""
        if (under_way := self._reads.get(person.key)) is not None:
            return under_way
        wanted, what = self._wanted(generation, person, person.key)
        reading = self._reads[person.key] = generation.desk.ask(wanted)
        reading.add_done_callback(lambda done: self._take_in(person, what, done))
        return reading

    def _take_in(self, person: Person, what: tuple[str, int, int], done: "asyncio.Future[Floats]") -> None:
        """Before anybody who waits looks again."""
        self._reads.pop(person.key, None)
        if not done.cancelled() and done.exception() is None:
            person.context, person.read = done.result(), what
            self.on_read(person)

    def foresee(self, person: Person) -> None:
        """Read on in the background, where what is kept makes that cheap: who did something may ask soon."""
        if person.codes and self._now.desk.reader.keeps(person.key):
            with suppress(DeskClosedError):
                self._reading(self._now, person)

    async def add_items(self, texts: Sequence[str]) -> None:
        """Let items join, with the codes that follow; an empty text joins with the features of the average item.

        While it encodes, other items must wait: the caller holds a lock.
        """
        self.model.add_items(await self._features(texts))

    async def _features(self, texts: Sequence[str]) -> Floats:
        """Of texts; of empty ones zeros, which are those of the average item."""
        features = np.zeros((len(texts), self.model.texts.shape[1]), np.float32)
        told = [place for place, text in enumerate(texts) if text]
        if told:
            features[told] = await self.encode([texts[place] for place in told])
        return features

    async def encode(self, texts: Sequence[str]) -> Floats:
        """Text features, `[texts, feature_dim]`, as items have them."""
        return await asyncio.to_thread(self._encode, texts)

    async def change_items(self, codes: Sequence[int], texts: Sequence[str]) -> None:
        """Items that joined later are described anew; the caller holds a lock."""
        self.model.change_items(codes, await self._features(texts))

    async def swap(
        self, model: LiveModel, people: Callable[[], Sequence[Person]], changing_items: asyncio.Lock
    ) -> None:
        """Serve another adapter from now on. Whoever asks meanwhile is answered by the one before.

        Args:
            model: a branch of it with the catalogue's items; this tenant's later items join here.
            people: in memory, who was asked for last first.
            changing_items: held for the last moment alone, so that items may come while histories are read ahead.
        """
        before, revision = self._now, self._now.model.revision
        join_later_items(model, before.model)
        is_alike = model.reading == before.model.reading
        after = _Generation(model, before.desk) if is_alike else self._generation(model)
        self._coming = None if is_alike else after
        try:
            if not is_alike:
                await self._read_ahead(after, people())
            async with changing_items:
                join_later_items(model, before.model)  # those that came while it read
                if before.model.revision != revision:
                    later = range(model.n_catalog, model.n_items)
                    model.change_items(later, before.model.texts[model.n_catalog :])
                if is_alike:
                    before.desk.reader.rebind(model)
                self._now = after
        except BaseException:
            if not is_alike:
                after.desk.stop()
            raise
        finally:
            self._coming = None
        if not is_alike:
            await asyncio.to_thread(before.desk.close)

    async def _read_ahead(self, after: _Generation, people: Sequence[Person]) -> None:
        """So that the change is not felt as a wave of whole histories."""
        until = time.monotonic() + _READ_AHEAD_S
        slack = self._settings.window_slack
        n_read = 0
        for person in people[:_READ_AHEAD]:
            if time.monotonic() > until:
                break
            if person.codes:
                start, codes = person.window(after.model, slack)
                context = await after.desk.ask(Wanted(person.key, codes))
                person.ahead = (context, (after.model.reading, start, start + len(codes)))
                n_read += 1
        _log.info("%d histories read ahead", n_read, extra={"event": "read_ahead"})


def join_later_items(model: LiveModel, before: LiveModel) -> None:
    """Items that joined the model before join this one, with the same codes."""
    if model.n_items < before.n_items:
        model.add_items(before.texts[model.n_items :])
