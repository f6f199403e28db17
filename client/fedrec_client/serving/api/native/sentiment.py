"""Sentiment of a partner's texts: judged, counted and forgotten; and how the stream of them stands."""

from collections.abc import Mapping
from typing import Annotated, Any, get_args

from fastapi import APIRouter, Depends
from fastapi import Query as InQuery
from pydantic import Field

from fedrec.sentiment.monitor import Sentiment
from fedrec_client.serving.api.native.forms import PROBLEMS, Asked, AskedInQuery, Desk, Told
from fedrec_client.serving.http.metrics import ServingMetrics
from fedrec_client.serving.sentiment import Told as Standing
from fedrec_client.serving.service import TenantService

MOST_AT_ONCE, MOST_LETTERS, MOST_WINDOWS = 100, 10_000, 500
Text = Annotated[str, Field(min_length=1, max_length=MOST_LETTERS, pattern=r"\S")]
_EXAMPLE = ["a slow start, but what an ending", "the sound was dreadful"]


class TextsForm(Asked):
    """What people wrote, in the order in which it came."""

    texts: Annotated[list[Text], Field(min_length=1, max_length=MOST_AT_ONCE, examples=[_EXAMPLE])]


class JudgedTold(Told):
    """What a text was taken for."""

    sentiment: Sentiment
    topic: str = Field(description='Of those of the settings; "other" where none is near.')


class TakenTold(Told):
    """Texts that have counted; none of them is kept."""

    judged: list[JudgedTold] = Field(description="In the order of the texts.")


class TopicTold(Told):
    """A topic of the windows that are told."""

    topic: str
    texts: int
    negative: int


class WindowTold(Told):
    """Counts of some texts that came one after the other."""

    began: float
    ended: float
    texts: int
    negative: int
    neutral: int
    positive: int
    negative_share: float
    topics: list[TopicTold]


class RiseTold(Told):
    """The negative share had risen: what the alarm said."""

    at: float
    text: int = Field(description="Number of the text that made it certain, from 1.")
    texts: int = Field(description="Of the raised stretch, as likely as not.")
    share: float
    topic: str = Field(description="With the most negative texts among them; empty where there is none.")


class SentimentTold(Told):
    """How the stream stands. Sums over people."""

    is_on: bool = Field(description="Whether there is a head: sentiment.head in serving.toml.")
    texts: int = Field(description="Since the beginning, restarts included.")
    evidence: float = Field(description="For a rise, in nats; at `threshold` it is certain, and evidence begins anew.")
    threshold: float | None = Field(description="Of the evidence; null without a head.")
    base: float = Field(description="The negative share as it usually is.")
    raised: float = Field(description="The share that must be found.")
    window_texts: int
    windows: list[WindowTold] = Field(description="Oldest first; the last one may not be full.")
    topics: list[TopicTold] = Field(description="Of these windows, the most negative first.")
    rises: list[RiseTold] = Field(description="The latest, oldest first.")


class Which(AskedInQuery):
    """How much of it."""

    n: Annotated[int, Field(ge=1, le=MOST_WINDOWS, description="Windows at most, the latest.")] = 50


def sentiment_routes(desk: Desk, metrics: ServingMetrics) -> APIRouter:
    """See the module."""
    router = APIRouter(prefix="/v1/sentiment", tags=["Sentiment"], responses=PROBLEMS)
    tenant = Depends(desk)

    @router.post("/texts", summary="Have texts judged")
    async def take(sent: TextsForm, one: TenantService = tenant) -> TakenTold:
        """All of them count, or none. They are neither stored nor logged."""
        judged, _ = await one.sentiment.take(sent.texts, metrics.count_texts)
        return TakenTold(judged=[JudgedTold(**vars(text)) for text in judged])

    @router.get("", summary="How the stream stands")
    async def look(asked: Annotated[Which, InQuery()], one: TenantService = tenant) -> SentimentTold:
        """Windows, topics and rises of the negative share."""
        return told_of(one.sentiment.told(asked.n), is_on=one.sentiment.is_on)

    return router


def told_of(standing: Standing, *, is_on: bool) -> SentimentTold:
    """As JSON tells it."""
    settings = standing.settings
    return SentimentTold(
        is_on=is_on,
        texts=standing.texts,
        evidence=round(standing.evidence, 4),
        threshold=None if standing.threshold is None else round(standing.threshold, 4),
        base=settings.rise.base,
        raised=settings.rise.raised,
        window_texts=settings.window_texts,
        windows=[_window(window) for window in standing.windows],
        topics=_topics(standing.topics),
        rises=[RiseTold(**vars(rise)) for rise in standing.rises],
    )


def _window(values: dict[str, Any]) -> WindowTold:
    counts = {name: values["sentiments"].get(name, 0) for name in get_args(Sentiment)}
    named = {name: values[name] for name in ("began", "ended", "texts", "negative_share")}
    return WindowTold(**named, **counts, topics=_topics(values["topics"]))


def _topics(by_name: Mapping[str, Mapping[str, int]]) -> list[TopicTold]:
    return [TopicTold(topic=name, **counts) for name, counts in by_name.items()]
