"""What an item has beside its text: a picture, and vectors of other encoders (audio, video). Public, may be missing."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedrec.data.catalog import ItemCatalog
from fedrec.data.columns import Problems, damaged, problems_of, read_batches, read_parquet, write_parquet
from fedrec.errors import ConfigError, DataError

IMAGE = "image"
_WORDS = ("text", IMAGE, "item")
_REMEDY = "give each item a list of as many finite numbers, or nothing where there are none"
_PICTURE_REMEDY = "name files beside the catalogue, or leave the cell empty"


@dataclass(frozen=True)
class ModalityVectors:
    """One vector an item from one encoder; some items may have none.

    Attributes:
        name: "image", or what the owner calls the column.
        vectors: float32 `[items, width]`, zero where absent.
        present: bool `[items]`.
        made_from: identity of what was encoded and how. Partners compare this and not the vectors, whose last bits
            may differ from machine to machine.
        own_units: whether every number has a unit of its own, as statistics of different layers have; where they are
            reduced, each then counts by how far items differ in it. An owner's vector has one unit throughout.
    Raises: DataError: not finite, or of other shapes.
    """

    name: str
    vectors: NDArray[np.float32] = field(repr=False)
    present: NDArray[np.bool_] = field(repr=False)
    made_from: str = ""
    own_units: bool = False

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or self.present.shape != (len(self.vectors),):
            raise DataError(
                f"{self.name}: needs one vector and one mark an item", "give `[items, width]` and `[items]`"
            )
        if not np.isfinite(self.vectors).all() or self.vectors[~self.present].any():
            raise DataError(f"{self.name}: a vector is not finite, or not zero where it is absent", _REMEDY)

    @classmethod
    def of_column(cls, name: str, vectors: NDArray[np.float32], present: NDArray[np.bool_]) -> "ModalityVectors":
        """Vectors that their owner made elsewhere: they are their own identity."""
        vectors = vectors + np.float32(0)  # no -0.0, which is equal and has other bytes
        content = hashlib.sha256(name.encode() + str(vectors.shape).encode())
        content.update(np.ascontiguousarray(vectors, "<f4").tobytes() + present.tobytes())
        return cls(name, vectors, present, content.hexdigest())


@dataclass(frozen=True)
class ItemImages:
    """Pictures by item code, as encoded files; None where there is none."""

    pictures: Sequence[bytes | None] = field(repr=False)

    @cached_property
    def hash(self) -> str:
        """SHA-256, hex, over all of them, in order."""
        each = (hashlib.sha256(one).hexdigest() if one is not None else "none" for one in self.pictures)
        return hashlib.sha256("|".join(each).encode()).hexdigest()


@dataclass(frozen=True)
class ItemMedia:
    """All that a catalogue's items have beside their texts.

    Attributes:
        images: None where the catalogue has no column of pictures.
        columns: vectors that their owner made, each under a name of its own.
    """

    images: ItemImages | None = field(default=None, repr=False)
    columns: tuple[ModalityVectors, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Of every modality that is there."""
        return ((IMAGE,) if self.images else ()) + tuple(column.name for column in self.columns)

    def column(self, name: str) -> ModalityVectors:
        """An owner's vectors. Raises ConfigError: no such modality."""
        for column in self.columns:
            if column.name == name:
                return column
        there = ", ".join(self.names) or "none"
        raise ConfigError(f"the data have no modality {name!r}; there: {there}", "see `fedrec data import --help`")


def read_item_media(
    path: Path, catalog: ItemCatalog, *, item: str, image: str | None, vectors: Sequence[str]
) -> tuple[ItemMedia, int]:
    """Read pictures and vector columns of a catalogue file.

    Args:
        path: the file that the catalogue was read from, row for row.
        image: its column of files, relative to the file's own folder; empty cells are items without a picture.
        vectors: its columns of lists of numbers; in CSV, a cell is "0.1 0.2". Empty cells are items without.
    Returns: what was read, and how many pictures were named that are not there or cannot be read: those items go
        without, since one damaged file among thousands must not stop an import.
    Raises: DataError: a name that means something else, or cells that are no vectors of one width; all at once.
    """
    if wrong := [name for name in vectors if name in _WORDS or not name.isidentifier()]:
        raise DataError(f"{path}: a vector column may not be called {', '.join(wrong)}", "rename it in the file")
    problems, cells = (
        problems_of(path),
        {name: list[object]() for name in (item, *([image] if image else []), *vectors)},
    )
    lines: list[int] = []
    for batch in read_batches(path, list(cells), problems):
        lines += batch.lines
        for name, column in cells.items():
            column += batch.cells[name]
    columns = tuple(_column(name, cells[name], lines, problems) for name in vectors)
    problems.refuse(str(path), _REMEDY)
    if len(lines) != len(catalog):
        raise DataError(f"{path}: has {len(lines)} items, the catalogue {len(catalog)}", "read both from one file")
    images, lost = _pictures(path.parent, cells[image], lines, path) if image else (None, 0)
    return ItemMedia(images, columns), lost


def _column(name: str, cells: Sequence[object], lines: Sequence[int], problems: Problems) -> ModalityVectors:
    parsed = [_vector(cell) for cell in cells]
    widths = [one.size for one in parsed if one is not None and one.size]
    width = max(set(widths), key=widths.count) if widths else 0
    numbers = np.array(lines)
    problems.add(f"{name!r} is not a list of numbers", numbers[[one is None for one in parsed]])
    kept = [one if one is not None else np.zeros(0) for one in parsed]
    problems.add(
        f"{name!r} is not {width} numbers wide", numbers[[bool(one.size) and one.size != width for one in kept]]
    )
    problems.add(f"{name!r} is not finite", numbers[[not np.isfinite(one).all() for one in kept]])
    if not width:
        problems.add(f"{name!r} has no vector at all", numbers[:1])
    present = np.array([one.size == width and bool(np.isfinite(one).all()) for one in kept], np.bool_)
    vectors = np.zeros((len(cells), width), np.float32)
    for row in np.flatnonzero(present):
        vectors[row] = kept[row]
    return ModalityVectors.of_column(name, vectors, present)


def _vector(cell: object) -> NDArray[np.float64] | None:
    """The numbers of a cell; none of an empty one; None if it is something else."""
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return np.zeros(0)
    parts: Any = cell.replace(",", " ").split() if isinstance(cell, str) else cell
    try:
        found = np.array(parts, np.float64)
        with np.errstate(over="ignore"):  # what float32 cannot hold is told as not finite
            return found.astype(np.float32).astype(np.float64) if found.ndim == 1 else None
    except (TypeError, ValueError, OverflowError):
        return None


def _pictures(folder: Path, cells: Sequence[object], lines: Sequence[int], path: Path) -> tuple[ItemImages, int]:
    problems, root = problems_of(path), folder.resolve()
    outside = []
    pictures: list[bytes | None] = []
    lost = 0
    for cell, line in zip(cells, lines, strict=True):
        name = cell.strip() if isinstance(cell, str) else ""
        place = (root / name).resolve() if name else None
        if place is not None and not place.is_relative_to(root):
            outside.append(line)
            place = None
        content = place.read_bytes() if place is not None and place.is_file() else None
        lost += bool(name) and (content is None or not is_picture(content))
        pictures.append(content if content is not None and is_picture(content) else None)
    problems.add("the picture lies outside the catalogue's folder", outside)
    problems.refuse(str(path), _PICTURE_REMEDY)
    return ItemImages(tuple(pictures)), lost


def is_picture(content: bytes) -> bool:
    """Whether it begins as PNG, JPEG, GIF, WebP or BMP; the encoder finds out whether it can be read."""
    return content.startswith((b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM")) or content[8:12] == b"WEBP"


def write_media(media: ItemMedia, path: Path) -> None:
    """Write media as Parquet, whole or not at all. Raises StorageError."""
    columns: dict[str, Any] = {}
    if media.images is not None:
        columns[IMAGE] = list(media.images.pictures)
    for one in media.columns:
        columns[one.name] = [row if there else None for row, there in zip(one.vectors, one.present, strict=True)]
    write_parquet(path, columns, {"content": "media", "hash": _hash(media)})


def _hash(media: ItemMedia) -> str:
    parts = [media.images.hash if media.images else "none", *(one.made_from for one in media.columns)]
    return hashlib.sha256("|".join(parts).encode()).hexdigest()


def read_media(path: Path, catalog: ItemCatalog) -> ItemMedia:
    """Read what `write_media` wrote. Raises DataError: not such a file, of another catalogue, or damaged."""
    columns, facts = read_parquet(path, "media")
    if any(len(cells) != len(catalog) for cells in columns.values()):
        raise DataError(f"{path}: was made with another catalogue", "import the data anew")
    pictures = columns.pop(IMAGE, None)
    images = ItemImages(tuple(pictures)) if pictures is not None else None
    problems, lines = Problems("item"), range(1, len(catalog) + 1)
    media = ItemMedia(images, tuple(_column(name, cells, lines, problems) for name, cells in columns.items()))
    if _hash(media) != facts["hash"]:
        raise damaged(path)
    return media
