"""A search as one HTML page that needs nothing else: what was tried, what it brought, what it cost."""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fedrec_sim.figures import in_time
from fedrec_sim.plots import COLOURS, plot_parallel, plot_trials
from fedrec_sim.run import Json, write_bytes

PAGE = "search.html"


def write_page(folder: Path, summary: Json) -> Path:
    """Write `search.html`; readers see the old page or the new one. Raises StorageError: the disk refuses."""
    path = folder / PAGE
    write_bytes(path, render_page(summary).encode())
    return path


def render_page(summary: Json) -> str:
    """The page as text."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parents[1] / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    finished = [one for one in summary["trials"] if one["state"] == "complete"]
    values = [one["value"] for one in finished]
    numbers = [one["number"] + 1 for one in finished]
    metric, best = summary["metric"].upper(), summary["best"]
    told = f"{metric} on validation by trial; the best, {best['value']:.4f}, is trial {best['number'] + 1}"
    plots = [("Trials", plot_trials(numbers, values, ylabel=f"{metric}, validation", name="trials", alt=told))]
    if len(finished) > 1:
        alt = f"each of {len(finished)} trials as a line over its settings and its {metric}; the best is thick"
        plots.append(("Settings", plot_parallel(_columns(finished, metric), values, name="settings", alt=alt)))
    return environment.get_template("search.html.j2").render(
        s=summary, plots=plots, colours=COLOURS, seconds=in_time(summary["seconds"]), metric=metric, short=_short
    )


def _columns(finished: Sequence[Json], metric: str) -> list[tuple[str, list[int | float | str]]]:
    keys = list(finished[0]["values"])
    columns = [
        (key.removeprefix("private.").removeprefix("parts."), [t["values"][key] for t in finished]) for key in keys
    ]
    return [*columns, (metric, [t["value"] for t in finished])]


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
