"""Interactions: who had what, when. Private: no repr, log or error here shows a user, an item or a rating."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedrec.data.catalog import ItemCatalog
from fedrec.data.columns import (
    Problems,
    id_text,
    numbers,
    problems_of,
    read_batches,
    read_parquet,
    write_parquet,
)
from fedrec.errors import DataError

# 1e11 seconds are the year 5138; as milliseconds they are 1973.
_MAX_SECONDS = 1e11
_BATCH_ROWS = 65_536
_DTYPES = {"user_codes": "int32", "item_codes": "int32", "rating": "float32", "timestamp": "float64"}
_OWN_NAMES = ("user", "item", "rating", "timestamp")
_REMEDY = "mend or remove these; nothing was read"
BY_USER = {"order": "user"}
"""Fact of a file whose rows stand in the order of user, time and item code."""


@dataclass(frozen=True, repr=False)
class Interaction:
    """One row. Private.

    Attributes:
        rating: None where the data has none.
        timestamp: Unix seconds.
        line: where it came from, from 1.
    Raises: DataError: an empty id, a number that is not finite; names the line only.
    """

    user: str
    item: str
    rating: float | None
    timestamp: float
    line: int

    def __post_init__(self) -> None:
        rating = 0.0 if self.rating is None else self.rating
        if not (self.user and self.item and np.isfinite(rating) and np.isfinite(self.timestamp)):
            raise DataError(f"line {self.line}: an empty id, or a number that is not finite", _REMEDY)

    def __repr__(self) -> str:
        return "Interaction(<private>)"


@dataclass(frozen=True)
class ColumnMapping:
    """Names of an interaction file's columns; `rating` is None if it has none."""

    user: str
    item: str
    rating: str | None
    timestamp: str


@dataclass(frozen=True, eq=False, repr=False)
class InteractionTable:
    """Interactions as columns. Private. Two are the same when their hashes are.

    Attributes:
        user_codes: int32 `[rows]`, places in `user_ids`.
        item_codes: int32 `[rows]`, places in `item_ids`.
        rating: float32 `[rows]`; all NaN where the data has none.
        timestamp: float64 `[rows]`, Unix seconds.
        user_ids: distinct and sorted, so that the order of rows in a file changes nothing; each has a row.
        item_ids: the catalogue's ids, in its order.
    Raises: DataError: columns that do not fit each other, no rows, or the same user, item and time twice.
    """

    user_codes: NDArray[np.int32]
    item_codes: NDArray[np.int32]
    rating: NDArray[np.float32]
    timestamp: NDArray[np.float64]
    user_ids: tuple[str, ...]
    item_ids: tuple[str, ...]

    def __post_init__(self) -> None:
        remedy = "build them with from_rows"
        for name, dtype in _DTYPES.items():
            column = getattr(self, name)
            if column.dtype != dtype or column.shape != (len(self.user_codes),):
                raise DataError(f"interactions: {name} is not {dtype} [rows]", remedy)
        if not self._is_in_range():
            raise DataError("interactions: codes, ids or numbers out of range", remedy)
        if _repeats(self.user_codes, self.item_codes, self.timestamp).any():
            raise DataError("interactions: a row stands twice", remedy)

    def _is_in_range(self) -> bool:
        items, missing = self.item_codes, np.isnan(self.rating)
        return bool(
            self.n_rows
            and np.array_equal(np.unique(self.user_codes), np.arange(self.n_users))
            and items.min() >= 0
            and items.max() < self.n_items
            and all(a < b for a, b in pairwise(self.user_ids))
            and all(user and user == id_text(user) for user in self.user_ids)
            and (abs(self.timestamp) < _MAX_SECONDS).all()
            and (missing.all() or np.isfinite(self.rating).all())
        )

    def __repr__(self) -> str:
        return "InteractionTable(<private>)"

    @property
    def n_users(self) -> int:
        """Users, each with a row or more."""
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        """Items of the catalogue, with or without rows."""
        return len(self.item_ids)

    @property
    def n_rows(self) -> int:
        """Interactions."""
        return len(self.user_codes)

    def tables(self) -> "Iterator[InteractionTable]":
        """All rows in one piece; a stored table comes in several."""
        yield self

    @cached_property
    def hash(self) -> str:
        """SHA-256, hex, over ids and rows in any order. Private: it confirms a guess of the data."""
        order = np.lexsort((self.item_codes, self.timestamp, self.user_codes))
        digest = hashlib.sha256(json.dumps([self.user_ids, self.item_ids]).encode())
        for column in (self.user_codes, self.item_codes, self.rating, self.timestamp):
            # -0.0 and 0.0 are equal, so they must hash alike.
            sorted_rows = column[order] + column.dtype.type(0)
            digest.update(sorted_rows.astype(column.dtype.newbyteorder("<")).tobytes())
        return digest.hexdigest()

    @classmethod
    def from_rows(cls, rows: Iterable[Interaction], catalog: ItemCatalog) -> "InteractionTable":
        """Build a table of rows in any order.

        Raises: DataError: no rows, an unknown item, a row twice, some ratings missing; all at once.
        """
        reader = _Reader(catalog, ColumnMapping(*_OWN_NAMES), Problems(), may_lack_ratings=True)
        stream = iter(rows)
        while chunk := list(islice(stream, _BATCH_ROWS)):
            users, items, ratings, times = ([getattr(row, name) for row in chunk] for name in _OWN_NAMES)
            reader.add([row.line for row in chunk], users, items, ratings, times)
        return reader.table("interactions")


@dataclass(repr=False)
class _Reader:
    """Codes and numbers of the rows so far. A row that is refused stays in place, with NaN as its time."""

    catalog: ItemCatalog
    columns: ColumnMapping
    problems: Problems
    may_lack_ratings: bool = False
    users: dict[str, int] = field(default_factory=dict)
    parts: list[tuple[NDArray[Any], ...]] = field(default_factory=list)

    def add(
        self,
        lines: Sequence[int],
        users: Sequence[object],
        items: Sequence[object],
        ratings: Sequence[object],
        timestamps: Sequence[object],
    ) -> None:
        """Code a batch; its cells are looked at one by one only where one of them is no plain number."""
        of, user_ids, item_ids = self.columns, [id_text(c) for c in users], [id_text(c) for c in items]
        no_user, no_item = (np.array([not text for text in ids]) for ids in (user_ids, item_ids))
        item_codes = np.array([self.catalog.codes.get(item, -1) for item in item_ids], np.int32)
        times = numbers(timestamps, unix_seconds)
        is_time, is_near = np.isfinite(times), abs(times) < _MAX_SECONDS
        with np.errstate(over="ignore"):
            stars = numbers(ratings).astype(np.float32)
        refused = {
            f"{of.user!r} is empty or not printable text": no_user,
            f"{of.item!r} is empty or not printable text": no_item,
            f"{of.item!r} is not in the catalogue (add it there)": (item_codes < 0) & ~no_item,
            f"{of.timestamp!r} is neither Unix seconds nor an ISO 8601 date": ~is_time,
            f"{of.timestamp!r} is beyond the year 5138 (in milliseconds?)": is_time & ~is_near,
        }
        for reason, mask in refused.items():
            self.problems.add(reason, np.array(lines)[mask])
        times[np.logical_or.reduce(list(refused.values()))] = np.nan
        user_codes = np.array([self.users.setdefault(user, len(self.users)) for user in user_ids], np.int32)
        self.parts.append((np.array(lines), user_codes, item_codes, stars, times))

    def table(self, place: str) -> InteractionTable:
        """All rows as a table. Raises DataError that lists every line that cannot be in it."""
        if self.parts:
            lines, user_codes, item_codes, stars, times = map(np.concatenate, zip(*self.parts, strict=True))
            unrated = ~np.isfinite(stars)
            if self.columns.rating is not None and not (self.may_lack_ratings and unrated.all()):
                self.problems.add(f"{self.columns.rating!r} is missing or not a number", lines[unrated])
            repeats = _repeats(user_codes, item_codes, times)
            self.problems.add("same user, item and time as an earlier row", lines[repeats])
        self.problems.refuse(place, _REMEDY)
        if not self.parts:
            raise DataError(f"{place}: no rows", "name a file that has some")
        user_ids = sorted(self.users)
        place_of = np.empty(len(user_ids), np.int32)
        place_of[[self.users[user] for user in user_ids]] = np.arange(len(user_ids), dtype=np.int32)
        places = place_of[user_codes]
        return InteractionTable(places, item_codes, stars, times, tuple(user_ids), self.catalog.ids)


def unix_seconds(cell: object) -> float:
    """Unix seconds of a number or of an ISO 8601 date, which is UTC where it names no zone."""
    try:
        return float(cell)  # type: ignore[arg-type]  # what float refuses is caught
    except (TypeError, ValueError):
        when = datetime.fromisoformat(str(cell).strip())
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def _repeats(*columns: NDArray[np.int32] | NDArray[np.float64]) -> NDArray[np.bool_]:
    """Rows that equal an earlier one in all columns; NaN equals nothing."""
    order = np.lexsort(columns)
    same = np.ones(max(len(order) - 1, 0), np.bool_)
    for column in columns:
        same &= column[order][1:] == column[order][:-1]
    repeats = np.zeros(len(order), np.bool_)
    repeats[order[1:][same]] = True
    return repeats


def read_interactions(path: Path, columns: ColumnMapping, catalog: ItemCatalog) -> InteractionTable:
    """Read interactions from CSV, TSV, Parquet or JSON lines, by the file's suffix, in bounded memory.

    Args:
        path: private data; UTF-8 text with a header line, one JSON object a line, or Parquet.
        columns: which column is what. Times are Unix seconds or ISO 8601, UTC where they name no zone.
        catalog: must have every item.
    Returns: the rows in the file's order; ids stripped of blanks around them.
    Raises: DataError: no such file or column, or rows that cannot be; every reason with its lines.
    Privacy: errors name lines and reasons, never what stands there.
    """
    problems = problems_of(path)
    reader = _Reader(catalog, columns, problems)
    names = [name for name in (columns.user, columns.item, columns.rating, columns.timestamp) if name is not None]
    for batch in read_batches(path, names, problems):
        cells = batch.cells
        ratings = [None] * len(batch.lines) if columns.rating is None else cells[columns.rating]
        reader.add(batch.lines, cells[columns.user], cells[columns.item], ratings, cells[columns.timestamp])
    return reader.table(str(path))


def write_interactions(table: InteractionTable, path: Path) -> None:
    """Write a table as Parquet that only its owner may read, whole or not at all. Raises StorageError."""
    write_parquet(path, stored_columns(table), {**BY_USER, "content": "interactions", "hash": table.hash})


def stored_columns(table: InteractionTable) -> dict[str, Any]:
    """A table as it is stored: rows in the order of user, time and item code."""
    order = np.lexsort((table.item_codes, table.timestamp, table.user_codes))
    return {
        "user": [table.user_ids[code] for code in table.user_codes[order]],
        "item": [table.item_ids[code] for code in table.item_codes[order]],
        "timestamp": table.timestamp[order],
        "rating": table.rating[order],
    }


def read_stored_interactions(path: Path, catalog: ItemCatalog) -> InteractionTable:
    """Read what `write_interactions` wrote.

    Raises: DataError: not such a file, of another format, damaged, or made with another catalogue.
    """
    columns, facts = read_parquet(path, "interactions")
    reader = _Reader(catalog, ColumnMapping(*_OWN_NAMES), Problems("row"), may_lack_ratings=True)
    reader.add(range(1, len(columns["user"]) + 1), *(columns[name] for name in _OWN_NAMES))
    table = reader.table(str(path))
    if table.hash != facts["hash"]:
        raise DataError(f"{path}: is damaged, or was made with another catalogue", "import the data anew")
    return table
