"""A run's ladder as Markdown, for simulations/LEADERBOARD.md: no figure there is typed by hand."""

from fedrec.data.splits import CUT_BY_ALL
from fedrec_sim.figures import in_bytes, in_epsilon, in_time, with_spread
from fedrec_sim.run import Json

_COLUMNS = ("row", "HR@10", "NDCG@10", "coverage@10", "epsilon", "sent per partner", "time per seed")


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
    facts = [
        f"protocol {summary['protocol']} ({summary['which']}), {data['name']}, seeds {summary['seeds']}, {spread}",
        f"privacy: unit {privacy['unit']}, mode {privacy['mode']}, delta {privacy['delta']}; "
        f"{privacy['assumption']}{against}",
        f"{in_time(summary['seconds'])} in all, {beside}",
        f"commit {summary['commit']}, started {summary['created_at']}, `{summary['command']}`",
    ]
    return "\n".join([*lines, "", *(f"- {fact}" for fact in facts), ""])
