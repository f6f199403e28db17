"""Columns of CSV, TSV, Parquet and JSON-lines files, in batches that know their lines; Parquet written whole.

A cell may be private. What goes wrong is therefore told by line and reason: no message here takes a cell, and
none is raised while an exception that quotes one is being handled.
"""

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import DataError, StorageError
from fedrec.files import sync_folder

_BATCH_ROWS = 65_536
_SHOWN_LINES = 20
# Files of RecBole end in .inter and .item.
_DELIMITERS = {".csv": ",", ".tsv": "\t", ".inter": "\t", ".item": "\t"}
_FORMAT = "1"
_Row = tuple[int, Sequence[object]]


@dataclass(frozen=True, repr=False)
class Batch:
    """Some rows, by column. Private.

    Attributes:
        lines: where the rows stand, counted from 1; in Parquet, the rows' numbers.
        cells: column -> one cell a row. Text files give str, the others any type.
    """

    lines: Sequence[int]
    cells: Mapping[str, Sequence[object]]


class Problems:
    """Refused lines by reason. Reasons are public: they name columns, never cells.

    Args:
        unit: what the numbers count.

    >>> problems = Problems("line")
    >>> problems.add("'rating' is not a number", range(2, 90))
    >>> problems.listed()[0][-34:]
    '16, 17, 18, 19, 20, 21 and 68 more'
    """

    def __init__(self, unit: Literal["line", "row", "item"] = "line") -> None:
        self._unit = unit
        self._lines: dict[str, list[NDArray[np.int64]]] = {}

    def add(self, reason: str, lines: Sequence[int] | NDArray[np.int64]) -> None:
        """Refuse lines (none is fine)."""
        found = np.array(lines, np.int64)
        if found.size:
            self._lines.setdefault(reason, []).append(found)

    def listed(self) -> list[str]:
        """One entry a reason, with its first lines and the count of the others."""
        return [f"{why}: {self._in_words(np.concatenate(n))}" for why, n in self._lines.items()]

    def _in_words(self, lines: NDArray[np.int64]) -> str:
        shown = ", ".join(map(str, lines[:_SHOWN_LINES]))
        more = f" and {lines.size - _SHOWN_LINES:,} more" if lines.size > _SHOWN_LINES else ""
        return f"{self._unit}{'s' if lines.size > 1 else ''} {shown}{more}"

    def refuse(self, place: str, remedy: str) -> None:
        """Raise one DataError for all that was added, if anything was."""
        if self._lines:
            raise DataError.of_all(self.listed(), remedy, place)


def problems_of(path: Path) -> Problems:
    """Problems that count what read_batches counts in a file."""
    return Problems("row" if path.suffix.lower() == ".parquet" else "line")


def read_batches(path: Path, wanted: Sequence[str], problems: Problems) -> Iterator[Batch]:
    """Read the columns `wanted`, by the file's suffix, in bounded memory.

    Args:
        problems: takes lines that are no rows; the others come all the same, so that one reading finds all.
    Raises: DataError: the file cannot be read, its suffix is unknown, or a column is missing.
    """
    suffix, names = path.suffix.lower(), list(dict.fromkeys(wanted))
    with _reading(path):
        if suffix in _DELIMITERS:
            rows = _delimited_rows(path, _DELIMITERS[suffix], names, problems)
        elif suffix in (".jsonl", ".ndjson"):
            rows = _json_rows(path, names, problems)
        elif suffix == ".parquet":
            rows = _parquet_rows(path, names)
        else:
            raise DataError(f"{path}: unknown suffix {suffix!r}", "name it .csv, .tsv, .parquet or .jsonl")
        while chunk := list(islice(rows, _BATCH_ROWS)):
            lines, cells = zip(*chunk, strict=True)
            yield Batch(lines, dict(zip(names, zip(*cells, strict=True), strict=True)))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    reason = None
    try:
        yield
    except OSError as error:
        reason = error.strerror or "damaged"
    if reason:
        raise DataError(f"{path}: cannot be read: {reason}", "check the path and its permissions")


def _delimited_rows(path: Path, delimiter: str, names: Sequence[str], problems: Problems) -> Iterator[_Row]:
    # What is not UTF-8 becomes lone surrogates, which are no printable text: the line is then named.
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            header = next(reader, [])
            _check_header(path, header, names)
            places = [header.index(name) for name in names]
            for row in reader:
                if len(row) == len(header):
                    yield reader.line_num, [row[place] for place in places]
                elif row:
                    problems.add("has more or fewer columns than the header", [reader.line_num])
        except csv.Error:
            problems.add("cannot be parsed, nor can what follows: unbalanced quotes?", [reader.line_num])


def _json_rows(path: Path, names: Sequence[str], problems: Problems) -> Iterator[_Row]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        for line, text in enumerate(file, 1):
            row = _json_object(text)
            if row is not None:
                yield line, [row.get(name) for name in names]
            elif not text.isspace():
                problems.add("is not a JSON object", [line])


def _json_object(text: str) -> dict[str, object] | None:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _parquet_rows(path: Path, names: Sequence[str]) -> Iterator[_Row]:
    pa, pq = pyarrow()
    with path.open("rb") as file:
        try:
            parquet = pq.ParquetFile(file)
            _check_header(path, parquet.schema_arrow.names, names)
            start = 1
            for batch in parquet.iter_batches(batch_size=_BATCH_ROWS, columns=list(names)):
                cells = [_cells(pa, batch.column(name)) for name in names]
                yield from enumerate(zip(*cells, strict=True), start)
                start += batch.num_rows
            return
        except pa.ArrowException:
            pass
    raise DataError(f"{path}: is damaged, or no Parquet file", "write it anew")


def _cells(pa: Any, column: Any) -> list[object]:
    """A column's values; times as Unix seconds, in UTC where they name no zone."""
    if not (pa.types.is_timestamp(column.type) or pa.types.is_date(column.type)):
        return list(column.to_pylist())
    micros = column.cast(pa.timestamp("us"), safe=False).cast(pa.int64())
    return [None if value is None else value / 1e6 for value in micros.to_pylist()]


def _check_header(path: Path, header: Sequence[str], names: Sequence[str]) -> None:
    # What the file has instead is not shown: without a header line it would be somebody's row.
    missing = [f"no column {name!r}" for name in names if name not in header]
    repeated = [f"{header.count(name)} columns {name!r}" for name in names if header.count(name) > 1]
    if not header:
        raise DataError(f"{path}: is empty", "name a file with a header line and rows")
    if missing or repeated:
        raise DataError.of_all(missing + repeated, "name the columns as the header line does", str(path))


def id_text(cell: object) -> str:
    """A user's or an item's id as text; "" if it is neither printable text nor a whole number.

    >>> id_text(" u7 "), id_text(7), id_text(7.0), id_text(None)
    ('u7', '7', '', '')
    """
    text = cell.strip() if isinstance(cell, str) else str(cell) if type(cell) is int else ""
    return text if text.isprintable() else ""


def numbers(cells: Sequence[object], parse: Callable[[Any], float] = float) -> NDArray[np.float64]:
    """Each cell as a float64, NaN where it is none. `parse` is asked only if some cell is no plain number."""
    try:
        found = np.array(cells, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        found = np.empty(0)
    if found.shape == (len(cells),):
        return found
    return np.array([_parsed(cell, parse) for cell in cells], dtype=np.float64)


def _parsed(cell: object, parse: Callable[[Any], float]) -> float:
    try:
        return parse(cell)
    except (TypeError, ValueError, OverflowError):
        return np.nan


def pyarrow() -> tuple[Any, Any]:
    """`pyarrow` and `pyarrow.parquet`, which a coordinator goes without. Raises DataError if missing."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise DataError("Parquet needs pyarrow", "pip install 'fedrec[client]'") from error
    return pa, pq


def write_parquet(path: Path, columns: Mapping[str, Any], facts: Mapping[str, str]) -> None:
    """Write a Parquet file that is whole or absent, for its owner's eyes; folders are made.

    Args:
        facts: stand in the file's metadata, beside the format number.
    Raises: StorageError: no space or no permission; an older file stays as it was.
    """
    write_parquet_parts(path, [columns], lambda: facts)


def write_parquet_parts(path: Path, parts: Iterable[Mapping[str, Any]], facts: Callable[[], Mapping[str, str]]) -> None:
    """`write_parquet` for columns that come in parts, a row group each; memory is that of one part.

    Args:
        parts: with the same columns; one at least.
        facts: asked for after the last part, so that it may hold a hash of all.
    """
    fresh = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.unlink(missing_ok=True)
        fresh.touch(mode=0o600)
        with fresh.open("wb") as file:
            _write_parts(file, parts, facts)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        reason = error.strerror or "the disk refuses"
        raise StorageError(f"{path}: cannot be written: {reason}", "free space or mend permissions") from error


def _write_parts(file: Any, parts: Iterable[Mapping[str, Any]], facts: Callable[[], Mapping[str, str]]) -> None:
    pa, pq = pyarrow()
    tables = (pa.table(dict(columns)) for columns in parts)
    first = next(tables)
    with pq.ParquetWriter(file, first.schema) as writer:
        for table in chain([first], tables):
            writer.write_table(table)
        stated = {**facts(), "format": _FORMAT}
        writer.add_key_value_metadata({f"fedrec.{name}": fact for name, fact in stated.items()})


def read_parquet(path: Path, content: str) -> tuple[dict[str, list[Any]], dict[str, str]]:
    """Columns and facts of a file that `write_parquet` wrote with the fact `content`.

    Raises: DataError: not such a file, damaged, or of another format.
    """
    pa, pq = pyarrow()
    facts, table = parquet_facts(path, content), None
    with _reading(path), path.open("rb") as file, suppress(pa.ArrowException):
        table = pq.read_table(file)
    if table is None:
        raise DataError(f"{path}: is damaged, or no {content} written by fedrec", "import the data anew")
    return table.to_pydict(), facts


def parquet_facts(path: Path, content: str) -> dict[str, str]:
    """Facts of a file that `write_parquet` wrote with the fact `content`. Raises DataError as `read_parquet`."""
    pa, pq = pyarrow()
    metadata: dict[bytes, bytes] = {}
    with _reading(path), path.open("rb") as file, suppress(pa.ArrowException):
        metadata = pq.read_metadata(file).metadata or {}
    marked = [(key.decode(), fact.decode()) for key, fact in metadata.items() if key.startswith(b"fedrec.")]
    facts = {key.removeprefix("fedrec."): fact for key, fact in marked}
    if facts.get("content") != content:
        raise DataError(f"{path}: is damaged, or no {content} written by fedrec", "import the data anew")
    if facts["format"] != _FORMAT:
        theirs = facts["format"]
        raise DataError(f"{path}: has format {theirs}, this fedrec reads {_FORMAT}", "import it anew")
    return facts


def iter_parquet(path: Path, names: Sequence[str]) -> Iterator[Any]:
    """Some rows of a Parquet file at a time, as pyarrow's record batches. Raises DataError: damaged."""
    pa, pq = pyarrow()
    with _reading(path), path.open("rb") as file:
        try:
            yield from pq.ParquetFile(file).iter_batches(batch_size=_BATCH_ROWS, columns=list(names))
            return
        except (pa.ArrowException, KeyError):
            pass
    raise DataError(f"{path}: is damaged", "import the data anew")


def damaged(path: Path) -> DataError:
    """The error for a file whose content does not have the hash that stands in it."""
    return DataError(f"{path}: is damaged: its content does not have its hash", "import the data anew")
