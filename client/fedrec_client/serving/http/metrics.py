"""The service's metrics in Prometheus' text format. Labels are of closed sets: no ids, no paths, no names of shops."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, Summary
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from fedrec import __version__
from fedrec.sentiment.monitor import Sentiment
from fedrec_client.serving.http.problems import Family
from fedrec_client.serving.records import Source

PREFIX = "fedrec_serving_"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_MOST_MODELS = 20


@dataclass(frozen=True)
class EngineFigures:
    """What the live engine says of itself; None for what it does not know. Counts, public to the partner's own people.

    Attributes:
        users_cached: whose key-value cache is held.
        queue_length: questions that wait for a pass of the model.
        adapter_round: of the adapter that answers.
        index_items: in the index.
        epsilon_remaining: of the budget.
        review_waiting: cases that wait for a person.
        review_oldest_seconds: how long the oldest of them has waited; 0 where none does.
        sentiment_negative_share: of the latest window of texts that is full; of several tenants the highest.
    """

    users_cached: int | None = None
    queue_length: int | None = None
    adapter_round: int | None = None
    index_items: int | None = None
    epsilon_remaining: float | None = None
    review_waiting: int | None = None
    review_oldest_seconds: float | None = None
    sentiment_negative_share: float | None = None


_FIGURES = {
    "users_cached": "Users whose state the engine holds.",
    "queue_length": "Questions that wait for the model.",
    "adapter_round": "Round of the adapter that answers.",
    "index_items": "Items that the engine can find.",
    "epsilon_remaining": "What is left of the privacy budget.",
    "review_waiting": "Flagged items and rules that wait for a person.",
    "review_oldest_seconds": "How long the oldest of them has waited.",
    "sentiment_negative_share": "Negative texts in the latest full window, 0 to 1.",
}


class Observer(Protocol):
    """Told of what is counted, as it is counted; must be quick."""

    def note_answer(self, route: str, status: int, seconds: float) -> None:
        """An answer went out."""

    def note_events(self, n: int) -> None:
        """Events were stored."""


class ServingMetrics:
    """Counts in a registry of its own.

    Args:
        engine_figures: asked at each scrape; None while there is no engine.
    """

    def __init__(self, engine_figures: Callable[[], EngineFigures | None]) -> None:
        self._registry = registry = CollectorRegistry(auto_describe=False)
        self._requests = _counter(registry, "requests", "Answers.", ("api", "route", "method", "status"))
        words = "Time in the service."
        names = ("api", "route")
        self._seconds = Histogram(PREFIX + "request_seconds", words, names, registry=registry, buckets=_SECONDS)
        self._under_way = Gauge(PREFIX + "requests_under_way", "Requests that have no answer yet.", registry=registry)
        self._refused = _counter(registry, "refused", "Requests that no route saw, by the problem's name.", ("reason",))
        self._lists = _counter(registry, "recommendations", "Lists served.", ("api",))
        self._items = _counter(registry, "recommended_items", "Items in them, by what put them there.", ("source",))
        self._events = _counter(registry, "events", "Events accepted.", ("api",))
        self._texts = _counter(
            registry, "sentiment_texts", "Texts that were judged, once their window is full.", ("sentiment",)
        )
        self._rises = _counter(registry, "sentiment_rises", "Alarms of a rise of the negative share.", ())
        self._metarank = _Metarank(registry)
        registry.register(_EngineCollector(engine_figures))
        ProcessCollector(namespace=PREFIX.rstrip("_"), registry=registry)
        self._children: dict[tuple[str, str, str, int], tuple[Counter, Histogram]] = {}
        self._observers: list[Observer] = []

    def observe(self, api: Family, route: str, method: str, status: int, seconds: float) -> None:
        """Count an answer. `route` is a template, `method` one of HTTP's."""
        key = (api, route, method, status)
        children = self._children.get(key)
        if children is None:
            children = (self._requests.labels(api, route, method, str(status)), self._seconds.labels(api, route))
            self._children[key] = children
        children[0].inc()
        children[1].observe(seconds)
        for observer in self._observers:
            observer.note_answer(route, status, seconds)

    def refuse(self, reason: str) -> None:
        """Count a request that was not let in."""
        self._refused.labels(reason).inc()

    def count_list(self, api: Family, sources: Iterable[Source]) -> None:
        """Count a list that was served, and where its items came from."""
        self._lists.labels(api).inc()
        for source in sources:
            self._items.labels(source).inc()

    def count_events(self, api: Family, n: int) -> None:
        """Count events that were stored."""
        self._events.labels(api).inc(n)
        for observer in self._observers:
            observer.note_events(n)
        if api == "metarank":
            self._metarank.events.inc(n)

    def count_texts(self, texts: Mapping[Sentiment, int], rises: int) -> None:
        """Count texts of windows that were filled, and rises.

        Privacy: whoever may read metrics sees sums over a window, not what each text was taken for as it comes; a rise
            counts at once.
        """
        for sentiment, n in texts.items():
            self._texts.labels(sentiment).inc(n)
        self._rises.inc(rises)

    def count_rank(self, model: str, seconds: float) -> None:
        """Count a call of Metarank's `/rank/{model}`; beyond some models they are "other"."""
        self._metarank.count(model, seconds)

    def tell(self, observer: Observer) -> None:
        """Have somebody told of each answer and event from now on."""
        self._observers.append(observer)

    def watch_under_way(self, count: Callable[[], int]) -> None:
        """Ask this at each scrape."""
        self._under_way.set_function(count)

    def exposition(self) -> tuple[bytes, str]:
        """All metrics, and their content type."""
        return generate_latest(self._registry), CONTENT_TYPE_PLAIN_0_0_4


class _Metarank:
    """Under the names that its dashboards know."""

    def __init__(self, registry: CollectorRegistry) -> None:
        words = "Number of /rank requests."
        self._requests = Counter("metarank_rank_requests", words, ("model",), registry=registry)
        self._seconds = Summary("metarank_rank_latency_seconds", "Time of /rank.", ("model",), registry=registry)
        self.events = Counter("metarank_feedback_events", "Number of feedback events received.", registry=registry)
        self._models: set[str] = set()

    def count(self, model: str, seconds: float) -> None:
        if len(self._models) < _MOST_MODELS:
            self._models.add(model)
        model = model if model in self._models else "other"
        self._requests.labels(model).inc()
        self._seconds.labels(model).observe(seconds)


class _EngineCollector(Collector):
    """Figures of the engine, read at each scrape; what cannot be read is left out."""

    def __init__(self, engine_figures: Callable[[], EngineFigures | None]) -> None:
        self._engine_figures = engine_figures

    def collect(self) -> Iterator[Metric]:
        info = GaugeMetricFamily(PREFIX + "build_info", "The version of fedrec.", labels=["version"])
        info.add_metric([__version__], 1)
        yield info
        figures = self._read()
        yield GaugeMetricFamily(PREFIX + "engine_up", "1 while the engine answers.", value=float(figures is not None))
        for name, words in _FIGURES.items():
            value = getattr(figures, name, None)
            if value is not None:
                yield GaugeMetricFamily(PREFIX + name, words, value=float(value))

    def _read(self) -> EngineFigures | None:
        try:
            return self._engine_figures()
        except Exception:  # noqa: BLE001  # a scrape must show the rest, and `engine_up` shows this
            return None


def _counter(registry: CollectorRegistry, name: str, words: str, labels: tuple[str, ...]) -> Counter:
    return Counter(PREFIX + name, words, labels, registry=registry)
