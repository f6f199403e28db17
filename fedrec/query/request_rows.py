"""Requests that people made, each with the item that they took: read from a file, and as what a correction learns from.

Private: no repr, log or error here shows a user, a text or an item.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedrec.data.catalog import ItemCatalog
from fedrec.data.columns import Problems, id_text, numbers, problems_of, read_batches
from fedrec.data.interactions import unix_seconds
from fedrec.errors import DataError
from fedrec.query.correction import RequestInputs
from fedrec.query.query_model import Progress, QueryModel
from fedrec.query.reader import Pieces
from fedrec.tasks.examples import TaskExamples

COLUMNS = ("user", "request", "item", "timestamp")
# Longer texts are no request in words; only their beginning would be read.
_MOST_LETTERS = 500


@dataclass(frozen=True, eq=False, repr=False)
class RequestRows:
    """Requests in the order of time. Private.

    Attributes:
        users: ids; texts: as they were typed; items: int32 codes of what was taken.
    Raises: DataError: of different lengths.
    """

    users: tuple[str, ...]
    texts: tuple[str, ...]
    items: NDArray[np.int32]

    def __post_init__(self) -> None:
        if not len(self.users) == len(self.texts) == len(self.items):
            raise DataError("request rows: users, texts and items have different lengths", "give each row all three")

    def __repr__(self) -> str:
        return "RequestRows(<private>)"

    def users_who_say_something(self, model: QueryModel) -> set[str]:
        """Those with a request of which something is left beside titles and refusals. Private; quick."""
        return {user for user, text in zip(self.users, self.texts, strict=True) if _says(model.remainder_of(text))}

    def examples(
        self, model: QueryModel, inputs: RequestInputs, progress: Progress = lambda *_: None, batch: int = 1
    ) -> TaskExamples:
        """What a correction learns from. A request of which nothing is left beside titles and refusals is no example.

        Args:
            model: the public reader.
            progress, batch: as `QueryModel.readings`.
        """
        remainders = [model.remainder_of(text) for text in self.texts]
        kept = [place for place, pieces in enumerate(remainders) if _says(pieces)]
        readings, weights = model.readings([remainders[place] for place in kept], progress, batch)
        users = np.array([self.users[place] for place in kept], str)
        return TaskExamples.of(inputs.of_requests(readings, weights), self.items[kept], users)


def _says(pieces: Pieces) -> bool:
    return any(isinstance(piece, str) for piece in pieces)


def _is_text(text: str) -> bool:
    """Whether somebody can have typed it; joiners are no letters, but Persian words and emoji have them."""
    letters = "".join(letter for letter in text if unicodedata.category(letter) != "Cf")
    return bool(letters.strip()) and letters.isprintable()


def read_requests(path: Path, catalog: ItemCatalog) -> RequestRows:
    """Read a file with the columns user, request, item and timestamp.

    Args:
        path: .csv, .tsv, .jsonl or .parquet.
    Raises: DataError: the file cannot be read, or a row cannot be used; all wrong lines at once.
    """
    problems = problems_of(path)
    users, texts, items, times = list[str](), list[str](), list[int](), list[float]()
    for batch in read_batches(path, COLUMNS, problems):
        of = batch.cells
        users += map(id_text, of["user"])
        texts += [" ".join(text.split()) if isinstance(text, str) else "" for text in of["request"]]
        items += [catalog.codes.get(id_text(item), -1) for item in of["item"]]
        times += numbers(of["timestamp"], unix_seconds).tolist()
        n = len(batch.lines)
        _check(problems, batch.lines, users[-n:], texts[-n:], items[-n:], times[-n:])
    if not users:
        problems.add("has no rows", [1])
    problems.refuse(str(path), "mend or remove these; nothing was read")
    order = np.argsort(np.array(times), kind="stable")
    return RequestRows(
        tuple(users[place] for place in order),
        tuple(texts[place] for place in order),
        np.array(items, np.int32)[order],
    )


def _check(
    problems: Problems,
    lines: Sequence[int],
    users: Sequence[str],
    texts: Sequence[str],
    items: Sequence[int],
    times: Sequence[float],
) -> None:
    wrong = {
        "'user' is empty or not printable text": [not user for user in users],
        "'request' is empty or not printable text": [not _is_text(text) for text in texts],
        f"'request' is longer than {_MOST_LETTERS} characters": [len(text) > _MOST_LETTERS for text in texts],
        "'item' is not in the catalogue (add it there)": [item < 0 for item in items],
        "'timestamp' is neither Unix seconds nor an ISO 8601 date": [not np.isfinite(time) for time in times],
    }
    for reason, mask in wrong.items():
        problems.add(reason, [line for line, is_wrong in zip(lines, mask, strict=True) if is_wrong])
