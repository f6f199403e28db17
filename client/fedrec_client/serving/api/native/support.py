"""Support answers: pairs that a partner gives, requests that are matched to them, and what a person must answer."""

from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi import Query as InQuery
from pydantic import Field

from fedrec.support.answers import MOST_TEXT, Answer
from fedrec_client.serving.api.native.forms import (
    PROBLEMS,
    Asked,
    AskedInQuery,
    Desk,
    OptionalId,
    Stored,
    Told,
    WasThere,
)
from fedrec_client.serving.http.paths import Id, Segment
from fedrec_client.serving.service import TenantService
from fedrec_client.serving.store.support_book import Handover
from fedrec_client.serving.support import Found

_MOST_AT_ONCE = 1000
_MOST_FOUND = 20
Sentence = Annotated[str, Field(min_length=1, max_length=MOST_TEXT, pattern=r"\S")]
Request = Annotated[str, Field(min_length=1, max_length=2000, pattern=r"\S")]
_EXAMPLE = {"id": "returns", "question": "How do I send something back?", "answer": "Within 30 days, with the label."}


class Pair(Asked):
    """A question that the partner has answered for everybody."""

    id: Id
    question: Sentence
    answer: Sentence


class Pairs(Asked):
    """Answers that join, or are worded anew."""

    answers: Annotated[list[Pair], Field(min_length=1, max_length=_MOST_AT_ONCE, examples=[[_EXAMPLE]])]


class QuestionForm(Asked):
    """What somebody wants to know."""

    request: Annotated[Request, Field(examples=["may I return these shoes?"])]
    user: OptionalId = ""
    k: Annotated[int, Field(ge=1, le=_MOST_FOUND, description="How many answers at most.")] = 3
    hand_over: Annotated[bool, Field(description="Whether a person shall answer what is not known.")] = True


class AnswerTold(Told):
    """An answer and how near it is."""

    id: str
    question: str
    answer: str
    score: float = Field(description="Cosine, -1 to 1.")


class QuestionTold(Told):
    """The first answer is meant if `is_known`; else these are only the nearest."""

    is_known: bool
    answers: list[AnswerTold]
    handover: str = Field(description="Of what waits for a person; empty if nothing does.")
    threshold: float = Field(description="The score from which on an answer is known.")


class PairTold(Told):
    """An answer as everybody may read it."""

    id: str
    question: str
    answer: str


class PairsTold(Told):
    """All answers."""

    answers: list[PairTold]


class ReplyTold(Told):
    """What became of a hand-over; who asked and what is not told here."""

    id: str
    is_answered: bool
    answer: str


class HandoverTold(Told):
    """A request that a person must answer, or has answered."""

    id: str
    user: str
    request: str
    nearest: list[str] = Field(description="Ids of the answers that were nearest.")
    at: float
    answer: str
    answered_at: float


class HandoversTold(Told):
    """Some of them."""

    waiting: int
    answered: int
    handovers: list[HandoverTold]


class ReplyForm(Asked):
    """A person's answer."""

    answer: Sentence
    publish_as: Annotated[
        str, Field(max_length=MOST_TEXT, description="The question for everybody, in your words; empty: not published.")
    ] = ""


class Replied(Told):
    """A hand-over is answered."""

    is_answered: bool
    published: str = Field(description="Id of the answer that joined; empty if none did.")


class Which(AskedInQuery):
    """Which hand-overs."""

    is_open: bool = True
    n: Annotated[int, Field(ge=1, le=_MOST_AT_ONCE)] = 100


def support_routes(desk: Desk) -> APIRouter:
    """See the module."""
    router = APIRouter(prefix="/v1/support", tags=["Support"], responses=PROBLEMS)
    _add_answers(router, desk)
    _add_questions(router, desk)
    return router


def _add_answers(router: APIRouter, desk: Desk) -> None:
    tenant = Depends(desk)

    @router.put("/answers", summary="Add answers, or word them anew")
    async def put(sent: Pairs, one: TenantService = tenant) -> Stored:
        """Requests find them when this answers."""
        answers = [Answer(pair.id, pair.question, pair.answer) for pair in sent.answers]
        return Stored(stored=await one.support.put(answers))

    @router.get("/answers", summary="List answers")
    async def every(one: TenantService = tenant) -> PairsTold:
        """By id."""
        found = await one.support.answers()
        return PairsTold(answers=[PairTold(id=a.id, question=a.question, answer=a.text) for a in found])

    @router.delete("/answers/{answer}", summary="Remove an answer")
    async def remove(answer: Segment, one: TenantService = tenant) -> WasThere:
        """No request finds it any more."""
        return WasThere(was_there=await one.support.remove(answer))


def _add_questions(router: APIRouter, desk: Desk) -> None:
    tenant = Depends(desk)

    @router.post("/questions", summary="Ask")
    async def ask(sent: QuestionForm, one: TenantService = tenant) -> QuestionTold:
        """The likeliest answers. What is not known is handed over to a person, and kept until then."""
        found = await one.support.question(sent.request, sent.user, sent.k, hands_over=sent.hand_over)
        return _told(found, one.support.matching.threshold)

    @router.get("/handovers", summary="List what was handed over")
    async def waiting(asked: Annotated[Which, InQuery()], one: TenantService = tenant) -> HandoversTold:
        """What waits, the oldest first; or what was answered, the newest first."""
        rows, (n_open, n_done) = await one.support.queue(asked.n, is_open=asked.is_open)
        return HandoversTold(waiting=n_open, answered=n_done, handovers=[_handover(row) for row in rows])

    @router.get("/handovers/{handover}", summary="Whether a person has answered")
    async def look(handover: Segment, one: TenantService = tenant) -> ReplyTold:
        """For who asked: nobody guesses an id."""
        found = await one.support.handover(handover)
        return ReplyTold(id=found.id, is_answered=found.answered_at > 0, answer=found.answer)

    @router.post("/handovers/{handover}/answer", summary="Answer as a person")
    async def reply(handover: Segment, sent: ReplyForm, one: TenantService = tenant) -> Replied:
        """Once. With `publish_as` the pair joins the answers; what was asked is never published by itself."""
        joined = await one.support.reply(handover, sent.answer, sent.publish_as.strip())
        return Replied(is_answered=True, published=joined)


def _told(found: Found, threshold: float) -> QuestionTold:
    answers = [
        AnswerTold(id=answer.id, question=answer.question, answer=answer.text, score=round(match.score, 4))
        for match, answer in found.matches
    ]
    return QuestionTold(is_known=found.is_known, answers=answers, handover=found.handover, threshold=threshold)


def _handover(row: Handover) -> HandoverTold:
    return HandoverTold(
        id=row.id,
        user=row.user,
        request=row.request,
        nearest=[match.id for match in row.matches],
        at=row.at,
        answer=row.answer,
        answered_at=row.answered_at,
    )
