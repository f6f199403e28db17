"""What each call sends and how its answer is read: once, for the client that waits and the one that does not."""

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypedDict, TypeVar
from urllib.parse import quote

from fedrec.client.answers import (
    Explanation,
    Item,
    ItemPage,
    Json,
    Question,
    Recommendations,
    Rule,
    Status,
    Taken,
    Trial,
    User,
    read,
)

_T = TypeVar("_T")


class ListOptions(TypedDict, total=False):
    """Of a list. `session`: of a session whose events were stored; `events`: of now, which are stored nowhere."""

    n: int
    offset: int
    categories: Sequence[str]
    exclude: Sequence[str]
    filter: str
    cursor: str
    explain: bool
    arm: str
    ranking: str
    is_recorded: bool
    fields: Sequence[str]
    events: Sequence[Mapping[str, Json]]
    session: str


class SimilarOptions(TypedDict, total=False):
    """Of what is like an item; `user`: without what they had."""

    user: str
    n: int
    offset: int
    category: Sequence[str]
    exclude: Sequence[str]
    filter: str
    cursor: str
    fields: Sequence[str]


class RankOptions(TypedDict, total=False):
    """Whose order candidates are put into."""

    user: str
    session: str
    events: Sequence[Mapping[str, Json]]
    explain: bool
    arm: str
    ranking: str
    is_recorded: bool
    fields: Sequence[str]


class EventFields(TypedDict, total=False):
    """An event: `type`, `item`, and one of `user` and `session`."""

    type: str
    item: str
    user: str
    session: str
    value: float
    timestamp: float
    id: str
    ranking: str
    labels: Json
    comment: str


@dataclass(frozen=True, repr=False)
class Call(Generic[_T]):
    """A request and how its answer is read.

    Attributes:
        is_repeatable: sent twice it does what it does once, so that it may be sent again where no answer came.
    """

    method: str
    path: str
    read: Callable[[Any], _T]
    query: Mapping[str, Any] | None = None
    body: Any = None
    is_repeatable: bool = True


def path_of(*segments: str) -> str:
    """Of a route; dots too are escaped where they are a whole segment, which clients take for a step.

    >>> path_of("items", "a/b"), path_of("items", "..")
    ('/v1/items/a%2Fb', '/v1/items/%2E%2E')
    """
    escaped = (quote(one, safe="") if one.strip(".") else one.replace(".", "%2E") for one in segments)
    return "/v1/" + "/".join(escaped)


def recommend(user: str, options: ListOptions) -> Call[Recommendations]:
    """Sent as a body, so that no id stands in an address."""
    return Call("POST", path_of("recommend"), _list, body={**_named(options), "user": user})


def next_page(user: str, options: ListOptions, cursor: str) -> Call[Recommendations]:
    """Of a list that was begun with these options: a ranking of its own."""
    following: ListOptions = {**options, "cursor": cursor, "offset": 0, "ranking": ""}
    return recommend(user, following)


def session(options: ListOptions) -> Call[Recommendations]:
    """For somebody without a name."""
    return Call("POST", path_of("session", "recommend"), _list, body=_named(options))


def similar(item: str, options: SimilarOptions) -> Call[Recommendations]:
    """What is like an item."""
    return Call("GET", path_of("similar", item), _list, query=options)


def rank(candidates: Iterable[str], options: RankOptions) -> Call[Recommendations]:
    """All candidates, best first."""
    return Call("POST", path_of("rank"), _list, body={**_named(options), "candidates": [*candidates]})


def add_events(events: Iterable[EventFields]) -> Call[Taken]:
    """Each with an id, so that a second try counts nothing twice."""
    body = [{**event, "id": event.get("id") or uuid.uuid4().hex} for event in events]
    return Call("POST", path_of("events"), lambda told: read(Taken, told), body=body)


def item(name: str) -> Call[Item]:
    """One item."""
    return Call("GET", path_of("items", name), _item)


def items(text: str, n: int, cursor: str) -> Call[ItemPage]:
    """Some items."""
    query = {"text": text, "n": n, "cursor": cursor}
    return Call("GET", path_of("items"), lambda told: read(ItemPage, told), query=query)


def put_items(every: Iterable[Item]) -> Call[int]:
    """Add items, or describe them anew."""
    return Call("POST", path_of("items"), lambda told: int(told["stored"]), body=[asdict(one) for one in every])


def change_item(name: str, changes: Mapping[str, Json]) -> Call[Item]:
    """Some attributes of an item."""
    return Call("PATCH", path_of("items", name), _item, body=dict(changes))


def remove_item(name: str) -> Call[bool]:
    """Take one off all lists."""
    return Call("DELETE", path_of("items", name), _was_there)


def user(name: str) -> Call[User]:
    """One person."""
    return Call("GET", path_of("users", name), lambda told: read(User, told))


def put_users(every: Iterable[User]) -> Call[int]:
    """Add people, or describe them anew."""
    return Call("POST", path_of("users"), lambda told: int(told["stored"]), body=[asdict(one) for one in every])


def delete_user(name: str) -> Call[dict[str, int]]:
    """Erase a person."""
    return Call("DELETE", path_of("users", name), lambda told: dict(told["removed"]))


def export_user(name: str) -> Call[dict[str, list[dict[str, Json]]]]:
    """All that is stored of a person."""
    return Call("GET", path_of("users", name, "export"), lambda told: dict(told["kept"]))


def block(name: str, kind: str, value: str, *, is_blocked: bool) -> Call[None]:
    """Never show somebody an item or a category again, or allow it again."""
    path = path_of("users", name, "blocks", kind, value)
    return Call("PUT" if is_blocked else "DELETE", path, lambda _: None)


def explain(name: str, of: str) -> Call[Explanation]:
    """Why an item is for somebody."""
    return Call("GET", path_of("explain", name, of), lambda told: read(Explanation, told))


def questions(name: str, k: int, exclude: Iterable[str]) -> Call[tuple[Question, ...]]:
    """What to ask somebody about, the most telling first."""
    query = {"k": k, "exclude": list(exclude)}
    return Call("GET", path_of("users", name, "questions"), _questions, query=query)


def rate_reason(ranking: str, of: str, helpful: bool, name: str, comment: str) -> Call[None]:
    """Whether a reason helped; a later opinion takes the place of an earlier one."""
    body = {"ranking": ranking, "item": of, "is_helpful": helpful, "user": name, "comment": comment}
    return Call("POST", path_of("explain", "feedback"), lambda _: None, body=body)


def rules() -> Call[tuple[Rule, ...]]:
    """All rules."""
    return Call("GET", path_of("rules"), lambda told: tuple(read(Rule, one) for one in told["rules"]))


def put_rule(rule: Mapping[str, Json]) -> Call[Rule]:
    """Make or change a rule."""
    return Call("PUT", path_of("rules", str(rule["name"])), lambda told: read(Rule, told), body=dict(rule))


def try_rule(rule: Mapping[str, Json]) -> Call[Trial]:
    """What a rule would be about."""
    return Call("POST", path_of("rules", "try"), lambda told: read(Trial, told), body=dict(rule))


def remove_rule(name: str) -> Call[None]:
    """Remove a rule that was made by API. Done twice it fails the second time, so it is not sent again."""
    return Call("DELETE", path_of("rules", name), lambda _: None, is_repeatable=False)


def status() -> Call[Status]:
    """Figures of now."""
    return Call("GET", path_of("status"), lambda told: read(Status, told))


def _named(options: ListOptions | RankOptions) -> dict[str, Any]:
    """With an id for the answer, so that a second try is no second list among those that were shown."""
    return {**options, "ranking": options.get("ranking") or uuid.uuid4().hex}


def _list(told: Any) -> Recommendations:
    return read(Recommendations, told)


def _item(told: Any) -> Item:
    return read(Item, told)


def _questions(told: Any) -> tuple[Question, ...]:
    return tuple(read(Question, one) for one in told["questions"])


def _was_there(told: Any) -> bool:
    return bool(told["was_there"])
