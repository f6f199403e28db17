"""The figures of `fedrec bench labels` as the tables of docs/labels.md, and the plot of questions."""

import io
from collections.abc import Callable, Sequence

from fedrec_sim.figures import with_spread
from fedrec_sim.run import Json


def text(found: Json) -> str:
    """Every part's table, for the terminal."""
    return "\n".join(TABLES[part](of) for part, of in found.items())


def section(part: str, found: Json) -> str:
    """A part's table as it stands in docs/labels.md."""
    return f"<!-- labels-{part}: begin -->\n{TABLES[part](found)}<!-- labels-{part}: end -->"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def active_table(found: Json) -> str:
    """NDCG@10 after some questions, and the mean difference over all ten."""
    rows = []
    for name, one in found["strategies"].items():
        curve, std = one["ndcg@10"], one["ndcg@10_std"]
        cells = [f"{curve[k]:.4f} ± {std[k]:.4f}" for k in (0, 1, 3, 5, 10)]
        over = [_gain(one[f"over_{other}"]["all"]) if f"over_{other}" in one else "-" for other in _OTHERS]
        rows.append([f"`{name}`", *cells, f"{one['known']:.1f}", *over])
    head = ["way", *(f"after {k}" for k in (0, 1, 3, 5, 10)), "known of 10", "over random", "over popularity"]
    return _table(head, rows)


_OTHERS = ("random", "popularity")


def pseudo_table(found: Json) -> str:
    """Test AUC with and without."""
    rows = []
    for one in found["rows"]:
        others = one.get("others_without_labels")
        cells = [_spread(one["without"]), _spread(others) if others else "-", _spread(one["with"])]
        epsilon = f"{one['epsilon']:g}" if one["epsilon"] else "-"
        rows.append([one["start"], epsilon, str(one["shots"]), *cells, _gain(one["gain"])])
    return _table(["start", "epsilon", "shots", "without", "others, no labels", "with", "gain"], rows)


def _spread(one: Json) -> str:
    return with_spread(one["mean"], one["std"], len(one["seeds"]))


def _gain(one: Json) -> str:
    return f"{one['mean']:+.4f} [{one['low']:+.4f}, {one['high']:+.4f}]"


def alignment_table(found: Json) -> str:
    """HR@10 and NDCG@10 by what stands in for a new item's behaviour."""
    rows = []
    for way, asked in found["ways"].items():
        cells = [_spread(asked[name][figure]) for name in _ASKED for figure in ("hr@10", "ndcg@10")]
        share = found["found_at_10"].get(way)
        rows.append([f"`{way}`", *cells, _spread(share) if share else "-"])
    head = [f"{name}, {figure}" for name in ("among all", "among new items") for figure in ("HR@10", "NDCG@10")]
    return _table(["behaviour of new items", *head, "own one found in 10"], rows)


_ASKED = ("new_items", "among_new_items")


def start_table(found: Json) -> str:
    """NDCG@10 before and after the private rounds."""
    rows = []
    for name, one in found["cells"].items():
        begun, _, public = name.partition("+")
        cells = [_spread(one[when][figure]) for when in ("before", "after") for figure in ("hr@10", "ndcg@10")]
        rows.append([f"`{begun}`", "yes" if public else "no", *cells])
    head = [f"{figure} {when}" for when in ("before", "after") for figure in ("HR@10", "NDCG@10")]
    return _table(["start", "public data", *head], rows)


TABLES: dict[str, Callable[[Json], str]] = {
    "active": active_table,
    "pseudo": pseudo_table,
    "alignment": alignment_table,
    "start": start_table,
}


def active_svg(found: Json) -> str:
    """NDCG@10 against the number of questions."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fedrec", "font.size": 9.0}):
        figure = Figure(figsize=(6.0, 3.6), layout="constrained")
        axes = figure.subplots()
        for place, (name, one) in enumerate(found["strategies"].items()):
            axes.plot(one["ndcg@10"], label=name, marker="os^Dvx"[place], markersize=3.5, linewidth=1.4)
        axes.set_xlabel("questions asked")
        axes.set_ylabel("NDCG@10")
        axes.grid(color="0.9")
        axes.legend(frameon=False, fontsize=8)
        kept = io.StringIO()
        figure.savefig(kept, format="svg", metadata={"Date": None})
    return kept.getvalue()
