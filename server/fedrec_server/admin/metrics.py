"""A coordinator's metrics in Prometheus' text format, read when they are asked for. docs/operations.md lists them."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from fedrec import __version__
from fedrec_server.admin.figures import (
    Figures,
    RegistryFigures,
    StateFigures,
    TrainingFigures,
    read_figures,
)
from fedrec_server.settings import Coordinator
from fedrec_server.supervisor import running_pid

PREFIX = "fedrec_server_"
# Of the statement, against whom: everybody who is handed the adapter, another partner, who opens one answer.
_EPSILONS = {"adapter": "epsilon", "other_partner": "other_partner_epsilon", "one_answer": "partner_alone_epsilon"}


def exposition(coordinator: Coordinator) -> tuple[bytes, str]:
    """All metrics, and their content type.

    What cannot be read is left out, and `fedrec_server_source_readable` says so. It blocks for some milliseconds, as
    the database and the disk do: call it from a thread.

    Privacy: names of partners, public figures of rounds and sizes; nothing of anybody's rows.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(CoordinatorCollector(coordinator))
    if (gateway := _gateway_pid(coordinator)) is not None:
        ProcessCollector(namespace=PREFIX + "gateway", pid=lambda: gateway, registry=registry)
    return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4


class CoordinatorCollector(Collector):
    """Reads a coordinator's state at each scrape; nothing is counted in memory, so that a restart loses nothing."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator

    def collect(self) -> Iterable[Metric]:
        """Every family, with what could be read."""
        figures = read_figures(self._coordinator)
        yield _labelled("build_info", "The version of fedrec.", "version", {__version__: 1})
        yield from _sources(figures)
        if figures.state:
            yield from _rounds(figures.state)
            yield from _partners(figures.state)
        if figures.training:
            yield from _training(figures.training)
        if figures.registry:
            yield from _registry(figures.registry)
        yield from _machine(figures)


def _gateway_pid(coordinator: Coordinator) -> int | None:
    """The process that partners talk to, on Linux: a child of `flower-server start`, whoever is asked for metrics."""
    parent = running_pid(coordinator)
    for listed in Path(f"/proc/{parent}/task").glob("*/children"):
        for child in _read(listed).split():
            if _read(Path(f"/proc/{child.decode()}/cmdline")).split(b"\0")[1:4] == [
                b"-m",
                b"fedrec_server",
                b"gateway",
            ]:
                return int(child)
    return None


def _read(path: Path) -> bytes:
    """Of a process that may end meanwhile."""
    with suppress(OSError):
        return path.read_bytes()
    return b""


def _sources(figures: Figures) -> Iterator[Metric]:
    parts = {
        "database": figures.state,
        "federation": figures.training,
        "registry": figures.registry,
        "certificate": figures.certificate_until_s,
    }
    said = {name: float(part is not None) for name, part in parts.items()}
    yield _labelled("source_readable", "1: it could be read; 0: its metrics are missing.", "source", said)


def _rounds(state: StateFigures) -> Iterator[Metric]:
    yield _gauge("paused", "1 while rounds are paused.", float(state.is_paused))
    yield _gauge("generation", "How often training was rolled back, plus one.", state.generation)
    ended = {name: count for name, count in state.attempts.items() if name != "asked"}
    yield _counter("attempts", "Attempts at rounds that ended, by status.", "status", ended)
    yield _gauge("attempts_unfinished", "Attempts under way, or cut short by a crash.", state.attempts.get("asked", 0))
    sent = {"up": state.bytes_up, "down": state.bytes_down}
    yield _counter("transferred_bytes", "Bytes of committed rounds, up from and down to partners.", "direction", sent)
    if state.last:
        yield _gauge("last_round_duration_seconds", "How long the last committed round took.", state.last.seconds)
        sent = {"up": state.last.bytes_up, "down": state.last.bytes_down}
        yield _labelled("last_round_bytes", "Bytes of the last committed round.", "direction", sent)
    yield _gauge("database_bytes", "Size of the databases, Flower's included.", state.database_bytes)


def _partners(state: StateFigures) -> Iterator[Metric]:
    yield _labelled("partners", "Partners by status.", "status", state.partners_by_status)
    info = GaugeMetricFamily(PREFIX + "partner_info", "1: the partner has this status.", labels=["partner", "status"])
    for one in state.partners:
        info.add_metric([one.name, one.status], 1)
    yield info
    yield _labelled("partner_last_seen_timestamp_seconds", "When it was last heard of.", "partner", _seen(state))
    lost = {one.name: float(one.is_turn_lost) for one in state.partners}
    yield _labelled("partner_turn_lost", "1: its last answer did not count.", "partner", lost)


def _seen(state: StateFigures) -> dict[str, float]:
    """Without those that were never heard of: a time of 0 would look like 50 years."""
    return {one.name: one.last_seen_s for one in state.partners if one.last_seen_s is not None}


def _training(training: TrainingFigures) -> Iterator[Metric]:
    labels = ["federation", "mode"]
    info = GaugeMetricFamily(PREFIX + "federation_info", "What is trained.", labels=labels)
    info.add_metric([training.federation, training.mode], 1)
    yield info
    yield _gauge("rounds_planned", "Rounds of the schedule.", training.rounds)
    told = {whom: training.statement.get(key) for whom, key in _EPSILONS.items()}
    promised = {whom: float(epsilon) for whom, epsilon in told.items() if epsilon is not None}
    yield _labelled("statement_epsilon", "Epsilon of the whole training by its statement.", "against", promised)
    if (delta := training.statement.get("delta")) is not None:
        yield _gauge("statement_delta", "Delta of that epsilon.", float(delta))


def _registry(registry: RegistryFigures) -> Iterator[Metric]:
    yield _gauge("rounds_committed", "The round that counts; a rollback takes it back.", registry.round)
    if registry.committed_at_s is not None:
        yield _gauge("last_commit_timestamp_seconds", "When that round was committed.", registry.committed_at_s)
    yield _gauge("registry_bytes", "Size of all committed versions.", registry.registry_bytes)


def _machine(figures: Figures) -> Iterator[Metric]:
    yield _gauge("disk_bytes", "Size of the disk that holds the folder.", figures.disk_bytes)
    yield _gauge("disk_free_bytes", "Free on that disk.", figures.disk_free_bytes)
    if figures.certificate_until_s is not None:
        words = "When the server certificate ends."
        yield _gauge("certificate_expiry_timestamp_seconds", words, figures.certificate_until_s)
    yield _gauge("driver_up", "1 while the driver's process is there.", float(figures.is_driver_there))
    if figures.beat_at_s is not None:
        yield _gauge("driver_beat_timestamp_seconds", "When the driver's loop last came round.", figures.beat_at_s)


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, words, value=value)


def _labelled(name: str, words: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, words, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _counter(name: str, words: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(PREFIX + name, words, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family
