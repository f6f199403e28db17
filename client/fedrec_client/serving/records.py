"""What the service is asked and answers, whatever API it came by. Private: no repr here shows a person or an item."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from fedrec.errors import DataError
from fedrec.query.understood import Understood
from fedrec.recommend.shelf import Item, Json

# Of imported rows: they made a history before anybody said what events mean, and always do.
IMPORTED_TYPE = "imported"
# Which recommender an item of an answer came from.
Source = Literal["model", "session", "similar", "trending", "popular", "latest", "pinned", "given"]


@dataclass(frozen=True, repr=False)
class Event:
    """Something that a person, or a session without a name, did with an item.

    Attributes:
        type: of the feedback, as `[feedback]` of serving.toml names them.
        user, session: one of them at least; "" for none.
        value: of a rating, a count, a number of seconds; what `rating>=3` is held against.
        timestamp: Unix seconds.
        id: by which a repeated event is known; "" lets the store make one.
        ranking: the answer that it responds to, "" if none.
    """

    type: str
    item: str
    user: str = ""
    session: str = ""
    value: float = 1.0
    timestamp: float = 0.0
    id: str = ""
    ranking: str = ""
    labels: Json = None
    comment: str = ""
    updated: float = 0.0

    def __post_init__(self) -> None:
        problems = [f"{name} is empty" for name in ("type", "item") if not getattr(self, name)]
        if not (self.user or self.session):
            problems.append("neither user nor session")
        if not (math.isfinite(self.value) and math.isfinite(self.timestamp)):
            problems.append("value or timestamp is not finite")
        for name in ("type", "item", "user", "session", "id", "ranking"):
            text = getattr(self, name)
            if len(text) > 256 or (text and not text.isprintable()):
                problems.append(f"{name} is longer than 256 characters or not printable")
        if problems:
            raise DataError.of_all(problems, "mend these; nothing was stored", "event")


@dataclass(frozen=True, repr=False)
class User:
    """A person as the partner knows them."""

    id: str
    labels: Json = None
    comment: str = ""
    subscribe: tuple[str, ...] = ()


@dataclass(frozen=True, repr=False)
class Query:
    """What a list is wanted for.

    Attributes:
        user: whose history is read; "" for nobody's.
        session: events of now, oldest first, which need not be stored.
        session_id: of a session whose stored events are read, where no user is named.
        n, offset: how many, from which place of the ranking on.
        words: what is wanted, as a person says it; "" for nothing said.
        categories: an item must be of each.
        exclude: items that must not be in it.
        candidates: rank these and no others, seen or not; None: all items.
        filter: an expression over the item's fields, see `fedrec.recommend.expression`.
        cursor: what the page before gave; nothing that its pages showed comes again.
        explain: say why.
        arm: of the A/B, by name; "" leaves it to the user's hash.
        ranking: an id for the answer; "" has one made.
        is_recorded: whether the list counts as shown to somebody.
    """

    user: str = ""
    session: tuple[Event, ...] = ()
    session_id: str = ""
    n: int = 10
    offset: int = 0
    words: str = ""
    categories: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    candidates: tuple[str, ...] | None = None
    filter: str = ""
    cursor: str = ""
    explain: bool = False
    arm: str = ""
    ranking: str = ""
    is_recorded: bool = True


@dataclass(frozen=True, repr=False)
class Why:
    """Why an item stands in a list.

    Attributes:
        because: history items that raise its score most, and by how much; strongest first.
        words: words of the item's text that the history has too.
        rules: names of the rules that acted on it.
        sentence: all of it for a person.
    """

    because: tuple[tuple[str, float], ...] = ()
    words: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    sentence: str = ""


@dataclass(frozen=True, repr=False)
class Ranked:
    """A place of a list.

    Attributes:
        features: what the final ranking weighed, by name, None where it is not known; empty unless it is asked for or
            the arm learns.
    """

    item: Item
    score: float
    source: Source
    rules: tuple[str, ...] = ()
    why: Why | None = None
    features: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class Answer:
    """A list, best first.

    Attributes:
        id: of this ranking: events that answer it name it.
        arm: of the A/B that made it.
        adapter: version that made it, "round-0031", say; "none" without one.
        cursor: for the next page; "" if there is none.
        took_ms: milliseconds in the service.
        understood: of a request in words; None without one.
    """

    id: str
    items: tuple[Ranked, ...]
    arm: str = "default"
    adapter: str = "none"
    cursor: str = ""
    took_ms: float = 0.0
    understood: Understood | None = None


@dataclass(frozen=True, repr=False)
class Shown:
    """A list that somebody was shown, as it is stored.

    Attributes:
        items: ids in their order.
        sources: of each.
        features: of the final ranking by name, of each item as it was then; None where it was not known. Empty unless
            the arm learns.
    """

    id: str
    user: str
    session: str
    at: float
    arm: str
    adapter: str
    items: tuple[str, ...]
    sources: tuple[str, ...] = ()
    features: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class Page:
    """Some rows of many, and where to go on; "" at the end."""

    rows: tuple[Mapping[str, Json], ...] = field(default=())
    cursor: str = ""
