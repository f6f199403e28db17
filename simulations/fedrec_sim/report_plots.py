"""From a run's summary and committed rounds to plots with captions that say what is to be seen."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from markupsafe import Markup

from fedrec.rows import asked_epsilon, row_mode
from fedrec_sim.figures import in_bytes
from fedrec_sim.plots import Bar, Line, plot_ladder, plot_over, plot_popularity, plot_rounds
from fedrec_sim.run import Json

Value = Callable[[Json], float | None]
# Rows without privacy that are drawn beside those with it: more would hide them.
_LEVELS = 3


@dataclass(frozen=True)
class Plot:
    """A figure of the page.

    Attributes:
        svg: made by plots.py, which escapes what it is given.
        title: heading.
        caption: what is to be seen, in words and figures.
    """

    svg: Markup
    title: str
    caption: str


def make_plots(summary: Json, committed: Sequence[Json]) -> list[Plot]:
    """Every plot that the run has figures for: ladder, quality by epsilon and round, epsilon, bytes, popularity.

    Args:
        summary: of the run; the order of its rows gives their colours.
        committed: `round_committed` events of all rows and seeds, by round.
    """
    return list(_plots(summary, committed))


def reading_notes(summary: Json, committed: Sequence[Json]) -> list[str]:
    """What a reader of the plots over rounds has to know, a sentence each; none without federated rows."""
    if not committed:
        return []
    users = [int(event["validation"]["users"]) for event in committed if "users" in (event["validation"] or {})]
    watched = f", on a fixed sample of {max(users):,} users" if users else ""
    notes = [
        f"Quality by round is on validation, protocol {summary['protocol']}{watched}: for whoever watches "
        "the simulation; it steers no private row."
    ]
    row, starts = _parts(committed)
    if len(starts) > 1:
        told = ", ".join(f"{part} from round {start}" for start, part in starts.items())
        notes.append(f"Dotted lines: {row} goes on to another part ({told}).")
    if len(summary["seeds"]) > 1:
        notes.append("Lines over rounds are means over the seeds; bands reach from the lowest to the highest.")
    return notes


def _plots(summary: Json, committed: Sequence[Json]) -> Iterator[Plot]:
    metrics = ("hr@10", "ndcg@10")
    for metric in metrics:
        yield _ladder(summary, metric)
    yield from quality_by_epsilon(summary)
    by_round = partial(_by_round, list(summary["rows"]), committed)
    for metric in metrics:
        yield from by_round(f"{metric.upper()} on validation, by round", _validation(metric), tell="{:.3f}".format)
    ceiling = summary["privacy"].get("epsilon")
    yield from by_round("Epsilon spent so far, by round", _field("epsilon"), tell="{:.2f}".format, ceiling=ceiling)
    yield from by_round("Sent by all partners, by round", _field("bytes_up"), tell=in_bytes, tick=in_bytes)
    yield from by_round("Sent to all partners, by round", _field("bytes_down"), tell=in_bytes, tick=in_bytes)
    if summary.get("popularity_curve"):
        yield _popularity(summary)


def _ladder(summary: Json, metric: str) -> Plot:
    bars = [
        Bar(
            name,
            place,
            row[metric],
            row.get(f"{metric}_std", 0.0),
            [seed[metric] for seed in row.get("per_seed", [])],
        )
        for place, (name, row) in enumerate(summary["rows"].items())
    ]
    best = max(bars, key=lambda bar: bar.mean)
    spread = "Whisker: standard deviation over seeds; dots: the seeds." if len(summary["seeds"]) > 1 else ""
    title = f"{metric.upper()} of each row"
    alt = f"{title}: " + ", ".join(f"{bar.name} {bar.mean:.4f}" for bar in bars)
    caption = f"Test, protocol {summary['protocol']}. Highest: {best.name}, {best.mean:.4f}. {spread}".strip()
    return Plot(Markup(plot_ladder(bars, name=_slug(title), alt=alt)), title, caption)


def quality_by_epsilon(summary: Json) -> Iterator[Plot]:
    """NDCG@10 over the epsilon that rows asked for, by mode; none if no mode has two of them."""
    metric, rows = "ndcg@10", list(summary["rows"].items())
    modes: dict[str, dict[float, tuple[int, Json]]] = {}
    for place, (name, row) in enumerate(rows):
        if (asked := asked_epsilon(name)) is not None:
            modes.setdefault(str(row_mode(name)), {})[asked] = (place, row)
    if max(map(len, modes.values()), default=0) < 2:
        return
    lines = []
    for mode, found in modes.items():
        epsilons = sorted(found)
        seeds = [[seed[metric] for seed in found[epsilon][1]["per_seed"]] for epsilon in epsilons]
        means = [found[epsilon][1][metric] for epsilon in epsilons]
        lines.append(Line(mode, found[epsilons[0]][0], epsilons, means, list(map(min, seeds)), list(map(max, seeds))))
    open_rows = [(name, place, row[metric]) for place, (name, row) in enumerate(rows) if row["epsilon"] is None]
    levels = sorted(open_rows, key=lambda level: -level[2])[:_LEVELS]
    told = "; ".join(
        f"{line.name}: " + ", ".join(f"{mean:.4f} at {at:g}" for at, mean in zip(line.at, line.means, strict=True))
        for line in lines
    )
    title = "NDCG@10 by epsilon"
    read = "Bands: lowest to highest seed. Dotted: the best rows without privacy."
    caption = f"Test, protocol {summary['protocol']}. {told}. {read}"
    svg = plot_over(lines, levels, xlabel="epsilon asked for", name=_slug(title), alt=f"{title}. {caption}")
    yield Plot(Markup(svg), title, caption)


def _by_round(
    rows: Sequence[str],
    committed: Sequence[Json],
    title: str,
    value: Value,
    *,
    tell: Callable[[float], str],
    tick: Callable[[float], str] = "{:g}".format,
    ceiling: float | None = None,
) -> Iterator[Plot]:
    """A plot over rounds, or none if no row has such values."""
    lines = [line for place, row in enumerate(rows) if (line := _line(row, place, committed, value))]
    if not lines:
        return
    told = "; ".join(f"{line.name}: {_ends(line, tell)}" for line in lines)
    row, parts = _parts(committed)
    starts = list(parts)[1:] if row in {line.name for line in lines} else []
    alt = f"{title}. {told}."
    svg = plot_rounds(lines, name=_slug(title), alt=alt, tick=tick, ceiling=ceiling, part_starts=starts)
    yield Plot(Markup(svg), title, f"{told}.")


def _popularity(summary: Json) -> Plot:
    curve, places = summary["popularity_curve"], {row: place for place, row in enumerate(summary["rows"])}
    top = math.ceil(len(curve["catalog"]) / 20)
    shares = {"interactions": curve["catalog"], **curve["rows"]}
    told = ", ".join(f"{name} {sum(share[:top]):.0%}" for name, share in shares.items())
    caption = f"Share that the {top} most popular items take, a twentieth of the catalogue: {told}."
    rows = [(row, places[row], share) for row, share in curve["rows"].items() if row in places]
    title = "How popular is what is recommended"
    svg = plot_popularity(curve["catalog"], rows, name="popularity", alt=f"{title}. {caption}")
    return Plot(Markup(svg), title, caption)


def _line(row: str, place: int, committed: Sequence[Json], value: Value) -> Line | None:
    points: dict[int, list[float]] = {}
    for event in committed:
        if event["row"] == row and (found := value(event)) is not None:
            points.setdefault(event["round"], []).append(found)
    if not points:
        return None
    rounds = sorted(points)
    columns = [points[number] for number in rounds]
    means = [sum(column) / len(column) for column in columns]
    return Line(row, place, rounds, means, [min(column) for column in columns], [max(column) for column in columns])


def _ends(line: Line, tell: Callable[[float], str]) -> str:
    ends = ((line.means[0], line.at[0]), (line.means[-1], line.at[-1]))
    return ", ".join(f"{tell(value)} in round {number}" for value, number in ends[: len(line.at)])


def _parts(committed: Sequence[Json]) -> tuple[str, dict[int, str]]:
    """The row with most parts, and the rounds at which each begins."""
    found: dict[str, dict[int, str]] = {}
    for event in sorted(committed, key=lambda event: int(event["round"])):
        starts = found.setdefault(event["row"], {})
        if event["part"] not in starts.values():
            starts[event["round"]] = event["part"]
    return max(found.items(), key=lambda pair: len(pair[1]))


def _validation(metric: str) -> Value:
    return lambda event: (event["validation"] or {}).get(metric)


def _field(name: str) -> Value:
    return lambda event: event.get(name)


def _slug(title: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in title.lower())
