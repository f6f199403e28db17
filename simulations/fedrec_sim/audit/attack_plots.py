"""One figure of both attacks, as a file that stands on its own: white ground, so that it reads in light and dark."""

import io
from collections.abc import Sequence
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from fedrec_sim.audit.attack import FEWEST_FALSE_ALARMS, Attacked, Attacks
from fedrec_sim.audit.membership import CURVE_RATES
from fedrec_sim.audit.reconstruction import Reconstruction
from fedrec_sim.plots import COLOURS

_INK, _MUTED, _RULE, *_SERIES = (light for light, _ in COLOURS.values())
_STYLE = {
    "svg.hashsalt": "fedrec",
    "text.parse_math": False,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _MUTED,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _RULE,
    "grid.linewidth": 0.6,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "legend.frameon": False,
}
# Place and line style: colour alone does not reach everybody.
_LOOKS: dict[str, tuple[int, Any]] = {
    "none": (1, "-"),
    "answer_opened": (3, (0, (5, 1.5, 1, 1.5))),
    "inspect_8": (0, (0, (5, 1.5))),
    "inspect_1": (2, (0, (1.5, 1.2))),
}
_BARS = ("informed", "top_of_release", "popularity")


def attack_figure(attacks: Attacks) -> str:
    """Left: members found against false alarms, by the best informed attacker. Right: items guessed right."""
    with mpl.rc_context(_STYLE):
        # Figure, not pyplot: no global state, no display. Text as paths: the same on every machine.
        figure = Figure(figsize=(9.6, 4.2), layout="constrained", facecolor="white")
        left, right = figure.subplots(1, 2, width_ratios=(1, 1))
        _draw_curves(left, attacks.settings)
        _draw_recalls(right, attacks.settings)
        return _standalone(figure, _alt(attacks))


def setting_name(attacked: Attacked) -> str:
    """In words, with its epsilon."""
    match attacked.setting:
        case "none":
            return "without privacy"
        case "answer_opened":
            return f"secagg answer opened, epsilon {attacked.epsilon:.0f}"
        case _:
            return f"inspect, epsilon {attacked.epsilon:.0f}"


def informed_recall(found: Reconstruction) -> Any:
    """Of the better equipped of the informed attackers: with the head rounds, where there are any."""
    return found.informed_all_rounds or found.informed


def _draw_curves(axes: Any, settings: Sequence[Attacked]) -> None:
    for attacked in settings:
        place, dashes = _LOOKS[attacked.setting]
        best = attacked.membership[-1]
        label = f"{setting_name(attacked)} (AUC {best.auc.value:.2f})"
        known = best.pairs / 2 * CURVE_RATES >= FEWEST_FALSE_ALARMS
        look = {"color": _SERIES[place], "ls": dashes}
        axes.plot(CURVE_RATES, best.curve, alpha=0.35, lw=1.2, **look)
        axes.plot(CURVE_RATES[known], np.array(best.curve)[known], lw=1.8, label=label, **look)
        if attacked.setting == "inspect_8" and attacked.ceiling is not None:
            most = attacked.ceiling.curve
            axes.plot(CURVE_RATES, most, color=_INK, ls=(0, (4, 3)), lw=1.1, label="most that epsilon 8 allows")
    axes.plot(CURVE_RATES, CURVE_RATES, color=_MUTED, ls=(0, (1, 2)), lw=1, label="guessing")
    axes.set(xscale="log", yscale="log", xlim=(1e-3, 1), ylim=(8e-4, 1.15))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.1%}" if value < 0.01 else f"{value:.0%}"))
        axis.set_minor_formatter(NullFormatter())
    few = f"pale: fewer than {FEWEST_FALSE_ALARMS} in all"
    axes.set_xlabel(f"non-members called members ({few})")
    axes.set_ylabel("members found")
    axes.set_title("Was this user there?", loc="left", fontsize=10)
    axes.legend(loc="lower right", fontsize=7.5)


def _draw_recalls(axes: Any, settings: Sequence[Attacked]) -> None:
    labels = ("knows all other users", "top of what was released", "most popular items, no attack")
    for number, (bar, label) in enumerate(zip(_BARS, labels, strict=True)):
        recalls = [_recall(attacked.reconstruction, bar) for attacked in settings]
        values = [recall.value for recall in recalls]
        reach = [[r.value - r.low for r in recalls], [r.high - r.value for r in recalls]]
        heights = [place + 0.27 * (number - 1) for place in range(len(settings))]
        colour = (_SERIES[0], _SERIES[6], _RULE)[number]
        edge = {"edgecolor": _MUTED, "linewidth": 0.6, "hatch": ("", "//", "")[number]}
        axes.barh(heights, values, height=0.25, color=colour, label=label, **edge)
        axes.errorbar(values, heights, xerr=reach, fmt="none", ecolor=_INK, capsize=2, lw=0.9)
        for value, far, height in zip(values, reach[1], heights, strict=True):
            axes.annotate(f"{value:.2f}", (value + far, height), xytext=(4, 0), textcoords="offset points", va="center")
    names = [setting_name(attacked).replace(", ", "\n") for attacked in settings]
    axes.set_yticks(range(len(settings)), names)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, 1.12)
    axes.set_xlabel("share guessed right of the items that an answer counts")
    axes.set_title("What did this user like?", loc="left", fontsize=10)
    axes.legend(loc="lower right", fontsize=7.5)


def _recall(found: Reconstruction, bar: str) -> Any:
    return informed_recall(found) if bar == "informed" else getattr(found, bar)


def _alt(attacks: Attacks) -> str:
    parts = []
    for attacked in attacks.settings:
        best, found = attacked.membership[-1], attacked.reconstruction
        parts.append(
            f"{setting_name(attacked)}: members told from others with AUC {best.auc.value:.2f}, "
            f"{best.found[1].value:.0%} found at 1% false alarms; {informed_recall(found).value:.0%} of items guessed "
            f"right, {found.popularity.value:.0%} by popularity alone"
        )
    return f"Two attacks on one partner's answers, {attacks.shadows} shadow trainings a setting. " + ". ".join(parts)


def _standalone(figure: Any, alt: str) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, facecolor="white")
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    head, rest = svg[: svg.index(">")], svg[svg.index(">") + 1 :]
    return f'{head} role="img" aria-label="{escape(alt)}">\n <title>{escape(alt)}</title>{rest}'
