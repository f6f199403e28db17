"""Which items a user's vector scores highest: all of them looked at, or a graph that finds nearly the same.

The graph (hierarchical navigable small world) finds nearest neighbours; largest inner products become these when each
item gets one more coordinate that makes all as long as the longest.

Reference: Malkov & Yashunin 2016, arXiv:1603.09320; Bachrach et al. 2014, "Speeding Up the Xbox Recommender System
Using a Euclidean Transformation for Inner-Product Spaces".
"""

import hashlib
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray
from usearch.index import Index

from fedrec.files import replace_file, storage_errors
from fedrec.recommend.live_model import Floats

_CONNECTIVITY, _EFFORT_OF_ADDING = 64, 512
# Items that join later may be longer than all before; how much longer they may be without a new graph.
_ROOM = 1.2
Codes = NDArray[np.int64]


def best(scores: Floats, is_open: NDArray[np.bool_], k: int) -> Codes:
    """Codes of the k highest-scored open items, best first; equal scores by lower code. Fewer if fewer are open.

    >>> best(np.array([1.0, 3.0, 3.0, 2.0]), np.array([True, True, True, False]), 2).tolist()
    [1, 2]
    """
    codes = np.flatnonzero(is_open)
    if len(codes) > k:
        chosen = scores[codes]
        # All that equal the k-th, too: which of them are taken must not hang on how the partition goes.
        bound = np.partition(chosen, len(chosen) - k)[len(chosen) - k]
        codes = codes[chosen >= bound]
    return codes[np.argsort(-scores[codes], kind="stable")][:k]


class ItemGraph(Protocol):
    """Candidates by inner product among items that may join and change. Rows are `[items, width]`."""

    @property
    def waits(self) -> bool:
        """Whether `candidates` waits for another process, and so belongs into a thread; the rest never waits."""

    def __len__(self) -> int: ...

    def fits(self, rows: Floats) -> bool:
        """Whether these may still be added or changed; if not, a new graph is to be made of all."""

    def add(self, rows: Floats) -> None:
        """Items that joined, with the codes that follow. Raises ValueError: they do not fit."""

    def change(self, codes: Sequence[int], rows: Floats) -> None:
        """Other rows for items that are there. Raises ValueError: they do not fit."""

    def candidates(self, vector: Floats, k: int, effort: int) -> Codes:
        """Codes of about the k highest inner products, best first; more `effort` finds more of them."""


@dataclass(frozen=True)
class EqualLengths:
    """Rows made equally long by one more coordinate, so that nearest neighbours are largest inner products.

    Attributes:
        centre: `[width]`. The same taken off all items changes no order, and the shorter they are the better a graph
            finds.
        length: that all get.
    """

    centre: Floats
    length: float

    @classmethod
    def of(cls, rows: Floats, room: float = 1.0) -> Self:
        """As long as the longest times `room`."""
        centre = rows.mean(0)
        return cls(centre, float(_lengths(rows - centre).max()) * room)

    def fits(self, rows: Floats) -> bool:
        """Whether none is longer."""
        return bool(_lengths(rows - self.centre).max(initial=0.0) <= self.length)

    def augmented(self, rows: Floats) -> Floats:
        """`[items, width]` -> `[items, width + 1]`."""
        centred = rows - self.centre
        rest = np.sqrt(np.maximum(self.length**2 - _lengths(centred) ** 2, 0.0)).astype(np.float32)
        whole: Floats = np.concatenate([centred, rest[:, None]], 1)
        return whole


def _lengths(rows: Floats) -> NDArray[np.float64]:
    lengths: NDArray[np.float64] = np.linalg.norm(rows.astype(np.float64), axis=1)
    return lengths


class GraphIndex:
    """A graph in this process, kept in a file.

    Args:
        rows: what is scored with, `[items, width]`.
        folder: where a built graph is kept; found again by the rows' hash.
        threads: for building; None: half of the machine's, since lists are made meanwhile.
    """

    waits = False

    def __init__(self, rows: Floats, folder: Path | None = None, threads: int | None = None) -> None:
        self._n, width = rows.shape
        self._lengths = EqualLengths.of(rows, _ROOM)
        self._index = Index(
            ndim=width + 1,
            metric="ip",
            dtype="f32",
            connectivity=_CONNECTIVITY,
            expansion_add=_EFFORT_OF_ADDING,
        )
        name = rows_hash(rows, f"2|{_CONNECTIVITY}|{_EFFORT_OF_ADDING}|{_ROOM}")
        stored = folder / f"{name}.usearch" if folder else None
        if stored is not None and stored.is_file():
            self._index.load(str(stored))
            return
        half = max(1, (os.cpu_count() or 1) // 2)
        self._index.add(np.arange(self._n), self._lengths.augmented(rows), threads=threads or half)
        if stored is not None:
            with storage_errors(stored):
                stored.parent.mkdir(parents=True, exist_ok=True)
                for older in stored.parent.glob("*.usearch"):
                    older.unlink(missing_ok=True)  # another process may do the same
                replace_file(stored, bytes(self._index.save() or b""), f".{secrets.token_hex(8)}")

    def __len__(self) -> int:
        return int(self._n)

    def fits(self, rows: Floats) -> bool:
        """Whether they are short enough."""
        return self._lengths.fits(rows)

    def add(self, rows: Floats) -> None:
        """Items that joined, with the codes that follow. Raises ValueError: longer than `fits` allows."""
        if not self.fits(rows):
            raise ValueError("an item is longer than this index can take")
        self._index.add(np.arange(self._n, self._n + len(rows)), self._lengths.augmented(rows))
        self._n += len(rows)

    def change(self, codes: Sequence[int], rows: Floats) -> None:
        """Other rows for items that are there. Raises ValueError: longer than `fits` allows."""
        if not self.fits(rows):
            raise ValueError("an item is longer than this index can take")
        self._index.remove(np.array(codes))
        self._index.add(np.array(codes), self._lengths.augmented(rows))

    def candidates(self, vector: Floats, k: int, effort: int) -> Codes:
        """Codes of about the k highest inner products, best first; more `effort` finds more of them."""
        self._index.expansion_search = max(effort, k)  # type: ignore[misc]  # has a setter that its stub leaves out
        found = self._index.search(np.append(vector, np.float32(0.0)), min(k, self._n), threads=1)
        return np.asarray(found.keys, np.int64)


def rows_hash(rows: Floats, recipe: str) -> str:
    """32 hexadecimal digits that name a graph: what it is of, and how it was made."""
    made = f"{recipe}|{rows.shape}".encode()
    return hashlib.sha256(made + np.ascontiguousarray(rows).tobytes()).hexdigest()[:32]
