"""The report's plots: SVG text, pure in its data; colours are the page's and follow light and dark."""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

# CSS variable -> (light, dark); each has 3:1 against its page, text 4.5:1.
COLOURS = {
    "plot-ink": ("#1d2733", "#e6eaf0"),
    "plot-muted": ("#5b6776", "#a3afbf"),
    "plot-rule": ("#d9dee5", "#39434f"),
    "plot-0": ("#2563eb", "#7aa7ff"),
    "plot-1": ("#c2410c", "#fb923c"),
    "plot-2": ("#047857", "#34d399"),
    "plot-3": ("#7c3aed", "#b794f6"),
    "plot-4": ("#be185d", "#f472b6"),
    "plot-5": ("#0e7490", "#22d3ee"),
    "plot-6": ("#946200", "#facc15"),
    "plot-7": ("#475569", "#b4c0d0"),
}
_VARIABLES = {light: f"var(--{name}, {light})" for name, (light, _) in COLOURS.items()}
_INK, _MUTED, _RULE, *_SERIES = (light for light, _ in COLOURS.values())
# Lines differ in dashes too: colour alone does not reach everybody.
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))
_WIDTH_IN = 4.0  # narrow, so that text stays readable when the page is a phone
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "fedrec",
    "text.parse_math": False,
    "font.family": ["DejaVu Sans"],
    "font.size": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _RULE,
    "axes.labelcolor": _MUTED,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _RULE,
    "grid.linewidth": 0.6,
    "xtick.color": _RULE,
    "ytick.color": _RULE,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _MUTED,
    "text.color": _INK,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "lines.linewidth": 1.7,
}


@dataclass(frozen=True)
class Line:
    """One row of the ladder over rounds or users, or one mode over epsilons.

    Attributes:
        name: of the row or mode.
        place: of the row in the ladder, which gives the same colour in every plot.
        at: rounds, users or epsilons, ascending.
        means: over the seeds, one at each.
        lows, highs: lowest and highest seed, one at each.
    """

    name: str
    place: int
    at: Sequence[float]
    means: Sequence[float]
    lows: Sequence[float]
    highs: Sequence[float]


@dataclass(frozen=True)
class Bar:
    """One row of the ladder in one metric: mean and standard deviation over seeds, and every seed's value."""

    name: str
    place: int
    mean: float
    std: float
    per_seed: Sequence[float]


@dataclass(frozen=True)
class Estimated:
    """An estimate with its interval."""

    name: str
    value: float
    low: float
    high: float


def plot_rounds(
    lines: Sequence[Line],
    *,
    name: str,
    alt: str,
    tick: Callable[[float], str] = "{:g}".format,
    ceiling: float | None = None,
    part_starts: Sequence[int] = (),
) -> str:
    """Lines over rounds, with a band from lowest to highest seed; a logarithmic axis where sizes differ much.

    Args:
        name: of the plot; makes ids unique within a page.
        alt: says in words what the plot shows.
        tick: how a value is written at the axis.
        ceiling: a dashed level that must not be passed.
        part_starts: rounds at which another part begins to be trained.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(2.6)
        for line in lines:
            colour = _colour(line.place)
            axes.plot(line.at, line.means, color=colour, ls=_dashes(line.place), label=line.name)
            # A single round is no line.
            axes.plot(line.at[-1:], line.means[-1:], "o", ms=3.5, color=colour)
            if tuple(line.lows) != tuple(line.highs):
                axes.fill_between(line.at, line.lows, line.highs, color=colour, alpha=0.18, lw=0)
        for start in part_starts:
            axes.axvline(start - 0.5, color=_MUTED, ls=(0, (1, 2)), lw=0.8)
        if ceiling is not None:
            axes.axhline(ceiling, color=_INK, ls=(0, (4, 3)), lw=1, label="promised at most")
        _scale_values(axes, [value for line in lines for value in line.means], tick)
        axes.set_xlabel("round")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        figure.legend(loc="outside upper left", ncols=2)
        return _svg(figure, name, alt)


def plot_over(
    lines: Sequence[Line], levels: Sequence[tuple[str, int, float]], *, xlabel: str, name: str, alt: str
) -> str:
    """Quality over epsilon or users, a line for each mode or row, with what does not depend on it as levels.

    Args:
        levels: (row, place, quality), drawn across.
        xlabel: of the logarithmic axis.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(3.0)
        for number, line in enumerate(lines):
            colour = _colour(line.place)
            axes.plot(line.at, line.means, color=colour, ls=_dashes(number), marker="o", ms=3.5, label=line.name)
            axes.fill_between(line.at, line.lows, line.highs, color=colour, alpha=0.18, lw=0)
        for row, place, level in levels:
            axes.axhline(level, color=_colour(place), ls=(0, (1, 2)), lw=1, label=row)
        axes.set_xscale("log", base=2)
        places = sorted({place for line in lines for place in line.at})
        axes.set_xticks(places, [f"{place:,g}" for place in places])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel(xlabel)
        figure.legend(loc="outside upper left", ncols=2)
        return _svg(figure, name, alt)


def plot_ladder(bars: Sequence[Bar], *, name: str, alt: str) -> str:
    """Horizontal bars, first row on top: mean, standard deviation as whisker, seeds as dots."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(0.5 + 0.3 * len(bars))
        for height, bar in enumerate(bars):
            axes.barh(height, bar.mean, height=0.62, color=_colour(bar.place), alpha=0.85, lw=0)
            end = bar.mean
            if len(bar.per_seed) > 1:
                axes.errorbar(bar.mean, height, xerr=bar.std, color=_INK, capsize=3, lw=1, capthick=1)
                axes.plot(bar.per_seed, [height] * len(bar.per_seed), "o", ms=2.6, color=_INK, mew=0)
                end = max(bar.mean + bar.std, *bar.per_seed)
            label = (f"{bar.mean:.4f}", (end, height))
            axes.annotate(*label, xytext=(5, 0), textcoords="offset points", va="center", fontsize=8)
        axes.set_yticks(range(len(bars)), [bar.name for bar in bars])
        axes.tick_params(axis="y", length=0, labelcolor=_INK)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlim(left=0)
        axes.margins(x=0.2)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        return _svg(figure, name, alt)


def plot_estimates(
    groups: Sequence[tuple[str, float, Sequence[Estimated]]], *, xlabel: str, name: str, alt: str
) -> str:
    """Estimates with their intervals, group by group, beside the truth of each group as a line across it.

    Args:
        groups: (name, truth, estimates), the first on top; each has the same estimators in the same order.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(0.9 + 0.17 * sum(len(estimates) + 1 for _, _, estimates in groups))
        top, places, labels = 0.0, [], []
        for group, truth, estimates in groups:
            for row, one in enumerate(estimates):
                reach = [[max(one.value - one.low, 0.0)], [max(one.high - one.value, 0.0)]]
                look = {"fmt": "o", "ms": 3.4, "lw": 1.2, "capsize": 2, "color": _colour(row)}
                axes.errorbar([one.value], [top + row], xerr=reach, label=one.name if top == 0 else None, **look)
            end = top + len(estimates) - 1
            axes.vlines(truth, top - 0.5, end + 0.5, color=_INK, lw=1.3, label="truth" if top == 0 else None)
            places.append((top + end) / 2)
            labels.append(group)
            top = end + 2
        axes.set_yticks(places, labels)
        axes.tick_params(axis="y", length=0, labelcolor=_INK)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlim(left=0, right=1.6 * max(truth for _, truth, _ in groups))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2%}"))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel(xlabel)
        figure.legend(loc="outside upper left", ncols=3)
        return _svg(figure, name, alt)


def plot_popularity(
    catalog: Sequence[float], rows: Sequence[tuple[str, int, Sequence[float]]], *, name: str, alt: str
) -> str:
    """Like a Lorenz curve: the share of the most popular items in interactions and in each row's top tens.

    Args:
        catalog: share of interactions by item, most popular first; adds up to 1.
        rows: (name, place, share of top-10 slots by the same order of items).
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(3.3)
        # 120 places are enough for the eye and keep the page small.
        counted = np.unique(np.geomspace(1, len(catalog), 120).round().astype(int))
        axes.plot(counted, counted / len(catalog), color=_MUTED, ls=(0, (1, 2)), lw=1, label="every item alike")
        axes.plot(counted, _cumulated(catalog, counted), color=_INK, lw=2.4, label="interactions")
        for row, place, shares in rows:
            curve = _cumulated(shares, counted)
            axes.plot(counted, curve, color=_colour(place), ls=_dashes(place), lw=1.4, label=row)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("most popular items, counted from the top")
        figure.legend(loc="outside upper left", ncols=2)
        return _svg(figure, name, alt)


def plot_trials(at: Sequence[int], values: Sequence[float], *, ylabel: str, name: str, alt: str) -> str:
    """A search: each finished trial as a dot, the best so far as a step."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(2.4)
        axes.plot(at, values, "o", ms=4, color=_colour(0), label="trial")
        axes.step(at, np.maximum.accumulate(values), where="post", color=_colour(1), ls=_dashes(1), label="best so far")
        axes.set_xlabel("trial")
        axes.set_ylabel(ylabel)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        figure.legend(loc="outside upper left", ncols=2)
        return _svg(figure, name, alt)


def plot_parallel(
    columns: Sequence[tuple[str, Sequence[int | float | str]]], values: Sequence[float], *, name: str, alt: str
) -> str:
    """Parallel coordinates: a line for each trial over its settings, darker the better; every column has its own ends.

    Args:
        columns: (heading, one value a trial); numbers from their lowest to their highest, words in order.
        values: what trials are judged by, one a trial; the best is thick.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(2.8)
        heights = np.array([_heights(column) for _, column in columns])
        ranks = np.argsort(np.argsort(values))
        for trial, rank in enumerate(ranks):
            is_best = rank == len(values) - 1
            look = {"lw": 2.4, "color": _colour(1)} if is_best else {"lw": 1.0, "color": _colour(0)}
            axes.plot(heights[:, trial], alpha=1.0 if is_best else 0.15 + 0.6 * rank / len(values), **look)
        for place, (heading, column) in enumerate(columns):
            axes.axvline(place, color=_MUTED, lw=0.8)
            low, high = (column[int(pick(heights[place]))] for pick in (np.argmin, np.argmax))
            for height, value in ((-0.06, low), (1.06, high)):
                shown = f"{value:.3g}" if isinstance(value, float) else str(value)
                axes.annotate(shown, (place, height), ha="center", va="center", fontsize=7.5)
            axes.annotate(heading, (place, -0.17 - 0.09 * (place % 2)), ha="center", va="center", fontsize=6.5)
        axes.set_ylim(-0.32, 1.14)
        axes.set_axis_off()
        return _svg(figure, name, alt)


def _heights(column: Sequence[int | float | str]) -> list[float]:
    """Where values stand between the column's ends, 0 to 1."""
    known: list[Any] = sorted(set(column))  # numbers alone, or words alone
    if all(isinstance(value, str) for value in known):
        return [known.index(value) / max(1, len(known) - 1) for value in column]
    low, high = float(known[0]), float(known[-1])
    return [(float(value) - low) / ((high - low) or 1.0) for value in column]


def standalone(svg: str) -> str:
    """A plot as the text of a file of its own."""
    return svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1) + "\n"


def _figure(height_in: float) -> tuple[Any, Any]:
    # Figure, not pyplot: no global state, no display.
    figure = Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")
    return figure, figure.add_subplot()


def _colour(place: int) -> str:
    return _SERIES[place % len(_SERIES)]


def _dashes(place: int) -> Any:
    return _DASHES[place % len(_DASHES)]


def _cumulated(shares: Sequence[float], counted: np.ndarray) -> np.ndarray:
    return np.asarray(np.cumsum(shares)[counted - 1])


def _scale_values(axes: Any, values: Sequence[float], tick: Callable[[float], str]) -> None:
    if values and min(values) > 0 and max(values) > 100 * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(numticks=6))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))


def _svg(figure: Any, name: str, alt: str) -> str:
    """SVG for inside a page: no prologue, date or fixed size; ids of its own; colours as CSS variables."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>|\s*<style.*?</style>", "", svg, flags=re.S)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r'(\bid="|\bhref="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"((?:fill|stroke): )(#[0-9a-f]{6})", lambda m: m[1] + _VARIABLES.get(m[2], m[2]), svg)
    box = re.search(r'viewBox="[^"]+"', svg)
    assert box is not None
    head = f'<svg {box[0]} role="img" aria-label="{escape(alt)}">'
    return head + svg[svg.index(">") + 1 :].strip()
