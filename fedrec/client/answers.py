"""What the service answers, as frozen values. Private: no repr here shows a person or an item."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

Json = Any
_T = TypeVar("_T")


@dataclass(frozen=True, repr=False)
class Reason:
    """An item of the history, and by how many nats it raises the score."""

    item: str
    title: str
    gain: float


@dataclass(frozen=True, repr=False)
class Why:
    """Why an item stands in a list."""

    because: tuple[Reason, ...]
    words: tuple[str, ...]
    rules: tuple[str, ...]
    sentence: str


@dataclass(frozen=True, repr=False)
class Recommended:
    """A place of a list. `fields` and `why` are there if they were asked for."""

    id: str
    score: float
    source: str
    rules: tuple[str, ...]
    title: str
    categories: tuple[str, ...]
    fields: Mapping[str, Json] = field(default_factory=dict)
    why: Why | None = None


@dataclass(frozen=True, repr=False)
class Question:
    """An item to ask somebody about; the answer is an event of type `like` or `dislike`."""

    id: str
    title: str
    categories: tuple[str, ...]


@dataclass(frozen=True, repr=False)
class Recommendations:
    """A list, best first. Events that answer it name its `ranking`; `cursor` is for the next page, "" at the end."""

    ranking: str
    arm: str
    adapter: str
    cursor: str
    took_ms: float
    items: tuple[Recommended, ...]

    @property
    def ids(self) -> list[str]:
        """Of the items, in their order."""
        return [one.id for one in self.items]


@dataclass(frozen=True, repr=False)
class Taken:
    """What came of events: stored, there before, or of unknown users and items where the service takes none."""

    accepted: int
    duplicates: int
    ignored: int


@dataclass(frozen=True, repr=False)
class Item:
    """An item."""

    id: str
    title: str = ""
    text: str = ""
    categories: tuple[str, ...] = ()
    timestamp: float = 0.0
    is_hidden: bool = False
    fields: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class ItemPage:
    """Items by id, and where to go on; "" at the end."""

    items: tuple[Item, ...]
    cursor: str


@dataclass(frozen=True, repr=False)
class User:
    """A person."""

    id: str
    labels: Json = None
    comment: str = ""
    subscribe: tuple[str, ...] = ()


@dataclass(frozen=True, repr=False)
class Explanation:
    """Why an item is for somebody; `holds`: without the items in `because` its score is lower."""

    because: tuple[Reason, ...]
    words: tuple[str, ...]
    rules: tuple[str, ...]
    sentence: str
    score: float
    score_without: float
    holds: bool


@dataclass(frozen=True)
class Rule:
    """A business rule: its keys, as rules.toml has them, and where it is kept."""

    rule: Mapping[str, Json]
    is_in_file: bool
    is_due: bool


@dataclass(frozen=True)
class Trial:
    """What a rule is about: how many items, and the first of them."""

    count: int
    ids: tuple[str, ...]
    is_due: bool


@dataclass(frozen=True)
class Status:
    """Figures of the service."""

    tenant: str
    adapter: str
    items: int
    users_in_memory: int
    events: int
    readings_kept: int
    waiting: int
    epsilon_remaining: float | None


def read(kind: type[_T], told: Any) -> _T:
    """A value of an answer's JSON; names that this version does not know are left out.

    >>> read(Trial, {"count": 1, "ids": ["a"], "is_due": True, "later": 0})
    Trial(count=1, ids=('a',), is_due=True)
    """
    made: _T = _value(kind, told)
    return made


def _value(kind: Any, told: Any) -> Any:
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return kind(**{name: _value(hint, told[name]) for name, hint in hints.items() if name in told})  # type: ignore[operator]
    if typing.get_origin(kind) is tuple:
        return tuple(_value(typing.get_args(kind)[0], one) for one in told)
    if isinstance(kind, types.UnionType) and told is not None:
        return _value(typing.get_args(kind)[0], told)
    return told
