"""A small example's report: one HTML page that needs nothing else, and its figures as JSON beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fedrec.files import storage_errors
from fedrec_sim.plots import COLOURS
from fedrec_sim.run import Json, write_bytes, write_json


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        bars: shares within 0..1 and whether each is after what `mark` marks.
        mark: where a line is drawn among the bars, 20 a bar.
        alt: says in words what the bars show.
    """

    title: str
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    notes: Sequence[str] = ()
    bars: Sequence[tuple[float, bool]] = ()
    mark: float | None = None
    alt: str = ""


@dataclass(frozen=True)
class Page:
    """What it shows; all of it is escaped."""

    title: str
    lead: str
    tiles: Sequence[tuple[str, str]]
    sections: Sequence[Section]
    facts: str


def write_example(folder: Path, page: Page, figures: Json) -> Path:
    """Write `report.html` and `metrics.json`. Returns: the page's path. Raises: StorageError."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("example.html.j2").render(vars(page) | {"colours": COLOURS})
    path = folder / "report.html"
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "metrics.json", figures)
        write_bytes(path, text.encode())
    return path


def interval(figure: Sequence[float]) -> str:
    """Value and 95% interval.

    >>> interval([0.5, 0.4, 0.6])
    '0.500 [0.400, 0.600]'
    """
    value, low, high = figure
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as docs have it.

    >>> markdown(["a"], [["1"]])
    '| a |\\n| --- |\\n| 1 |\\n'
    """
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
