"""A run as one HTML page that needs nothing else: no network, no script, plots inside."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fedrec.rows import handed_on_row, row_mode
from fedrec_sim.figures import count_partners, in_bytes, in_epsilon, in_time, with_spread
from fedrec_sim.plots import COLOURS
from fedrec_sim.report_plots import make_plots, reading_notes
from fedrec_sim.run import Json, read_events, read_summary, write_bytes
from fedrec_sim.scenarios.words import METRIC_WORDS, in_figures, metrics_of, rule_words

ROW_WORDS = {
    "popularity": "everybody is offered what is popular",
    "item_knn": "items that the same users took up; needs all data in one place",
    "ease": "a linear model of which items go together; needs all data in one place",
    "ials": "weighted matrix factorisation; needs all data in one place",
    "bpr": "matrix factorisation trained on pairs of items; needs all data in one place",
    "sasrec": "self-attention over the order of items; needs all data in one place",
    "fedmf": "matrix factorisation, each user a client, without differential privacy",
    "pfedrec": "each user a client with a score function of its own, without differential privacy",
    "local_only": "each partner trains alone and shares nothing",
    "federated": "partners train together, without differential privacy",
    "federated_dp": "partners train together; the sum of their answers is differentially private",
    "federated_dp_inspect": "partners train together; each single answer is differentially private",
    "centralised": "all data in one place, without differential privacy",
}
PROTOCOL_WORDS = {
    "A": "random 8:1:1 per user; every item that the user has not seen is ranked",
    "B": "leave-one-out by time: a user's last interaction is the test, the one before it validation; every "
    "item that the user has not seen is ranked",
    "D": "random 75:25 by item, a tenth of the 75 for validation; every item that the user has not seen is ranked",
    "split721": "7:2:1 by time per user; every item that the user has not seen is ranked",
    "global-time": "two moments for all users, at 80% and 90% of the rows; every item that the user has not seen is "
    "ranked, also for users of whom nothing is known yet",
}
_METRICS = ("hr", "ndcg", "mrr", "recall", "precision", "coverage", "novelty")
_MAX_REFUSALS = 50


def row_words(row: str) -> str:
    """What a row is, in a line."""
    mode = row_mode(row)
    return ROW_WORDS.get(row) or ROW_WORDS["federated_dp_inspect" if mode == "inspect" else "federated_dp"]


def write_report(run_folder: Path) -> Path:
    """Write `report.html` of a finished run; readers see the old page or the new one.

    Args:
        run_folder: with `summary.json` and, if a row was federated, `events.jsonl`.
    Returns: the page's path.
    Raises:
        RunError: the summary is missing, damaged, incomplete or of another format.
        StorageError: no space or no permission.
    Privacy: the page shows what three users of the data took up: it is as private as the data themselves.
    """
    summary = read_summary(run_folder)
    events, damaged = read_events(run_folder / "events.jsonl")
    path = run_folder / "report.html"
    write_bytes(path, render_report(summary, events, damaged).encode())
    return path


def render_report(summary: Json, events: Sequence[Json], damaged: int = 0) -> str:
    """The page as text; `damaged` counts the lines of events.jsonl that could not be read."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"in_bytes": in_bytes, "in_time": in_time, "in_epsilon": in_epsilon, "exp": _exp}
    environment.filters |= {"in_figures": in_figures, "rule_words": rule_words}
    committed = _committed(events)
    refusals = [event for event in events if event["event"] == "partner_refused"]
    return environment.get_template("report.html.j2").render(
        summary=summary,
        headline=_headline(summary),
        partners=summary.get("partners") or max((event["partners"] for event in committed), default=None),
        plots=make_plots(summary, committed),
        notes=reading_notes(summary, committed),
        by_round=_first_seed(summary, committed),
        refusals=refusals[:_MAX_REFUSALS],
        n_refusals=len(refusals),
        repeated=sum(event["event"] == "round_failed" for event in events),
        damaged=damaged,
        metrics=_metrics(summary),
        parameters=list(_flat(summary["model"].get("parameters_trained"))),
        row_words={row: row_words(row) for row in summary["rows"]},
        protocol_words=PROTOCOL_WORDS,
        scenario_metrics=metrics_of(summary["scenario"]) if "scenario" in summary else [],
        metric_words=METRIC_WORDS,
        colours=COLOURS,
        spread=lambda row, metric: with_spread(row[metric], row.get(f"{metric}_std", 0.0), row["seeds"]),
    )


def _committed(events: Sequence[Json]) -> list[Json]:
    """One event a committed round, the latest if a resumed run told it again; partners as a number."""
    found = {}
    for event in events:
        if event["event"] == "round_committed":
            count = count_partners(event["partners"])
            found[event["row"], event["seed"], event["round"]] = {**event, "partners": count}
    return [found[key] for key in sorted(found)]


def _first_seed(summary: Json, committed: Sequence[Json]) -> dict[str, list[Json]]:
    """Committed rounds of each federated row, with the first seed."""
    seed = summary["seeds"][0]
    found = {row: [e for e in committed if e["row"] == row and e["seed"] == seed] for row in summary["rows"]}
    return {row: rounds for row, rounds in found.items() if rounds}


def _headline(summary: Json) -> str:
    """The row whose adapter the run hands on; without one, the best."""
    rows = summary["rows"]
    handed_on = handed_on_row(summary["rows"]) or ""
    return handed_on if handed_on in rows else max(rows, key=lambda row: float(rows[row]["hr@10"]))


def _metrics(summary: Json) -> list[str]:
    """Every metric that all rows have, hr, ndcg and mrr first, each by k."""

    def order(metric: str) -> tuple[int, int]:
        name, _, k = metric.partition("@")
        return _METRICS.index(name), int(k)

    shared = set.intersection(*(set(row) for row in summary["rows"].values()))
    names = (key for key in shared if key.partition("@")[0] in _METRICS and key.partition("@")[2].isdigit())
    return sorted(names, key=order)


def _flat(value: object, label: str = "") -> Iterator[tuple[str, object]]:
    """Counts of trained parameters, however nested, each with its label."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{label} {key}".strip())
    elif value is not None:
        yield label, value


def _exp(epsilon: float) -> str:
    """e to the epsilon for people, as a power of ten where digits would tell nothing."""
    if epsilon > 14:
        return f"10^{epsilon / math.log(10):.0f}"
    return f"{math.exp(epsilon):,.0f}" if epsilon > 4 else f"{math.exp(epsilon):.3g}"
