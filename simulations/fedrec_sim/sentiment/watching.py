"""A stream of a partner's own texts through head, topics and monitor; alarms as the service raises its own."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedrec.errors import ModelError
from fedrec.model.sentences import SentenceEncoder
from fedrec.model.shared import model_folder
from fedrec.sentiment.change import RiseSettings
from fedrec.sentiment.head import Judge, SentimentHead
from fedrec.sentiment.monitor import Monitor, MonitorSettings, Rise, Window
from fedrec.sentiment.topics import FILM_TOPICS, Topics
from fedrec_client.serving.learning.alerts import Alert, Alerts
from fedrec_client.serving.sentiment import alert_of
from fedrec_sim.example_page import Page, Section, write_example

NO_HEAD = "run `fedrec bench sentiment` first, or name its folder by --runs"


class Sending:
    """Alerts on an event loop in a thread of its own, so that they leave while this one waits for the next line."""

    def __init__(self, alerts: Alerts) -> None:
        self._alerts, self._loop = alerts, asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fedrec-alerts", daemon=True)
        self._thread.start()

    def send(self, alert: Alert) -> None:
        """Log it, and have it sent."""
        self._loop.call_soon_threadsafe(self._alerts.raise_alert, alert)

    def close(self, *, waits: bool) -> None:
        """End; what is being sent is waited for, or given up."""
        asyncio.run_coroutine_threadsafe(self._ended(waits=waits), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _ended(self, *, waits: bool) -> None:
        await (self._alerts.settle() if waits else self._alerts.close())


@dataclass
class Watching:
    """Holds counts alone.

    Attributes:
        unread: texts that the encoder cannot read, and that count nowhere.
    """

    judge: Judge = field(repr=False)
    monitor: Monitor = field(repr=False)
    send: Callable[[Alert], None] = field(repr=False)
    unread: int = 0

    @classmethod
    def open(cls, run: Path, rise: RiseSettings, send: Callable[[Alert], None]) -> "Watching":
        """Raises RunError: no head there, or a damaged one. ModelError: a head over another encoder."""
        head = SentimentHead.read(run, NO_HEAD)
        encoder = SentenceEncoder(model_folder("minilm-l6-v2", lambda _: None))
        judge = Judge(head, encoder, Topics.seeded(FILM_TOPICS, encoder.encode))
        return cls(judge, Monitor(MonitorSettings(rise)), send)

    def take(self, texts: Sequence[str], at: float) -> tuple[list[Rise], list[Window]]:
        """The next texts, private; rises that they made certain, and windows that they filled."""
        try:
            judged = self.judge.judge(texts)
        except ModelError:
            left_out = set(self.judge.unreadable(texts))
            self.unread += len(left_out)
            judged = self.judge.judge([text for place, text in enumerate(texts) if place not in left_out])
        rises: list[Rise] = []
        filled: list[Window] = []
        for likely, topic in zip(*judged, strict=True):
            rises += self.monitor.take([likely], [topic], at)
            if self.monitor.windows[-1].texts == self.monitor.settings.window_texts:
                filled.append(self.monitor.windows[-1])
        for rise in rises:
            self.send(alert_of(rise, ""))
        return rises, filled

    def figures(self) -> dict[str, Any]:
        """Sums over all texts, for JSON."""
        return {
            "texts": self.monitor.texts,
            "unread": self.unread,
            "windows": [window.to_dict() for window in self.monitor.windows],
            "rises": [vars(rise) for rise in self.monitor.rises],
        }

    def write(self, folder: Path) -> Path:
        """The page and its JSON."""
        told = self.figures()
        bars = [(window["negative_share"], False) for window in told["windows"]]
        rows = [(str(r["text"]), str(r["texts"]), f"{r['share']:.2f}", r["topic"]) for r in told["rises"]]
        head = ("alarm at text", "texts since the rise began", "negative share of these", "most about")
        alt = "Negative share of each window of texts"
        page = Page(
            "Sentiment of a stream",
            "Counts alone: no text is kept. The webhook, if there is one, is the partner's own.",
            [("texts", str(told["texts"])), ("alarms", str(len(rows)))],
            [Section("Negative share of each window, and alarms", head, rows, bars=bars, alt=alt)],
            "fedrec sentiment watch",
        )
        return write_example(folder, page, told)
