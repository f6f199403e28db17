"""Sentiment of one tenant's texts: judged, counted and forgotten. No text is stored or written to a log, or leaves.

What is kept on the disk holds counts alone, as the drift watch's file does, and is begun anew where it is damaged.
"""

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedrec.errors import ConfigError, DataError, ModelError, RunError
from fedrec.files import json_bytes, read_json, replace_file
from fedrec.model.sentences import SentenceEncoder
from fedrec.sentiment.change import RiseSettings
from fedrec.sentiment.head import Judge, SentimentHead
from fedrec.sentiment.monitor import Monitor, MonitorSettings, Rise, Sentiment
from fedrec.sentiment.topics import FILM_TOPICS, Topics
from fedrec_client.serving.errors import ConflictError, NotReadyError
from fedrec_client.serving.learning.alerts import Alert, Alerts
from fedrec_client.serving.settings import SentimentSettings

_log = logging.getLogger(__name__)
FORMAT = 1
# Told, once texts have counted, of the windows that they filled, by sentiment, and how many rises they made certain.
Note = Callable[[Mapping[Sentiment, int], int], None]
# Texts that may wait for the encoder; beyond them 503 with Retry-After, since nobody's request shall wait for minutes.
MOST_WAITING = 200
_RETRY_S = 5
_REMEDY = (
    "sentiment.head names the folder of a head, as `fedrec bench sentiment` makes one: head.safetensors, head.json"
)


def alert_of(rise: Rise, tenant: str) -> Alert:
    """What is told of a rise: shares, counts and a topic, never a text."""
    figures: dict[str, float | int | str] = {"share": rise.share, "texts": rise.texts, "topic": rise.topic}
    return Alert("negative texts", str(rise), tenant, figures)


@dataclass(frozen=True)
class Judged:
    """What a text was taken for."""

    sentiment: Sentiment
    topic: str


@dataclass(frozen=True)
class Told:
    """How a stream stands. Sums over people: for the partner's own.

    Attributes:
        threshold: evidence at which a rise is certain; None without a head.
        windows: the latest, oldest first, as `Window.to_dict`.
        topics: texts and negative ones by topic in these windows, the most negative first.
        rises: the latest, oldest first.
    """

    texts: int
    evidence: float
    threshold: float | None
    settings: MonitorSettings
    windows: list[dict[str, Any]]
    topics: dict[str, dict[str, int]]
    rises: list[Rise]


def open_sentiment(
    folder: Path, tenant: str, settings: SentimentSettings, sentences: SentenceEncoder | None, alerts: Alerts
) -> "SentimentWatch":
    """By the settings; slow, for a thread.

    Args:
        folder: of `serving.toml`, from which the head's is named, and where counts are kept.
        sentences: None: this service has no sentence encoder.
    Raises: RunError: no head there, or a damaged one. ModelError: a head over another encoder. ConfigError.
    """
    if not settings.head:
        return SentimentWatch(tenant, None, _monitor(settings, math.inf), folder, alerts, {})
    if sentences is None:
        remedy = "set model.sentence_encoder in the federation, or leave sentiment.head empty"
        raise ConfigError("sentiment.head: this service has no sentence encoder", remedy)
    head = SentimentHead.read(folder / settings.head, _REMEDY)
    seeds = settings.topics or FILM_TOPICS
    judge = Judge(head, sentences, Topics.seeded(seeds, sentences.encode))
    judged_by = {"head": head.hash, **head.inputs.model_dump(), **settings.model_dump(mode="json", exclude={"head"})}
    return SentimentWatch(tenant, judge, _monitor(settings), folder, alerts, judged_by)


def _monitor(settings: SentimentSettings, threshold: float | None = None) -> Monitor:
    rise = RiseSettings(settings.base, settings.raised, settings.false_per_1000)
    return Monitor(MonitorSettings(rise, settings.window_texts, settings.neutral_band), threshold)


class SentimentWatch:
    """A tenant's stream of texts. Used on the event loop.

    Args:
        judge: None: no head was named, and texts are refused.
        judged_by: identity of head and settings: where it is another than before, evidence begins anew.
    """

    def __init__(
        self,
        tenant: str,
        judge: Judge | None,
        monitor: Monitor,
        folder: Path,
        alerts: Alerts,
        judged_by: Mapping[str, Any],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._tenant, self._judge, self._monitor, self._alerts = tenant, judge, monitor, alerts
        self._path, self._judged_by, self._clock = folder / f"sentiment-{tenant}.json", dict(judged_by), clock
        self._judging, self._writing, self._waiting = asyncio.Lock(), asyncio.Lock(), 0
        self._under_way: set[asyncio.Task[tuple[list[Judged], list[Rise]]]] = set()
        self._changes = self._written = 0
        if judge is not None:
            self._read()

    @property
    def is_on(self) -> bool:
        """Whether there is a head."""
        return self._judge is not None

    @property
    def negative_share(self) -> float | None:
        """Of the latest window that is full; None before the first."""
        full = self._monitor.settings.window_texts
        return next((one.negative_share for one in reversed(self._monitor.windows) if one.texts >= full), None)

    async def take(self, texts: Sequence[str], note: Note = lambda *_: None) -> tuple[list[Judged], list[Rise]]:
        """The next texts of the stream: what each was taken for, and rises that they made certain.

        They count, and that on the disk, when this returns; all of them or, where it raises an error, none. Who is
        cancelled, as by the limit of time of a call, does not know: what was taken is judged and counted to the end,
        since neither the thread that reads nor the one that writes can be called back; unless the service stops.

        Args:
            texts: private.
            note: called even if who waits is cancelled.
        Raises: ConflictError: no head. NotReadyError: too many wait. DataError: naming each that cannot be read.
        """
        if self._judge is None:
            raise ConflictError("this service has no sentiment head", _REMEDY)
        if self._waiting + len(texts) > MOST_WAITING:
            raise NotReadyError("too many texts wait to be judged", "send these again in a moment", _RETRY_S)
        self._waiting += len(texts)
        task = asyncio.create_task(self._taken(self._judge, texts, note))
        self._under_way.add(task)  # the loop alone would let it go
        task.add_done_callback(self._end)
        return await asyncio.shield(task)

    def _end(self, task: asyncio.Task[tuple[list[Judged], list[Rise]]]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, where nobody waits for it any more

    async def _taken(self, judge: Judge, texts: Sequence[str], note: Note) -> tuple[list[Judged], list[Rise]]:
        try:
            async with self._judging:  # one thread at a time: others need theirs
                likely, topics = await asyncio.to_thread(_judged, judge, texts)
        finally:
            self._waiting -= len(texts)
        before = self._monitor.in_full.copy()
        rises = self._monitor.take(likely, topics, self._clock())
        note(self._monitor.in_full - before, len(rises))
        for rise in rises:
            self._alerts.raise_alert(alert_of(rise, self._tenant))
        await self._keep()
        found = [self._monitor.sentiment(one) for one in likely]
        return [Judged(*one) for one in zip(found, topics, strict=True)], rises

    def told(self, n: int) -> Told:
        """How the stream stands, with its latest `n` windows."""
        monitor, windows = self._monitor, list(self._monitor.windows)[-n:]
        texts, negative = Counter[str](), Counter[str]()
        for window in windows:
            texts.update(window.of_topic)
            negative.update(window.negative_of_topic)
        names = sorted(texts, key=lambda name: (-negative[name], -texts[name], name))
        return Told(
            texts=monitor.texts,
            evidence=monitor.watch.evidence,
            threshold=monitor.watch.threshold if self.is_on else None,
            settings=monitor.settings,
            windows=[window.to_dict() for window in windows],
            topics={name: {"texts": texts[name], "negative": negative[name]} for name in names},
            rises=list(monitor.rises),
        )

    async def _keep(self) -> None:
        """Write all counts down; of several who wait one writes for all."""
        self._changes += 1
        mine = self._changes
        async with self._writing:
            if self._written >= mine:
                return
            changes, values = self._changes, self._monitor.to_dict()
            try:
                await asyncio.to_thread(self._write, values)
            except OSError as error:  # the texts have counted: to refuse them now would have them sent again
                kind = type(error).__name__
                _log.warning("counts of texts were not written down: %s", kind, extra={"event": "sentiment_unwritten"})
            else:
                self._written = changes

    def _write(self, values: Mapping[str, Any]) -> None:
        content = json_bytes({"format": FORMAT, "judged_by": self._judged_by, "monitor": values})
        replace_file(self._path, content)

    def _read(self) -> None:
        if not self._path.exists():
            return
        try:
            values, _ = read_json(self._path, FORMAT)
            self._monitor.restore(values["monitor"], goes_on=values["judged_by"] == self._judged_by)
        except (RunError, KeyError, TypeError, ValueError, AttributeError):
            _log.warning("what was kept of texts is damaged; it begins anew", extra={"event": "sentiment_lost"})


def _judged(judge: Judge, texts: Sequence[str]) -> tuple[list[float], list[str]]:
    """In a thread. Raises DataError: naming every text without a token, by its place."""
    try:
        return judge.judge(texts)
    except ModelError:
        places = ", ".join(f"texts.{place}" for place in judge.unreadable(texts))
        raise DataError(f"{places}: no word that the encoder knows", "leave these out; nothing was counted") from None
