"""A stream of a partner's own texts through head, topics and monitor; alarms as the service raises its own."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedrec.errors import RunError
from fedrec.files import storage_errors
from fedrec.model.adapter import AdapterState
from fedrec.model.sentences import SentenceEncoder
from fedrec.model.shared import model_folder
from fedrec.sentiment.change import RiseSettings
from fedrec.sentiment.monitor import Monitor, MonitorSettings
from fedrec.sentiment.topics import FILM_TOPICS, Topics
from fedrec.tasks.classes import Classes
from fedrec.tasks.head import HeadShape, TaskHead, score_rows, write_head
from fedrec_client.serving.learning.alerts import Alert, Alerts
from fedrec_sim.example_page import Page, Section, write_example
from fedrec_sim.sentiment.head import LABELS, SCALE, last_words_of

HEAD = "head.safetensors"
_WIDTH = 384


@dataclass
class Watching:
    """Holds counts alone. Made within no event loop; `take` and `close` run in one."""

    encoder: SentenceEncoder = field(repr=False)
    head: TaskHead = field(repr=False)
    topics: Topics = field(repr=False)
    monitor: Monitor = field(repr=False)
    alerts: Alerts = field(repr=False)

    @classmethod
    def open(cls, run: Path, base: float, raised: float, false_per_1000: float, webhook: str) -> "Watching":
        """Raises RunError: no head there, or a damaged one. ConfigError: the webhook is no https address."""
        path = run / HEAD
        if not path.is_file():
            raise RunError(f"{path}: no head yet", "run `fedrec bench sentiment` first, or name its folder by --runs")
        alerts = Alerts(webhook)
        with storage_errors(path):
            state = AdapterState.from_bytes(path.read_bytes())
        head = TaskHead(HeadShape(_WIDTH, len(LABELS)))
        write_head(head, state)
        encoder = SentenceEncoder(model_folder("minilm-l6-v2", lambda _: None))
        settings = MonitorSettings(RiseSettings(base, raised, false_per_1000))
        return cls(encoder, head, Topics.seeded(FILM_TOPICS, encoder.encode), Monitor(settings), alerts)

    async def take(self, texts: Sequence[str], at: float) -> list[str]:
        """The next texts, private; what there is to say, without any of them."""
        vectors = self.encoder.encode([last_words_of(text) for text in texts])
        likely = Classes(LABELS).predictions(score_rows(self.head, SCALE * vectors))[:, 1]
        said = []
        for rise in self.monitor.take(likely.tolist(), self.topics.of(vectors), at):
            what = f"the negative share is {rise.share:.0%} in the last {rise.texts} texts, most about {rise.topic}"
            figures: dict[str, float | int | str] = {"share": rise.share, "texts": rise.texts, "topic": rise.topic}
            self.alerts.raise_alert(Alert("negative texts", what, "", figures))
            said.append(f"text {rise.text}: {what}")
        return said

    async def close(self) -> None:
        """Wait for what is being sent."""
        await self.alerts.settle()

    def figures(self) -> dict[str, Any]:
        """Sums over all texts, for JSON."""
        return {
            "texts": self.monitor.texts,
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
