"""Support answers of one tenant: matched by meaning, refused where nothing fits, and handed over to a person.

No request leaves the partner. Requests are never written to logs, and kept only where they were handed over.
"""

import asyncio
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fedrec.errors import DataError
from fedrec.model.sentences import SentenceEncoder, Vectors
from fedrec.support.answers import Answer
from fedrec.support.matching import AnswerIndex, Match, Matching, is_known
from fedrec_client.serving.errors import ConflictError, NotFoundError
from fedrec_client.serving.store.support_book import Handover, add_handover
from fedrec_client.serving.store.vector_book import remembering
from fedrec_client.serving.tenant import Tenant

MOST_ANSWERS = 20_000
Encode = Callable[[Sequence[str]], Vectors]


def support_of(tenant: Tenant, sentences: SentenceEncoder | None) -> "Support":
    """By the settings. Nothing is read before somebody asks.

    Args:
        sentences: None: requests are refused.
    """
    settings = tenant.settings.support
    matching = Matching(settings.question_weight, settings.threshold)
    if sentences is None:
        return Support(tenant, None, None, matching)
    encoder, vectors = sentences, tenant.store.vectors

    def read(texts: Sequence[str]) -> Vectors:
        return remembering(vectors, encoder.name, encoder.encode)(texts)

    return Support(tenant, read, encoder.encode, matching)


@dataclass(frozen=True, repr=False)
class Found:
    """What a request was told.

    Attributes:
        matches: the likeliest answers, best first, with their pairs.
        is_known: whether the first is told as the answer.
        handover: id of what waits for a person; "" where the answer is known or nobody wished for one.
    """

    matches: tuple[tuple[Match, Answer], ...]
    is_known: bool
    handover: str


class Support:
    """Answers of a tenant. Called on the event loop.

    Args:
        read: sentence vectors of what everybody may read; remembers them.
        ask: sentence vectors of requests; remembers nothing. None: this service has no sentence encoder.
        matching: see there.
    """

    def __init__(self, tenant: Tenant, read: Encode | None, ask: Encode | None, matching: Matching) -> None:
        self._tenant, self._read, self._ask, self.matching = tenant, read, ask, matching
        self._answers: dict[str, Answer] = {}
        self._index: AnswerIndex | None = None
        self._changing = asyncio.Lock()

    async def answers(self) -> list[Answer]:
        """All that this tenant can give, by id."""
        return await asyncio.to_thread(self._tenant.store.support.answers)

    async def put(self, answers: Sequence[Answer]) -> int:
        """Add answers, or word them anew; requests find them when this returns.

        Raises: DataError: an id twice, or more than are allowed. ConflictError: no sentence encoder. StorageError.
        """
        self._encoder()
        if len({answer.id for answer in answers}) != len(answers):
            raise DataError("an id stands twice", "give each answer an id of its own; nothing was stored")
        async with self._changing:
            known = {answer.id for answer in await self.answers()} | {answer.id for answer in answers}
            if len(known) > MOST_ANSWERS:
                raise DataError(f"more than {MOST_ANSWERS} answers", "remove some; nothing was stored")
            await asyncio.to_thread(self._vectors, answers)  # a text that cannot be read is refused before it is kept
            await asyncio.to_thread(self._tenant.store.support.put_answers, answers)
            await self._load()
        return len(answers)

    async def remove(self, answer: str) -> bool:
        """Whether it was there."""
        async with self._changing:
            was_there = await asyncio.to_thread(self._tenant.store.support.remove_answer, answer)
            if self._index is not None:
                await self._load()
        return was_there

    async def question(self, request: str, user: str, k: int, *, hands_over: bool) -> Found:
        """The likeliest answers; where none is good enough the request is handed over.

        Args:
            request, user: private; kept only if it is handed over.
            hands_over: whether a person shall answer what is not known.
        Raises: ConflictError: no sentence encoder, or the user is being deleted. StorageError.
        """
        ask, index = self._encoder(), await self._opened()
        vector = (await asyncio.to_thread(ask, [request]))[0]
        matches = tuple(match for match in index.best(vector, self.matching, k) if match.id in self._answers)
        knows, name = is_known(matches, self.matching), ""
        if not knows and hands_over:
            name = await self._hand_over(request, user, matches)
        return Found(tuple((match, self._answers[match.id]) for match in matches), knows, name)

    async def handover(self, name: str) -> Handover:
        """Raises NotFoundError."""
        found = await asyncio.to_thread(self._tenant.store.support.handover, name)
        if found is None:
            raise NotFoundError("hand-over")
        return found

    async def queue(self, n: int, *, is_open: bool) -> tuple[list[Handover], tuple[int, int]]:
        """Some hand-overs, and how many wait and are answered."""
        book = self._tenant.store.support
        return await asyncio.to_thread(lambda: (book.handovers(n, is_open=is_open), book.counts()))

    async def reply(self, name: str, answer: str, wording: str = "") -> str:
        """A person's answer to what was handed over.

        Args:
            wording: the question for everybody, in the person's own words; then the pair joins the answers. What
                was asked is never published by itself.
        Returns: id of the answer that joined; "" if none did.
        Raises: NotFoundError; ConflictError: somebody has answered.
        """
        await self.handover(name)
        if wording:
            self._encoder()
        note = self._tenant.store.support.note_answer
        if not await asyncio.to_thread(note, name, answer, time.time()):
            raise ConflictError("somebody has answered it already", "read it again")
        if not wording:
            return ""
        joined = f"person-{uuid.uuid4().hex[:12]}"
        await self.put([Answer(joined, wording, answer)])
        return joined

    async def _hand_over(self, request: str, user: str, matches: tuple[Match, ...]) -> str:
        """Through the writer, behind a deletion that has begun."""
        if user and user in self._tenant.removing:
            raise ConflictError("this person is being deleted", "ask again without a name")
        handover = Handover(uuid.uuid4().hex, user, request, matches, time.time())
        name = self._tenant.name
        done = self._tenant.writer.submit(lambda connection: add_handover(connection, name, handover))
        await asyncio.wrap_future(done)
        return handover.id

    def _encoder(self) -> Encode:
        if self._ask is None:
            raise ConflictError("this service has no sentence encoder", "set model.sentence_encoder in the federation")
        return self._ask

    async def _opened(self) -> AnswerIndex:
        if self._index is None:
            async with self._changing:
                if self._index is None:
                    await self._load()
        assert self._index is not None
        return self._index

    async def _load(self) -> None:
        answers = await self.answers()
        index = await asyncio.to_thread(self._indexed, answers)
        self._answers, self._index = {answer.id: answer for answer in answers}, index

    def _indexed(self, answers: Sequence[Answer]) -> AnswerIndex:
        questions, texts = self._vectors(answers)
        return AnswerIndex([answer.id for answer in answers], questions, texts)

    def _vectors(self, answers: Sequence[Answer]) -> tuple[Vectors, Vectors]:
        """In a thread; what was read before is remembered."""
        assert self._read is not None
        if not answers:
            return np.zeros((0, 0), np.float32), np.zeros((0, 0), np.float32)
        both = self._read([answer.question for answer in answers] + [answer.text for answer in answers])
        return both[: len(answers)], both[len(answers) :]
