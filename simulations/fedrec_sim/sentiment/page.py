"""The sentiment example's figures for people."""

from typing import Any

from fedrec_sim.example_page import Page, Section

HEAD = ("detector", "chosen", "delay, texts (median / p90)", "false alarms per 1,000", "missed")


def table(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """A line a detector; cells as in `HEAD`."""
    lines: list[tuple[str, ...]] = []
    for name, way in result["detectors"].items():
        found = way["test"]
        delay = f"{found['delay_texts']['median']:.0f} / {found['delay_texts']['p90']:.0f}"
        false, missed = f"{found['false_alarms_per_1000']:.2f}", f"{found['missed']}/{found['streams']}"
        lines.append((name, way["chosen"], delay, false, missed))
    return lines


def page(result: dict[str, Any]) -> Page:
    """The report."""
    private, plain, best = result["heads"]["private"], result["heads"]["plain"], result["detectors"]["cusum"]["test"]
    shown, stream = result["example"], result["stream"]
    bars = [(one["negative_share"], one["began"] >= shown["jump_at"]) for one in shown["windows"]]
    rises = [(str(one["text"]), str(one["texts"]), f"{one['share']:.2f}", one["topic"]) for one in shown["rises"]]
    return Page(
        title="Sentiment monitor: an example of fedrec",
        lead="Six partners train a sentiment head on film reviews under differential privacy. A stream of held-out "
        f"reviews jumps from {stream['base']:.0%} negative to {stream['raised']:.0%}: the jump is made, the texts "
        "are real.",
        tiles=[
            ("accuracy, private", f"{private['accuracy_mean']:.3f}"),
            ("accuracy, no privacy", f"{plain['accuracy_mean']:.3f}"),
            ("detection delay, texts", f"{best['delay_texts']['median']:.0f}"),
            ("false alarms per 1,000", f"{best['false_alarms_per_1000']:.2f}"),
        ],
        sections=[
            Section("How soon a jump is told", HEAD, table(result), (f"{best['streams']} streams of test reviews.",)),
            Section(
                "One stream: negative share of each window",
                bars=bars,
                mark=20 * (shown["jump_at"] - 1) / result["window_texts"],
                alt="Negative share of each window; the dashed line is the jump",
                head=("alarm at text", "texts since the rise began", "negative share of these", "most about"),
                rows=rises,
                notes=(f"{result['window_texts']} texts a window; the jump is at text {shown['jump_at']}.",),
            ),
        ],
        facts=f"{result['command']}; commit {result['commit']}; {result['seconds']} s",
    )
