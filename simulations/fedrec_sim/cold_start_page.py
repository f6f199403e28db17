"""A cold start as JSON and as its section of LEADERBOARD.md."""

from collections.abc import Callable
from pathlib import Path

from fedrec_sim.figures import in_time, with_spread
from fedrec_sim.leaderboard import put_section
from fedrec_sim.run import Json, write_json

RESULT = "cold_start.json"  # in the folder of the run
_SECTION = "cold-start"
_ITEMS = {"known_items": "known items", "new_items": "new items", "among_new_items": "among new items"}


def publish_cold_start(summary: Json, folder: Path) -> tuple[Path, Path]:
    """Write `cold-start.json` and the section of LEADERBOARD.md. Returns: the JSON's path and the page's.

    Raises: StorageError: the disk refuses.
    """
    figures = folder / f"{_SECTION}.json"
    write_json(figures, summary)
    return figures, put_section(folder, _SECTION, cold_start_section(summary))


def cold_start_section(summary: Json) -> str:
    """Both tables, and beneath them all that is needed to repeat them."""
    settings, n_seeds = summary["config"]["cold_start"], len(summary["seeds"])
    shots = sorted(settings["shots"])
    users = {"known_users": "known users", "new_users": "new users"}
    users |= {f"new_users_unseen@{k}": f"new, the last {k}" for k in shots}
    asked = summary["new_items"]["chance"]["new_items"]["users"], summary["new_users"]["chance"]["new_users"]["users"]
    facts = [
        f"protocol {summary['protocol']} ({summary['which']}), {summary['data']['name']}, seeds {summary['seeds']}, "
        f"{'mean ± standard deviation over seeds' if n_seeds > 1 else 'one seed, so no spread is known'}",
        f"items: {settings['items_share']:.0%} of them withheld from training and catalogue; {_between(asked[0])} "
        "users asked for the last one that they turned to, among all items or among the new ones; new items join with "
        f"new_item_boost {settings['new_item_boost']}",
        f"users: {settings['users_share']:.0%} of them withheld; {_between(asked[1])} asked for their last item after "
        "all before it or after the last few; what they had before is no candidate. In brackets: share of the row's "
        "own figure for known users",
        f"{in_time(summary['seconds'])} in all; commit {summary['commit']}, started {summary['created_at']}, "
        f"`{summary['command']}`",
    ]

    def spread_of(one: Json, figure: str) -> str:
        return with_spread(one[figure], one[f"{figure}_std"], n_seeds)

    def with_share(one: Json, asked: Json) -> str:
        whole = asked["known_users"]["ndcg@10"]
        share = f" ({one['ndcg@10'] / whole:.0%})" if whole and one is not asked["known_users"] else ""
        return spread_of(one, "ndcg@10") + share

    parts = [
        "Items that training never met (HR@10):\n",
        *_table(summary["new_items"], _ITEMS, lambda one, _: spread_of(one, "hr@10")),
        "\nUsers that training never met (NDCG@10):\n",
        *_table(summary["new_users"], users, with_share),
        "",
        *(f"- {fact}" for fact in facts),
        "",
    ]
    return "\n".join(parts)


def _table(rows: Json, columns: dict[str, str], cell: Callable[[Json, Json], str]) -> list[str]:
    lines = [" | ".join(("| row", *columns.values(), "")).strip(), "| --- " * (len(columns) + 1) + "|"]
    for name, asked in rows.items():
        cells = (cell(asked[key], asked) for key in columns)
        lines.append(" | ".join((f"| {name}", *cells, "")).strip())
    return lines


def _between(counts: list[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"
