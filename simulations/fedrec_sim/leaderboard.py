"""A run's ladder as Markdown and JSON, for simulations/LEADERBOARD.md: no figure there is typed by hand."""

import re
from pathlib import Path

from fedrec.data.splits import CUT_BY_ALL
from fedrec_sim.figures import in_bytes, in_epsilon, in_time, with_spread
from fedrec_sim.plots import standalone
from fedrec_sim.report_plots import quality_by_epsilon
from fedrec_sim.run import Json, write_bytes, write_json

PAGE = "LEADERBOARD.md"
# What a person reads in the report, and long curves.
_NOT_PUBLISHED = ("recommendations", "popularity_curve")
_COLUMNS = ("row", "HR@10", "NDCG@10", "coverage@10", "epsilon", "sent per partner", "time per seed")


def publish(summary: Json, folder: Path) -> tuple[Path, Path]:
    """Write `NAME.json`, and put the run's section into `LEADERBOARD.md` in the place of its older one, or at the end.

    A run with several epsilons of a mode also gets a plot of quality against them, `NAME-epsilon.svg`.

    Returns: both paths. Raises: StorageError: the disk refuses.
    """
    figures = folder / f"{summary['name']}.json"
    write_json(figures, {key: value for key, value in summary.items() if key not in _NOT_PUBLISHED})
    section = leaderboard(summary)
    for plot in quality_by_epsilon(summary):
        drawn = folder / f"{summary['name']}-epsilon.svg"
        write_bytes(drawn, standalone(str(plot.svg)).encode())
        section += f"\n![{plot.title}. {plot.caption}]({drawn.name})\n"
    return figures, put_section(folder, summary["name"], section)


def put_section(folder: Path, name: str, section: str) -> Path:
    """Write a section of the leaderboard's page in the place of the older one of that name, or at the end."""
    page, heading = folder / PAGE, f"## {name}\n"
    text = page.read_text(encoding="utf-8") if page.is_file() else "# Leaderboard\n"
    older = re.compile(rf"^{re.escape(heading)}.*?(?=^## |\Z)", flags=re.M | re.S)
    text, found = older.subn(lambda _: f"{heading}\n{section}\n", text, count=1)
    whole = text if found else f"{text.rstrip()}\n\n{heading}\n{section}"
    write_bytes(page, (whole.rstrip() + "\n").encode())
    return page


def leaderboard(summary: Json) -> str:
    """One table, and beneath it all that is needed to repeat it."""
    lines = [" | ".join(("", *_COLUMNS, "")).strip(), "| --- " * len(_COLUMNS) + "|"]
    for name, row in sorted(summary["rows"].items(), key=lambda item: -item[1]["ndcg@10"]):
        cells = (
            name,
            with_spread(row["hr@10"], row["hr@10_std"], row["seeds"]),
            with_spread(row["ndcg@10"], row["ndcg@10_std"], row["seeds"]),
            f"{row['coverage@10']:.3f}",
            in_epsilon(row["epsilon"]),
            "-" if row["bytes_up_per_partner"] is None else in_bytes(row["bytes_up_per_partner"]),
            in_time(row["seconds"]),
        )
        lines.append(" | ".join(("", *cells, "")).strip())
    privacy, data = summary["privacy"], summary["data"]
    spread = "mean ± standard deviation over seeds" if len(summary["seeds"]) > 1 else "one seed, so no spread is known"
    jobs, threads = summary["config"]["jobs"], summary["config"]["model"]["threads"]
    beside = f"{jobs} rows at a time, {threads} thread(s) each" if jobs > 1 else "rows one after the other"
    other = privacy.get("other_partner_epsilon")
    against = "" if other is None or privacy["mode"] != "secagg" else f" other_partner_epsilon is {in_epsilon(other)}."
    if cold := max(max(row.get("cold_users", [0])) for row in summary["rows"].values()):
        spread += f"; up to {cold} of the users asked were cold: nothing was known of them"
    if summary["protocol"] in CUT_BY_ALL and privacy["epsilon"] is not None:
        against += f" Protocol {summary['protocol']} cuts a user's items by what others have, which no epsilon covers."
    public = summary["config"]["model"].get("public_data", "none")
    if public != "none" and privacy["epsilon"] is not None:
        against += f" Private rows start from public data, {public}; the others read the partners' data alone."
    facts = [
        f"protocol {summary['protocol']} ({summary['which']}), {data['name']}, seeds {summary['seeds']}, {spread}",
        f"privacy: unit {privacy['unit']}, mode {privacy['mode']}, delta {privacy['delta']}; "
        f"{privacy['assumption']}{against}",
        f"{in_time(summary['seconds'])} in all, {beside}",
        f"commit {summary['commit']}, started {summary['created_at']}, `{summary['command']}`",
    ]
    return "\n".join([*lines, "", *(f"- {fact}" for fact in facts), ""])
