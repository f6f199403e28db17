"""A node's metrics in Prometheus' text format, and whether it is ready. docs/operations.md lists them."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from fedrec import __version__
from fedrec.privacy.ledger_view import BudgetView
from fedrec_client.figures import NodeFigures, WorkerFigures

PREFIX = "fedrec_client_"


def exposition(figures: NodeFigures) -> tuple[bytes, str]:
    """All metrics, and their content type.

    Privacy: nothing of users or rows, not even how many; see figures.py.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(NodeCollector(figures))
    return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4


def readiness(figures: NodeFigures) -> dict[str, Any]:
    """Whether the node can answer a round, by named checks; one that is paused can, once its people let it."""
    checks = {
        "worker": figures.worker is not None,
        "supernode": figures.is_supernode_up,
        "coordinator": figures.is_heard,
        "ledger": figures.budget is not None,
    }
    return {"is_ready": all(checks.values()), "checks": checks}


class NodeCollector(Collector):
    """Figures as metric families; what is not known is left out."""

    def __init__(self, figures: NodeFigures) -> None:
        self._figures = figures

    def collect(self) -> Iterable[Metric]:
        """Every family."""
        figures = self._figures
        labels = {"partner": figures.partner, "federation": figures.federation, "mode": figures.mode}
        yield _info("info", "Who this node is, and what it trains.", labels)
        yield _info("build_info", "The version of fedrec.", {"version": __version__})
        yield from _processes(figures)
        yield from _rounds(figures)
        if figures.worker:
            yield from _answers(figures.worker)
        if figures.budget:
            yield from _budget(figures.budget)


def _processes(figures: NodeFigures) -> Iterator[Metric]:
    yield _gauge("worker_up", "1 while the worker answers.", float(figures.worker is not None))
    yield _gauge("supernode_up", "1 while Flower's SuperNode runs.", float(figures.is_supernode_up))
    yield _gauge("paused", "1 while rounds are refused by `flower-client pause`.", float(figures.is_paused))
    yield _gauge("disk_free_bytes", "Free on the disk that holds the folder.", figures.disk_free_bytes)
    if figures.heard_at_s is not None:
        words = "When the coordinator last answered."
        yield _gauge("coordinator_heard_timestamp_seconds", words, figures.heard_at_s)


def _rounds(figures: NodeFigures) -> Iterator[Metric]:
    generation, number, attempt = figures.place
    yield _gauge("asked_generation", "Generation of the round that was asked last.", generation)
    yield _gauge("asked_round", "The round that was asked last; 0 before the first.", number)
    yield _gauge("asked_attempt", "Its attempt.", attempt)
    if figures.adapter_round is not None:
        yield _gauge("adapter_round", "Round of the adapter that is held.", figures.adapter_round)
    if figures.adapter_since_s is not None:
        yield _gauge("adapter_fetched_timestamp_seconds", "When that adapter came.", figures.adapter_since_s)


def _answers(worker: WorkerFigures) -> Iterator[Metric]:
    words = "Rounds answered since the worker's process began."
    yield CounterMetricFamily(PREFIX + "answered_rounds", words, value=worker.answered)
    words = "Rounds not answered since then, by class of error (docs/errors.md)."
    lost = CounterMetricFamily(PREFIX + "lost_rounds", words, labels=["error"])
    for name, count in worker.lost.items():
        lost.add_metric([name], count)
    yield lost


def _budget(budget: BudgetView) -> Iterator[Metric]:
    yield _gauge("budget_epsilon", "The budget of this partner's data.", budget.epsilon_total)
    yield _gauge("budget_spent_epsilon", "What was charged, released or not.", budget.epsilon_spent)
    yield _gauge("budget_remaining_epsilon", "What is left.", budget.epsilon_remaining)
    yield _gauge("budget_delta", "Delta at which these epsilons hold.", budget.delta)
    yield _gauge("ledger_records", "Records in the ledger.", budget.records)


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, words, value=value)


def _info(name: str, words: str, labels: Mapping[str, str]) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, words, labels=list(labels))
    family.add_metric(list(labels.values()), 1)
    return family
