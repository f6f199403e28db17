"""Figures of scenarios as JSON, and the tables of docs/scenarios.md: no figure there is typed by hand."""

from collections.abc import Mapping
from pathlib import Path

from fedrec.errors import ConfigError
from fedrec.files import read_file
from fedrec_sim.figures import in_epsilon, in_time, with_spread
from fedrec_sim.run import Json, read_json, write_bytes, write_json
from fedrec_sim.scenarios.words import in_figures, metrics_of, rule_words

NAMES = ("ecommerce", "social", "music", "video")
BEGIN, END = "<!-- scenarios: begin -->", "<!-- scenarios: end -->"
_KEPT = ("name", "command", "commit", "created_at", "seeds", "protocol", "seconds", "data", "scenario")
_ROW = ("hr@10", "hr@10_std", "ndcg@10", "ndcg@10_std", "epsilon", "seconds", "seeds")


def figures_of(summary: Json) -> Json:
    """What docs/scenarios.json keeps of a run."""
    rows = {name: {key: row[key] for key in _ROW} for name, row in summary["rows"].items()}
    return {key: summary[key] for key in _KEPT} | {"delta": summary["privacy"]["delta"], "rows": rows}


def publish(summaries: Mapping[str, Json], to: Path) -> None:
    """Write figures, those of other scenarios as they were, and the tables of the page beside them if there is one.

    Args:
        to: a JSON file; `scenarios.md` beside it has the tables.
    Raises: ConfigError: the page has no place for them. StorageError: the disk refuses.
    """
    known = read_json(to) if to.exists() else {}
    found = known | {name: figures_of(summary) for name, summary in summaries.items()}
    page = to.with_suffix(".md")
    text = _with_tables(page, section(found)) if page.exists() else None
    write_json(to, found)
    if text is not None:
        write_bytes(page, text.encode())


def _with_tables(page: Path, tables: str) -> str:
    before, opened, rest = read_file(page).decode().partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not (opened and closed):
        raise ConfigError(f"{page}: no place for figures", f"write {BEGIN} and {END} where they shall stand")
    return f"{before}{BEGIN}\n{tables}\n{END}{after}"


def section(found: Json) -> str:
    """All scenarios: data and time in one table, then each with its figures and rules."""
    names = [name for name in NAMES if name in found]
    heads = ("scenario", "data", "partners' users", "events", "positive pairs", "seeds", "time")
    overview = _table(heads, *(_overview(name, found[name]) for name in names))
    return "\n\n".join([overview, *(_one(name, found[name]) for name in names)])


def _overview(name: str, of: Json) -> tuple[str, ...]:
    told = of["scenario"]
    events = sum(event["count"] for event in told["events"].values())
    sizes = ", ".join(map(str, told["partners"]))
    kind = "**made**" if told["made"] else "real"
    seeds = ", ".join(map(str, of["seeds"]))
    return (
        f"`{name}`",
        f"{kind}: {of['data']['name']}",
        sizes,
        f"{events:,}",
        f"{told['positives']:,}",
        seeds,
        in_time(of["seconds"]),
    )


def _one(name: str, of: Json) -> str:
    told, metrics = of["scenario"], metrics_of(of["scenario"])
    weights = ", ".join(f"{kind} {event['weight']:g}" for kind, event in told["events"].items())
    figures = [("row", "epsilon", "lists", *metrics)]
    for row, own in told["rows"].items():
        for way, said in (("plain", "by score"), ("ruled", "with rules")):
            cells = tuple(_cell(own, way, metric) for metric in metrics)
            figures.append((f"`{row}`", in_epsilon(of["rows"][row]["epsilon"]), said, *cells))
    rules = [("rule", "what it does", *(f"`{row}`" for row in told["rows"]))]
    for rule in told["rules"]:
        acted = (own["rules"][rule["name"]] for own in told["rows"].values())
        cells = tuple(f"{one['lists']:.1%} ({one['places']:.2f})" for one in acted)
        rules.append((rule["name"], f"`{rule_words(rule).replace('|', chr(92) + '|')}`", *cells))
    people, sample = (int(next(iter(told["rows"].values()))[key]) for key in ("people", "sample"))
    harness = ", ".join(
        f"`{row}` {with_spread(own['hr@10'], own['hr@10_std'], own['seeds'])} / "
        f"{with_spread(own['ndcg@10'], own['ndcg@10_std'], own['seeds'])}"
        for row, own in of["rows"].items()
    )
    return "\n\n".join(
        [
            f"### {name}",
            f"{told['told']}",
            f"Weights: {weights}; positive from {told['positive_from']:g}. {people:,} users have something to find.",
            _table(*figures),
            f"Rules, on the lists of {sample:,} users: lists that would be another without the rule, and in brackets "
            "places a list.",
            _table(*rules),
            f"In the harness of all rows (ties drawn by the seed), HR@10 / NDCG@10: {harness}. Delta {of['delta']:g}; "
            f"commit {of['commit']}, `{of['command']}`.",
        ]
    )


def _cell(own: Json, way: str, metric: str) -> str:
    spread = f" ± {in_figures(own[way][metric + '_se'], metric)}" if f"{metric}_se" in own[way] else ""
    return in_figures(own[way][metric], metric) + spread


def _table(*rows: tuple[str, ...]) -> str:
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, f"|{' --- |' * len(rows[0])}", *body])
