"""The table of docs/requests.md that tells what partners' requests add."""

from fedrec_sim.run import Json

_NAMES = {
    "public": "public reader",
    "plain": "corrected, no privacy",
    "epsilon 8": "corrected, epsilon 8",
    "encoder": "sentence encoder (MiniLM), cosine",
    "bm25": "BM25 on title, year and categories",
}
_COLUMNS = ("reader", "precision@10", "NDCG@10, request alone", "with history", "published", "known words", "new words")


def table(found: Json) -> str:
    """Markdown, of what `fedrec bench requests-learned` wrote."""
    lines = [f"| {' | '.join(_COLUMNS)} |", f"|{' --- |' * len(_COLUMNS)}"]
    for key, name in _NAMES.items():
        row = found["rows"][key]
        figures = ("precision_at_10", "request_ndcg_at_10", "personal_ndcg_at_10")
        cells = [row[figure] for figure in figures if figure in row]
        cells += [row["published"][words] for words in ("all", "seen", "new")] if "published" in row else []
        told = [_told(cell["mean"], cell["std"]) for cell in cells] + ["-"] * (6 - len(cells))
        lines.append(f"| {name} | {' | '.join(told)} |")
    return "\n".join(lines)


def _told(mean: float, std: float) -> str:
    return f"{mean:.3f}".lstrip("0") + (" ± " + f"{std:.3f}".lstrip("0") if std else "")
