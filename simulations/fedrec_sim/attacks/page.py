"""The laboratory's table as JSON and as its section of docs/robustness.md: no figure there is typed by hand."""

from collections.abc import Callable
from pathlib import Path

from fedrec.errors import ConfigError
from fedrec.files import read_file
from fedrec_sim.figures import in_epsilon, in_time, with_spread
from fedrec_sim.run import Json, write_bytes, write_json

PAGE = "robustness.md"


def publish_robustness(summary: Json, folder: Path) -> tuple[Path, Path]:
    """Write `NAME.json`, and the table between its marks in `robustness.md`. Returns: both paths.

    Raises: ConfigError: the page has no marks for this table. StorageError: the disk refuses.
    """
    page = folder / PAGE
    begin, end = (f"<!-- {summary['name']}: {word} -->" for word in ("begin", "end"))
    before, found, rest = read_file(page).decode().partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ConfigError(f"{page}: no place for {summary['name']}", f"write {begin} and {end} where it shall stand")
    figures = folder / f"{summary['name']}.json"
    write_json(figures, summary)
    write_bytes(page, f"{before}{begin}\n{section(summary)}\n{end}{after}".encode())
    return figures, page


def section(summary: Json) -> str:
    """Quality, then exposure, and beneath them all that is needed to repeat them."""
    seeds, name = len(summary["seeds"]), summary["name"]
    attack = summary["config"]["attack"]
    facts = [
        f"row `{summary['row']}`, {_privacy(summary)}, {summary['rounds']} rounds; {summary['partners']} partners, of "
        f"whom {summary['hostile']} are hostile, and each aggregator is told so; quorum {summary['quorum']}",
        f"protocol {summary['protocol']} ({summary['which']}), full ranking, {summary['data']['name']}, seeds "
        f"{summary['seeds']}, {'mean ± standard deviation' if seeds > 1 else 'one seed, so no spread is known'}",
        f"NDCG@10 of the first adapter, before anybody trained: {summary['untrained_ndcg@10']:.4f}",
        f"strengths: {', '.join(f'{key} {value:g}' for key, value in sorted(attack['strength'].items()))}; "
        f"promoted item: {attack['promoted']}",
        f"on validation one would choose `{summary['chosen_on_validation']}`: of those whose worst attack leaves 90% "
        "of the best unattacked NDCG@10, the one with the least exposure (if none does, the one that leaves most)",
        f"{in_time(summary['seconds'])} in all; commit {summary['commit']}, started {summary['created_at']}, "
        f"`{summary['command']}`; all figures in [{name}.json]({name}.json)",
    ]
    lines = [
        "NDCG@10 by aggregator; in brackets the share kept of the same aggregator's without attack, and of the "
        "mean's without attack:\n",
        *_rows(summary, lambda cell: _quality(cell, seeds)),
        "\nExposure, the share of users in whose top ten the promoted item stands:\n",
        *_rows(summary, lambda cell: f"{cell['exposure']:.1%}"),
        "",
        *(f"- {fact}" for fact in facts),
    ]
    return "\n".join(lines)


def _rows(summary: Json, shown: Callable[[Json], str]) -> list[str]:
    """In the order of the configuration, since JSON keeps none."""
    attack = summary["config"]["attack"]
    attacks, defences = dict.fromkeys(("none", *attack["attacks"])), attack["defences"]
    lines = [" | ".join(("| attack", *(f"`{name}`" for name in defences), "")).strip()]
    lines.append("| --- " * (len(defences) + 1) + "|")
    for name in attacks:
        row = summary["cells"][name]
        lines.append(" | ".join((f"| `{name}`", *(shown(row[defence]) for defence in defences), "")).strip())
    return lines


def _privacy(summary: Json) -> str:
    return f"epsilon {in_epsilon(summary['epsilon'])}" if summary["epsilon"] is not None else "without privacy"


def _quality(cell: Json, seeds: int) -> str:
    shares = f"{cell['kept']:.0%}, {cell['kept_of_mean']:.0%}" if cell["kept_of_mean"] else f"{cell['kept']:.0%}"
    return f"{with_spread(cell['ndcg@10'], cell['ndcg@10_std'], seeds)} ({shares})"
