"""A stream of texts as counts: windows of sentiment and topics, and rises of the negative share. Holds no text."""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fedrec.sentiment.change import RiseSettings, RiseWatch, threshold_for

Sentiment = Literal["negative", "neutral", "positive"]
_KEPT_WINDOWS, _KEPT_RISES = 500, 100


@dataclass(frozen=True)
class MonitorSettings:
    """How a stream is looked at. Public.

    Attributes:
        window_texts: texts of a window.
        neutral_band: probabilities of a negative text this near to one half are neutral.
        rise: what is a rise of the negative share.
    """

    rise: RiseSettings
    window_texts: int = 50
    neutral_band: float = 0.1

    def __post_init__(self) -> None:
        if self.window_texts < 1 or not 0 <= self.neutral_band < 0.5:
            raise ValueError("window_texts must be at least 1, and neutral_band within 0..0.5")


@dataclass
class Window:
    """Counts of some texts that came one after the other. Sums over people; stays with the partner.

    Attributes:
        began, ended: Unix seconds of the first and the last text.
        topics: negative texts by topic; `texts` by topic in `of_topic`.
    """

    began: float
    ended: float
    sentiments: Counter[str] = field(default_factory=Counter)
    of_topic: Counter[str] = field(default_factory=Counter)
    negative_of_topic: Counter[str] = field(default_factory=Counter)

    @property
    def texts(self) -> int:
        """How many."""
        return self.sentiments.total()

    @property
    def negative_share(self) -> float:
        """Of all its texts, neutral ones too."""
        return self.sentiments["negative"] / max(1, self.texts)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "began": self.began,
            "ended": self.ended,
            "texts": self.texts,
            "negative_share": round(self.negative_share, 4),
            "sentiments": dict(self.sentiments),
            "topics": {
                name: {"texts": n, "negative": self.negative_of_topic[name]} for name, n in self.of_topic.items()
            },
        }


@dataclass(frozen=True)
class Rise:
    """The negative share has risen.

    Attributes:
        at: Unix seconds of the text that made it certain.
        text: its number in the stream, from 1.
        texts: of the raised stretch, as likely as not.
        share: of negative ones among them.
        topic: with the most negative texts among them; "" where there is none.
    """

    at: float
    text: int
    texts: int
    share: float
    topic: str


class Monitor:
    """Takes texts as numbers: how likely negative, and about what. Of a text nothing else is kept."""

    def __init__(self, settings: MonitorSettings) -> None:
        self.settings = settings
        self._watch = RiseWatch(settings.rise, threshold_for(settings.rise))
        self._latest: deque[tuple[bool, str]] = deque(maxlen=2000)
        self.windows: deque[Window] = deque(maxlen=_KEPT_WINDOWS)
        self.rises: deque[Rise] = deque(maxlen=_KEPT_RISES)
        self.texts = 0

    def sentiment(self, negative: float) -> Sentiment:
        """Of a probability."""
        if abs(negative - 0.5) < self.settings.neutral_band:
            return "neutral"
        return "negative" if negative > 0.5 else "positive"

    def take(self, negative: Sequence[float], topics: Sequence[str], at: float) -> list[Rise]:
        """The next texts.

        Args:
            negative: how likely each is negative.
            topics: of each.
            at: Unix seconds.
        Returns: rises that these texts made certain.
        """
        return [rise for one, topic in zip(negative, topics, strict=True) if (rise := self._one(one, topic, at))]

    def _one(self, negative: float, topic: str, at: float) -> Rise | None:
        found = self.sentiment(negative)
        if not self.windows or self.windows[-1].texts >= self.settings.window_texts:
            self.windows.append(Window(at, at))
        window = self.windows[-1]
        window.ended = at
        window.sentiments[found] += 1
        window.of_topic[topic] += 1
        window.negative_of_topic[topic] += found == "negative"
        self.texts += 1
        self._latest.append((found == "negative", topic))
        since = self._watch.take(found == "negative")
        return self._risen(since, at) if since else None

    def _risen(self, since: int, at: float) -> Rise:
        stretch = list(self._latest)[-since:]
        about = Counter(topic for is_negative, topic in stretch if is_negative).most_common(1)
        share = sum(is_negative for is_negative, _ in stretch) / len(stretch)
        rise = Rise(at, self.texts, since, round(share, 4), about[0][0] if about else "")
        self.rises.append(rise)
        return rise
