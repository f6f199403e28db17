"""The client that waits for each answer."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, Unpack

import httpx

from fedrec.client import calls
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
)
from fedrec.client.calls import Call, EventFields, ListOptions, RankOptions, SimilarOptions
from fedrec.client.sending import Outcome, Wait, steps

_T = TypeVar("_T")


class RecommenderClient:
    """Asks a partner's service; safe to share between threads.

    Raises, in every call: RecommenderError, which says what is wrong and what to do.

    Args:
        url: of the service, such as "http://127.0.0.1:8088".
        api_key: "" where the service is open to its own machine.
        timeout_s: of one try.
        retries: further tries where the service is full or not reached.
        backoff_s: before the first of them; then twice as long each time.
        transport: of httpx, for a proxy, say, or a test.

    >>> with RecommenderClient("http://127.0.0.1:8088", api_key="fk_...") as client:  # doctest: +SKIP
    ...     client.add_events([{"type": "like", "user": "anna", "item": "181"}])
    ...     print(client.recommend("anna", n=5).ids)
    """

    def __init__(
        self,
        url: str,
        api_key: str = "",
        *,
        timeout_s: float = 10.0,
        retries: int = 3,
        backoff_s: float = 0.2,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        headers = {"x-api-key": api_key} if api_key else {}
        self._client = httpx.Client(base_url=url, headers=headers, timeout=timeout_s, transport=transport)
        self._retries, self._backoff_s = retries, backoff_s

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    def send(self, call: Call[_T]) -> _T:
        """Any call of `fedrec.client.calls`."""
        under_way = steps(self._client, call, self._retries, self._backoff_s)
        outcome: Outcome | None = None
        try:
            while True:
                step = under_way.send(outcome)
                outcome = None
                if isinstance(step, Wait):
                    time.sleep(step.seconds)
                else:
                    outcome = self._sent(step)
        except StopIteration as done:
            answer: _T = done.value
            return answer

    def _sent(self, request: httpx.Request) -> Outcome:
        try:
            return self._client.send(request)
        except httpx.TransportError as error:
            return error

    def recommend(self, user: str, **options: Unpack[ListOptions]) -> Recommendations:
        """The best items for somebody."""
        return self.send(calls.recommend(user, options))

    def pages(self, user: str, **options: Unpack[ListOptions]) -> Iterator[Recommendations]:
        """One page after the other, to the end; nothing comes twice."""
        page = self.recommend(user, **options)
        yield page
        while page.cursor:
            page = self.send(calls.next_page(user, options, page.cursor))
            yield page

    def recommend_session(self, **options: Unpack[ListOptions]) -> Recommendations:
        """For somebody without a name: by `events` of now, `[{"item": "181"}]`, or by the `session` of stored ones."""
        return self.send(calls.session(options))

    def similar(self, item: str, **options: Unpack[SimilarOptions]) -> Recommendations:
        """What is like an item."""
        return self.send(calls.similar(item, options))

    def rank(self, candidates: Iterable[str], **options: Unpack[RankOptions]) -> Recommendations:
        """All candidates, best first."""
        return self.send(calls.rank(candidates, options))

    def add_events(self, events: Iterable[EventFields]) -> Taken:
        """Tell what people did; each gets an id if it has none, so that no retry counts it twice."""
        return self.send(calls.add_events(events))

    def item(self, item: str) -> Item:
        """One item."""
        return self.send(calls.item(item))

    def items(self, text: str = "", n: int = 100, cursor: str = "") -> ItemPage:
        """Items by id, with a text in them."""
        return self.send(calls.items(text, n, cursor))

    def put_items(self, items: Iterable[Item]) -> int:
        """Add items, or describe them anew; how many."""
        return self.send(calls.put_items(items))

    def change_item(self, item: str, **changes: Json) -> Item:
        """Some attributes of an item, by the names of `Item`."""
        return self.send(calls.change_item(item, changes))

    def remove_item(self, item: str) -> bool:
        """Take an item off all lists; whether it was there."""
        return self.send(calls.remove_item(item))

    def user(self, user: str) -> User:
        """One person."""
        return self.send(calls.user(user))

    def put_users(self, users: Iterable[User]) -> int:
        """Add people, or describe them anew; how many."""
        return self.send(calls.put_users(users))

    def delete_user(self, user: str) -> dict[str, int]:
        """Erase a person; rows that went, by kind."""
        return self.send(calls.delete_user(user))

    def export_user(self, user: str) -> dict[str, list[dict[str, Json]]]:
        """All that is stored of a person, by kind."""
        return self.send(calls.export_user(user))

    def block(self, user: str, kind: Literal["item", "category"], value: str) -> None:
        """Never show somebody an item or a category again."""
        return self.send(calls.block(user, kind, value, is_blocked=True))

    def unblock(self, user: str, kind: Literal["item", "category"], value: str) -> None:
        """Allow it again."""
        return self.send(calls.block(user, kind, value, is_blocked=False))

    def questions(self, user: str, k: int = 5, exclude: Iterable[str] = ()) -> tuple[Question, ...]:
        """What to ask somebody about, the most telling first; name in `exclude` what they could not answer."""
        return self.send(calls.questions(user, k, exclude))

    def explain(self, user: str, item: str) -> Explanation:
        """Why an item is for somebody, held against the model."""
        return self.send(calls.explain(user, item))

    def rate_reason(self, ranking: str, item: str, *, is_helpful: bool, user: str = "", comment: str = "") -> None:
        """Whether the reason for an item in a list helped."""
        return self.send(calls.rate_reason(ranking, item, is_helpful, user, comment))

    def rules(self) -> Sequence[Rule]:
        """All rules."""
        return self.send(calls.rules())

    def put_rule(self, rule: Mapping[str, Any]) -> Rule:
        """Make or change a rule, by the keys of rules.toml."""
        return self.send(calls.put_rule(rule))

    def try_rule(self, rule: Mapping[str, Any]) -> Trial:
        """Which items a rule would be about; it is not kept."""
        return self.send(calls.try_rule(rule))

    def remove_rule(self, name: str) -> None:
        """Remove a rule that was made by API."""
        return self.send(calls.remove_rule(name))

    def status(self) -> Status:
        """Figures of the service."""
        return self.send(calls.status())
