"""What columns can hold, the same in every database; cursors of pages; rows that are put over those that are there."""

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite

from fedrec.errors import DataError
from fedrec.recommend.shelf import Json

# So many values stand in one `IN (…)`; every database takes more.
CHUNK = 500
_EMPTY: dict[str, Callable[[], Json]] = {"null": lambda: None, "[]": list, "{}": dict}
_T = TypeVar("_T")


def to_json(value: Json) -> str:
    """Nested values as a column keeps them. Raises DataError: no JSON; the words do not show it."""
    if value is None:
        return "null"
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError):
        raise DataError("a nested value is no JSON", "numbers must be finite, keys text") from None


def from_json(text: str) -> Json:
    """What `to_json` was given; tuples come as lists."""
    if text in _EMPTY:  # most columns; it need not be parsed
        return _EMPTY[text]()
    return json.loads(text)


def storable(text: str) -> str:
    """The text, if every database takes it. Raises DataError: it has a null character or half of a pair."""
    if "\x00" in text or (not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)):
        raise DataError("a text has a null character or half of a surrogate pair", "send it as UTF-8")
    return text


def identifier(text: str) -> str:
    """An id, if it can be one. Raises DataError."""
    if not text or len(text) > 256 or not text.isprintable():
        raise DataError("an id is empty, longer than 256 characters or not printable", "give another")
    return text


def to_cursor(*place: str | float) -> str:
    """Where a page ended, for the next one. Private where ids are: base64 hides nothing."""
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def from_cursor(cursor: str, *kinds: type) -> tuple[Any, ...] | None:
    """The place, None for the first page. Raises DataError: no cursor of ours, or that of another list."""
    if not cursor:
        return None
    try:
        place = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, RecursionError):
        place = None
    if not isinstance(place, list) or [type(value) for value in place] != list(kinds) or not all(map(_fits, place)):
        raise DataError("the cursor is not one that this list gave", "begin without one")
    return tuple(place)


def _fits(value: object) -> bool:
    """Whether every database can compare with it."""
    if isinstance(value, int):
        return abs(value) < 2**63
    return not isinstance(value, str) or value.isprintable()


def upsert(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]], *, replace: bool = True) -> int:
    """Put rows by their primary key, each key once; of those that are there, replace all or leave all.

    Returns: how many were written; -1 where the database does not tell.
    """
    if not rows:
        return 0
    keys = [column.name for column in table.primary_key]
    once = {tuple(row[key] for key in keys): row for row in rows}
    ordered = [dict(once[key]) for key in sorted(once)]  # two that put the same rows must not wait for one another
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(table)
    changed = {name: statement.excluded[name] for name in rows[0] if name not in keys}
    if replace and changed:
        statement = statement.on_conflict_do_update(index_elements=keys, set_=changed)
    else:
        statement = statement.on_conflict_do_nothing(index_elements=keys)
    return connection.execute(statement, ordered).rowcount


def chunks(values: Iterable[_T], size: int = CHUNK) -> Iterator[list[_T]]:
    """All of them, some at a time.

    >>> list(chunks("abc", 2))
    [['a', 'b'], ['c']]
    """
    rest = iter(values)
    while chunk := list(islice(rest, size)):
        yield chunk
