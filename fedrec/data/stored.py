"""Interactions that stand user by user in a Parquet file, read a few users at a time: no table of all rows is made."""

import hashlib
import json
import os
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from fedrec.data.catalog import ItemCatalog
from fedrec.data.columns import iter_parquet, parquet_facts, pyarrow
from fedrec.data.interactions import InteractionTable
from fedrec.data.sequences import UserSequence, build_sequences
from fedrec.errors import DataError

_COLUMNS = ("user_codes", "item_codes", "rating", "timestamp")
_REMEDY = "import the data anew"
_From = TypeVar("_From")
_To = TypeVar("_To")


class Derived(Sequence[_To]):
    """Elements made of another sequence's when they are asked for, and not kept."""

    def __init__(self, of: Sequence[_From], make: Callable[[_From], _To]) -> None:
        self._of: Sequence[Any] = of
        self._make: Callable[[Any], _To] = make

    def __len__(self) -> int:
        return len(self._of)

    @overload
    def __getitem__(self, place: int) -> _To: ...
    @overload
    def __getitem__(self, place: slice) -> list[_To]: ...
    def __getitem__(self, place: int | slice) -> _To | list[_To]:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        return self._make(self._of[place])


class TableDigest:
    """The hash of a table that comes in pieces of whole users, as `InteractionTable.hash` has it of all at once.

    Columns are hashed one after the other, so they wait in files without a name.
    """

    def __init__(self) -> None:
        self._files = {name: tempfile.TemporaryFile() for name in _COLUMNS}  # noqa: SIM115  # closed by `hexdigest`
        self._ids, self._n_users = tempfile.TemporaryFile(), 0  # noqa: SIM115
        for file in (*self._files.values(), self._ids):
            weakref.finalize(self, file.close)

    def add(self, table: InteractionTable) -> None:
        """The next users' rows."""
        order = np.lexsort((table.item_codes, table.timestamp, table.user_codes))
        for name, file in self._files.items():
            column = getattr(table, name)[order]
            column = column + column.dtype.type(self._n_users if name == "user_codes" else 0)  # also: no -0.0
            file.write(column.astype(column.dtype.newbyteorder("<")).tobytes())
        # As json.dumps writes a list of all of them.
        self._ids.write((", " * bool(self._n_users) + json.dumps(table.user_ids)[1:-1]).encode())
        self._n_users += table.n_users

    def hexdigest(self, item_ids: Sequence[str]) -> str:
        """SHA-256, hex; once, at the end."""
        digest = hashlib.sha256(b"[[")
        for block in _blocks(self._ids):
            digest.update(block)
        digest.update(f"], {json.dumps(item_ids)}]".encode())
        for file in self._files.values():
            for block in _blocks(file):
                digest.update(block)
        return digest.hexdigest()


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    while block := file.read(1 << 20):
        yield block
    file.close()


@dataclass(frozen=True, eq=False, repr=False)
class StoredInteractions:
    """A file of `fedrec data import` or `generate` with its rows left where they are. Private.

    Attributes:
        hash: as of the `InteractionTable` with the same rows.
        generated: what the users were made from and how, or None if they are real.
    """

    path: Path
    catalog: ItemCatalog
    n_users: int
    n_rows: int
    hash: str
    generated: dict[str, Any] | None

    def __repr__(self) -> str:
        return "StoredInteractions(<private>)"

    @property
    def n_items(self) -> int:
        """Items of the catalogue, with or without rows."""
        return len(self.catalog)

    @classmethod
    def open(cls, path: Path, catalog: ItemCatalog) -> "StoredInteractions":
        """Check all of a file, some users at a time.

        Raises: DataError: not such a file, damaged, not in order of users, or made with another catalogue.
        """
        facts = parquet_facts(path, "interactions")
        digest, n_users, n_rows = TableDigest(), 0, 0
        for table in _tables(path, catalog):
            digest.add(table)
            n_users, n_rows = n_users + table.n_users, n_rows + table.n_rows
        if not n_rows or digest.hexdigest(catalog.ids) != facts["hash"]:
            raise DataError(f"{path}: is damaged, or was made with another catalogue", _REMEDY)
        generated = json.loads(facts["generated"]) if "generated" in facts else None
        return cls(path, catalog, n_users, n_rows, facts["hash"], generated)

    def tables(self) -> Iterator[InteractionTable]:
        """All rows, in tables of some whole users each. Raises DataError: changed since it was opened."""
        return _tables(self.path, self.catalog)

    def sequences(self, seed: int) -> "UserSequences":
        """What `build_sequences` gives of the whole table, read user by user."""
        return UserSequences.of(self.tables(), seed)


def _tables(path: Path, catalog: ItemCatalog) -> Iterator[InteractionTable]:
    """Rows in tables of whole users: the last user of a batch waits for the next batch."""
    pa, pc = pyarrow()[0], pyarrow_compute()
    ids, rest, last = pa.array(catalog.ids), None, ""
    for batch in iter_parquet(path, ("user", "item", "rating", "timestamp")):
        more = pa.Table.from_batches([batch])
        rows = more if rest is None else pa.concat_tables([rest, more])
        users = rows.column("user")
        first = int(pc.index(users, users[-1]).as_py())
        rest = rows.slice(first)
        if first:
            table = _table(pc, rows.slice(0, first), ids, catalog, path)
            last = _follows(table, last, path)
            yield table
    if rest is not None:
        table = _table(pc, rest, ids, catalog, path)
        _follows(table, last, path)
        yield table


def _table(pc: Any, rows: Any, ids: Any, catalog: ItemCatalog, path: Path) -> InteractionTable:
    users = pc.dictionary_encode(rows.column("user").combine_chunks())
    items = pc.index_in(rows.column("item"), value_set=ids)
    if users.null_count or items.null_count:
        raise DataError(f"{path}: a user is missing, or an item is not in the catalogue", _REMEDY)
    return InteractionTable(
        users.indices.to_numpy().astype(np.int32),
        items.to_numpy().astype(np.int32),
        rows.column("rating").to_numpy().astype(np.float32),
        rows.column("timestamp").to_numpy().astype(np.float64),
        tuple(users.dictionary.to_pylist()),
        catalog.ids,
    )


def _follows(table: InteractionTable, last: str, path: Path) -> str:
    """The last user's id. Raises DataError: users out of order (within a table the table itself has checked)."""
    if not last < table.user_ids[0] or (np.diff(table.user_codes) < 0).any():
        raise DataError(f"{path}: its rows do not stand in the order of users", _REMEDY)
    return table.user_ids[-1]


def pyarrow_compute() -> Any:
    """`pyarrow.compute`, once it is needed."""
    import pyarrow.compute

    return pyarrow.compute


class UserSequences(Sequence[UserSequence]):
    """Every user's sequence, on the disk in files without a name; read when it is asked for, not kept. Private.

    What stays in memory: an id and a place for each user, some 40 bytes.
    """

    def __init__(self, users: NDArray[np.str_], ends: NDArray[np.int64], items: IO[bytes], times: IO[bytes]) -> None:
        self._users, self._ends, self._items, self._times = users, ends, items, times
        for file in (items, times):
            weakref.finalize(self, file.close)

    @classmethod
    def of(cls, tables: Iterator[InteractionTable], seed: int) -> "UserSequences":
        """Sequences of tables of whole users, one after the other; the seed breaks ties as in `build_sequences`."""
        items, times = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115  # open as long as this
        users, lengths = list[NDArray[np.str_]](), list[NDArray[np.int64]]()
        for table in tables:
            found = build_sequences(table, seed)
            users.append(np.array([sequence.user for sequence in found]))
            lengths.append(np.array([len(sequence) for sequence in found], np.int64))
            items.write(np.concatenate([sequence.items for sequence in found]).tobytes())
            times.write(np.concatenate([sequence.timestamps for sequence in found]).tobytes())
        items.flush()
        times.flush()
        return cls(np.concatenate(users), np.cumsum(np.concatenate(lengths)), items, times)

    def __repr__(self) -> str:
        return "UserSequences(<private>)"

    def __len__(self) -> int:
        return len(self._users)

    @overload
    def __getitem__(self, place: int) -> UserSequence: ...
    @overload
    def __getitem__(self, place: slice) -> list[UserSequence]: ...
    def __getitem__(self, place: int | slice) -> UserSequence | list[UserSequence]:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        number = range(len(self))[place]  # an IndexError ends an iteration
        end, start = int(self._ends[number]), int(self._ends[number - 1]) if number else 0
        items, times = _read(self._items, np.int32, start, end), _read(self._times, np.float64, start, end)
        return UserSequence(str(self._users[number]), items, times)


def _read(file: IO[bytes], dtype: Any, start: int, end: int) -> NDArray[Any]:
    """Some numbers of a file; by place, so that threads do not meet."""
    size = np.dtype(dtype).itemsize
    return np.frombuffer(os.pread(file.fileno(), (end - start) * size, start * size), dtype)
