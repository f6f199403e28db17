"""Runs that differ in how many users take part, side by side: table, plot and JSON."""

from collections.abc import Sequence
from pathlib import Path

from fedrec.errors import ConfigError
from fedrec_sim.figures import in_epsilon, with_spread
from fedrec_sim.leaderboard import put_section
from fedrec_sim.plots import Line, plot_over, standalone
from fedrec_sim.run import Json, write_bytes, write_json

_COLUMNS = ("users", "data", "row", "HR@10", "NDCG@10", "epsilon")
_KEPT = ("hr@10", "hr@10_std", "ndcg@10", "ndcg@10_std", "epsilon", "seeds", "per_seed", "chosen_on_validation")
_SAME = ("protocol", "which")


def by_users(summaries: Sequence[Json]) -> Json:
    """The figures of every run and row, fewest users first, with what is needed to repeat each.

    Raises: ConfigError: runs of different protocols, or of the same data and number of users.
    """
    different = [key for key in _SAME if len({summary[key] for summary in summaries}) > 1]
    if different:
        raise ConfigError(f"the runs differ in {' and '.join(different)}", "compare runs of one protocol")
    sizes = sorted(summaries, key=lambda summary: (summary["data"]["generated"] is not None, summary["data"]["users"]))
    places = [(summary["data"]["generated"], summary["data"]["users"]) for summary in sizes]
    if len(set(places)) < len(places):
        raise ConfigError("two of the runs have as many users of the same data", "name each number of users once")
    return {
        **{key: sizes[0][key] for key in _SAME},
        "sizes": [
            {
                **{key: summary[key] for key in ("command", "commit", "created_at", "partners", "seconds")},
                "seeds": summary["seeds"],
                "users": summary["data"]["users"],
                "data": summary["data"]["name"],
                "generated": summary["data"]["generated"],
                "rows": {name: {key: row[key] for key in _KEPT} for name, row in summary["rows"].items()},
            }
            for summary in sizes
        ],
    }


def publish_by_users(summaries: Sequence[Json], folder: Path, name: str) -> tuple[Path, Path]:
    """Write `NAME.json`, `NAME.svg` and the section of LEADERBOARD.md. Returns: the JSON's path and the page's."""
    found = by_users(summaries)
    write_json(folder / f"{name}.json", found)
    svg, caption = _drawn(found, name)
    write_bytes(folder / f"{name}.svg", standalone(svg).encode())
    section = f"{_table(found)}\n![{caption}]({name}.svg)\n"
    return folder / f"{name}.json", put_section(folder, name, section)


def _table(found: Json) -> str:
    lines = [" | ".join(("", *_COLUMNS, "")).strip(), "| --- " * len(_COLUMNS) + "|"]
    for size in found["sizes"]:
        for name, row in size["rows"].items():
            spreads = (with_spread(row[m], row[f"{m}_std"], row["seeds"]) for m in ("hr@10", "ndcg@10"))
            cells = (f"{size['users']:,}", size["data"], name, *spreads, in_epsilon(row["epsilon"]))
            lines.append(" | ".join(("", *cells, "")).strip())
    runs = [
        f"- {s['users']:,} users: commit {s['commit']}, {s['created_at']}, `{s['command']}`" for s in found["sizes"]
    ]
    facts = f"- protocol {found['protocol']} ({found['which']}); generated users measure how noise and users weigh "
    facts += "against each other, not how good a recommender is"
    return "\n".join([*lines, "", facts, *runs, ""])


def _drawn(found: Json, name: str) -> tuple[str, str]:
    """SVG and caption: NDCG@10 over users, real and generated ones apart."""
    points: dict[tuple[str, bool], list[tuple[float, Json]]] = {}
    for size in found["sizes"]:
        for row, figures in size["rows"].items():
            points.setdefault((row, size["generated"] is not None), []).append((size["users"], figures))
    order = list(dict.fromkeys(row for row, _ in points))
    lines = []
    for (row, is_made), values in points.items():
        seeds = [[seed["ndcg@10"] for seed in figures["per_seed"]] for _, figures in values]
        means = [figures["ndcg@10"] for _, figures in values]
        label = f"{row}, generated" if is_made else row
        users = [at for at, _ in values]
        lines.append(Line(label, order.index(row), users, means, list(map(min, seeds)), list(map(max, seeds))))
    told = "; ".join(
        f"{line.name}: " + ", ".join(f"{mean:.4f} with {at:,}" for at, mean in zip(line.at, line.means, strict=True))
        for line in lines
    )
    caption = f"NDCG@10 by number of users, test, protocol {found['protocol']}. {told}."
    return plot_over(lines, [], xlabel="users", name=name, alt=caption), caption
