"""The item catalogue: public, the same at every partner, and all that text and features are made of."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from itertools import compress
from pathlib import Path

import numpy as np

from fedrec.data.columns import (
    Problems,
    damaged,
    id_text,
    numbers,
    problems_of,
    read_batches,
    read_parquet,
    write_parquet,
)
from fedrec.errors import DataError

_REMEDY = "give each item an id of its own, a title and a text"


@dataclass(frozen=True)
class ItemCatalog:
    """Items by code: the place of an item is its code everywhere in fedrec. Public.

    Attributes:
        ids: the owner's ids, distinct.
        titles: what a person reads; two items may share one.
        texts: what the language model reads.
        categories: per item, may be empty.
        years: of release, None where unknown.
    Raises: DataError: empty, of unequal lengths, an id twice, an item without id, title or text; all at once.

    >>> films = ItemCatalog(("7",), ("Heat (1995)",), ("Heat (1995). Crime.",), (("Crime",),), (1995,))
    >>> films.ids[films.find_title("heat (1995)")]
    '7'
    """

    ids: tuple[str, ...] = field(repr=False)
    titles: tuple[str, ...] = field(repr=False)
    texts: tuple[str, ...] = field(repr=False)
    categories: tuple[tuple[str, ...], ...] = field(repr=False)
    years: tuple[int | None, ...] = field(repr=False)

    def __post_init__(self) -> None:
        lengths = {len(values) for values in (self.ids, self.titles, self.texts, self.categories, self.years)}
        if len(lengths) > 1:
            raise DataError("catalogue: its columns differ in length", "give every item a value in each")
        problems = Problems("item")
        _check(range(1, len(self) + 1), self.ids, self.titles, self.texts, problems)
        problems.refuse("catalogue", _REMEDY)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def hash(self) -> str:
        """SHA-256, hex, over all of it, in order: equal at two partners who hold the same catalogue."""
        rows = [self.ids, self.titles, self.texts, self.categories, self.years]
        return hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()

    @cached_property
    def codes(self) -> dict[str, int]:
        """The code of each id."""
        return {item: code for code, item in enumerate(self.ids)}

    def index_of(self, item: str) -> int:
        """The code of an id. Raises DataError that names ids near it, not the one asked for."""
        code = self.codes.get(item)
        if code is None:
            near = get_close_matches(item, self.ids, n=3)
            remedy = f"ids near it: {', '.join(map(repr, near))}" if near else "add it to the catalogue"
            raise DataError("no such item in the catalogue", remedy)
        return code

    def find_title(self, title: str) -> int:
        """The code of a title as a person types it: in the right case, else in any.

        Args:
            title: in full, like "Toy Story (1995)". Where items share a title, the first of them is found.
        Raises: DataError: no such title; names three near it.
        """
        exact, folded = self._by_title
        code = exact.get(title.strip(), folded.get(title.strip().casefold()))
        if code is None:
            near = get_close_matches(title.strip().casefold(), folded, n=3, cutoff=0.3)
            hint = "; near it: " + ", ".join(repr(self.titles[folded[n]]) for n in near) if near else ""
            raise DataError(f"no title {title!r} in the catalogue{hint}", "write it as the catalogue does")
        return code

    @cached_property
    def _by_title(self) -> tuple[dict[str, int], dict[str, int]]:
        # Backwards, so that the first of equal titles stays.
        backwards = [(title.strip(), code) for code, title in enumerate(self.titles)][::-1]
        return dict(backwards), {title.casefold(): code for title, code in backwards}


def _check(
    lines: Sequence[int], ids: Sequence[str], titles: Sequence[str], texts: Sequence[str], problems: Problems
) -> None:
    """Add what no item may be."""
    if not ids:
        raise DataError("the catalogue has no items", _REMEDY)
    first = {item: line for line, item in zip(lines[::-1], ids[::-1], strict=True)}
    refused = {
        "id is empty or not printable text": [not item or item != id_text(item) for item in ids],
        "id stands in an earlier place too": [
            bool(item) and first[item] != line for line, item in zip(lines, ids, strict=True)
        ],
        "title is empty or not UTF-8": [not _is_text(title) for title in titles],
        "text is empty or not UTF-8": [not _is_text(text) for text in texts],
    }
    for reason, mask in refused.items():
        problems.add(reason, list(compress(lines, mask)))


def _is_text(text: str) -> bool:
    return bool(text.strip()) and text == text.encode(errors="ignore").decode()


def item_text(title: str, categories: Sequence[str]) -> str:
    """What the language model reads of an item that has no text of its own.

    >>> item_text("Toy Story (1995)", ["Animation", "Children's", "Comedy"])
    "Toy Story (1995). Animation, Children's, Comedy."
    """
    return f"{title}. {', '.join(categories)}." if categories else f"{title}."


@dataclass(frozen=True)
class CatalogColumns:
    """Names of a catalogue file's columns; None for those that it lacks.

    Attributes:
        text: without it, title and categories make the text.
        category_separator: between categories in one cell. Parquet and JSON lines may hold lists instead.
    """

    item: str
    title: str
    text: str | None = None
    categories: str | None = None
    year: str | None = None
    category_separator: str = "|"


def read_catalog(path: Path, columns: CatalogColumns) -> ItemCatalog:
    """Read a catalogue from CSV, TSV, Parquet or JSON lines; the file's order gives the codes.

    Raises: DataError: no such file or column, or items that cannot be; every reason with its lines.
    """
    names = [columns.item, columns.title, columns.text, columns.categories, columns.year]
    problems = problems_of(path)
    lines: list[int] = []
    ids: list[str] = []
    titles: list[str] = []
    texts: list[str] = []
    categories: list[tuple[str, ...]] = []
    years: list[int | None] = []
    for batch in read_batches(path, [name for name in names if name is not None], problems):
        blank = [None] * len(batch.lines)
        of = [blank if name is None else batch.cells[name] for name in names]
        lines += batch.lines
        ids += map(id_text, of[0])
        titles += map(_words, of[1])
        texts += map(_words, of[2])
        categories += (_split(cell, columns.category_separator) for cell in of[3])
        years += _years(of[4], batch.lines, columns.year, problems)
    if columns.text is None:
        texts = [item_text(*of) if of[0] else "" for of in zip(titles, categories, strict=True)]
    _check(lines, ids, titles, texts, problems)
    problems.refuse(str(path), _REMEDY)
    return ItemCatalog(tuple(ids), tuple(titles), tuple(texts), tuple(categories), tuple(years))


def _words(cell: object) -> str:
    """A cell on one line, without doubled blanks."""
    return " ".join(str(cell).split()) if isinstance(cell, str | int | float) else ""


def _split(cell: object, separator: str) -> tuple[str, ...]:
    parts = cell if isinstance(cell, list | tuple) else _words(cell).split(separator)
    return tuple(dict.fromkeys(word for part in parts if (word := _words(part))))


def _years(cells: Sequence[object], lines: Sequence[int], name: str | None, problems: Problems) -> list[int | None]:
    found = numbers(cells)
    whole = (found == found.round()) & (abs(found) < 10_000)
    blank = np.array([cell is None or not str(cell).strip() for cell in cells])
    problems.add(f"{name!r} is no year", np.array(lines)[~whole & ~blank])
    return [int(year) if is_whole else None for year, is_whole in zip(found, whole, strict=True)]


def write_catalog(catalog: ItemCatalog, path: Path) -> None:
    """Write a catalogue as Parquet, whole or not at all. Raises StorageError."""
    columns = {
        "item": catalog.ids,
        "title": catalog.titles,
        "text": catalog.texts,
        "categories": [list(words) for words in catalog.categories],
        "year": list(catalog.years),
    }
    write_parquet(path, columns, {"content": "catalog", "hash": catalog.hash})


def read_stored_catalog(path: Path) -> ItemCatalog:
    """Read what `write_catalog` wrote. Raises DataError: not such a file, of another format, or damaged."""
    columns, facts = read_parquet(path, "catalog")
    catalog = ItemCatalog(
        tuple(columns["item"]),
        tuple(columns["title"]),
        tuple(columns["text"]),
        tuple(tuple(words) for words in columns["categories"]),
        tuple(columns["year"]),
    )
    if catalog.hash != facts["hash"]:
        raise damaged(path)
    return catalog
