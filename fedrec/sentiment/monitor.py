"""A stream of texts as counts: windows of sentiment and topics, and rises of the negative share. Holds no text."""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

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
    sentiments: Counter[Sentiment] = field(default_factory=Counter)
    of_topic: Counter[str] = field(default_factory=Counter)
    negative_of_topic: Counter[str] = field(default_factory=Counter)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Window":
        """What `to_dict` gave. Raises KeyError, TypeError, ValueError, AttributeError: something else."""
        counts = _counts(values["sentiments"])
        if not set(counts) <= set(get_args(Sentiment)):
            raise ValueError("no sentiment")
        sentiments: Counter[Sentiment] = Counter({name: counts[name] for name in get_args(Sentiment) if name in counts})
        window = cls(float(values["began"]), float(values["ended"]), sentiments)
        window.of_topic = _counts({name: of["texts"] for name, of in values["topics"].items()})
        window.negative_of_topic = _counts({name: of["negative"] for name, of in values["topics"].items()})
        return window

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

    def __str__(self) -> str:
        about = f", most about {self.topic}" if self.topic else ""
        return f"the negative share is {self.share:.0%} in the last {self.texts} texts{about}"


class Monitor:
    """Takes texts as numbers: how likely negative, and about what. Of a text nothing else is kept.

    Args:
        threshold: of the evidence; None: simulated, which takes a moment.
    Attributes:
        watch: evidence for a rise so far.
        windows, rises: the latest, oldest first.
        texts: since the beginning.
        in_full: by sentiment, of the windows that were filled since this was made.
    """

    def __init__(self, settings: MonitorSettings, threshold: float | None = None) -> None:
        self.settings = settings
        self.watch = RiseWatch(settings.rise, threshold_for(settings.rise) if threshold is None else threshold)
        self._negative: Counter[str] = Counter()  # by topic, of the texts since there has been evidence
        self.windows: deque[Window] = deque(maxlen=_KEPT_WINDOWS)
        self.rises: deque[Rise] = deque(maxlen=_KEPT_RISES)
        self.texts = 0
        self.in_full: Counter[Sentiment] = Counter()
        self._is_broken = False  # the next text begins a window, since what came before was judged otherwise

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

    def to_dict(self) -> dict[str, Any]:
        """All of it, for JSON: counts and sums."""
        return {
            "texts": self.texts,
            "windows": [window.to_dict() for window in self.windows],
            "rises": [asdict(rise) for rise in self.rises],
            "evidence": self.watch.evidence,
            "since": self.watch.since,
            "negative": dict(self._negative),
        }

    def restore(self, values: Mapping[str, Any], *, goes_on: bool) -> None:
        """Take over what `to_dict` gave; nothing is changed where it raises.

        Args:
            goes_on: whether the evidence counts on; not where settings or head are others than then.
        Raises: KeyError, TypeError, ValueError, AttributeError: something else.
        """
        texts, windows = int(values["texts"]), [Window.from_dict(one) for one in values["windows"]]
        rises = [Rise(**one) for one in values["rises"]]
        evidence, since, negative = float(values["evidence"]), int(values["since"]), _counts(values["negative"])
        if not 0 <= evidence < float("inf") or min(texts, since) < 0:
            raise ValueError("counts below zero")
        self.texts = texts
        self.windows.extend(windows)
        self.rises.extend(rises)
        if goes_on:
            self.watch.evidence, self.watch.since, self._negative = evidence, since, negative
        self._is_broken = not goes_on

    def _one(self, negative: float, topic: str, at: float) -> Rise | None:
        found = self.sentiment(negative)
        if not self.windows or self._is_broken or self.windows[-1].texts >= self.settings.window_texts:
            self.windows.append(Window(at, at))
            self._is_broken = False
        window = self.windows[-1]
        window.ended = at
        window.sentiments[found] += 1
        window.of_topic[topic] += 1
        window.negative_of_topic[topic] += found == "negative"
        if window.texts == self.settings.window_texts:
            self.in_full += window.sentiments
        self.texts += 1
        if found == "negative":
            self._negative[topic] += 1
        since = self.watch.take(found == "negative")
        rise = self._risen(since, at) if since else None
        if self.watch.evidence == 0:
            self._negative.clear()
        return rise

    def _risen(self, since: int, at: float) -> Rise:
        about = self._negative.most_common(1)
        share = self._negative.total() / since
        rise = Rise(at, self.texts, since, round(share, 4), about[0][0] if about else "")
        self.rises.append(rise)
        return rise


def _counts(values: Mapping[str, Any]) -> Counter[str]:
    """Raises ValueError: one that is no count."""
    if not all(isinstance(name, str) and type(n) is int and n >= 0 for name, n in values.items()):
        raise ValueError("no counts")
    return Counter(dict(values))
