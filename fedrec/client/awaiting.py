"""The client for code that awaits."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
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


class AsyncRecommenderClient:
    """Asks a partner's service, within one event loop.

    Raises, in every call: RecommenderError, which says what is wrong and what to do.

    Args: as of `RecommenderClient`.

    >>> async with AsyncRecommenderClient("http://127.0.0.1:8088", api_key="fk_...") as client:  # doctest: +SKIP
    ...     await client.add_events([{"type": "like", "user": "anna", "item": "181"}])
    ...     print((await client.recommend("anna", n=5)).ids)
    """

    def __init__(
        self,
        url: str,
        api_key: str = "",
        *,
        timeout_s: float = 10.0,
        retries: int = 3,
        backoff_s: float = 0.2,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        headers = {"x-api-key": api_key} if api_key else {}
        self._client = httpx.AsyncClient(base_url=url, headers=headers, timeout=timeout_s, transport=transport)
        self._retries, self._backoff_s = retries, backoff_s

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the connections."""
        await self._client.aclose()

    async def send(self, call: Call[_T]) -> _T:
        """Any call of `fedrec.client.calls`."""
        under_way = steps(self._client, call, self._retries, self._backoff_s)
        outcome: Outcome | None = None
        try:
            while True:
                step = under_way.send(outcome)
                outcome = None
                if isinstance(step, Wait):
                    await asyncio.sleep(step.seconds)
                else:
                    outcome = await self._sent(step)
        except StopIteration as done:
            answer: _T = done.value
            return answer

    async def _sent(self, request: httpx.Request) -> Outcome:
        try:
            return await self._client.send(request)
        except httpx.TransportError as error:
            return error

    async def recommend(self, user: str, **options: Unpack[ListOptions]) -> Recommendations:
        """The best items for somebody."""
        return await self.send(calls.recommend(user, options))

    async def pages(self, user: str, **options: Unpack[ListOptions]) -> AsyncIterator[Recommendations]:
        """One page after the other, to the end; nothing comes twice."""
        page = await self.recommend(user, **options)
        yield page
        while page.cursor:
            page = await self.send(calls.next_page(user, options, page.cursor))
            yield page

    async def recommend_session(self, **options: Unpack[ListOptions]) -> Recommendations:
        """For somebody without a name: by `events` of now, `[{"item": "181"}]`, or by the `session` of stored ones."""
        return await self.send(calls.session(options))

    async def similar(self, item: str, **options: Unpack[SimilarOptions]) -> Recommendations:
        """What is like an item."""
        return await self.send(calls.similar(item, options))

    async def rank(self, candidates: Iterable[str], **options: Unpack[RankOptions]) -> Recommendations:
        """All candidates, best first."""
        return await self.send(calls.rank(candidates, options))

    async def add_events(self, events: Iterable[EventFields]) -> Taken:
        """Tell what people did; each gets an id if it has none, so that no retry counts it twice."""
        return await self.send(calls.add_events(events))

    async def item(self, item: str) -> Item:
        """One item."""
        return await self.send(calls.item(item))

    async def items(self, text: str = "", n: int = 100, cursor: str = "") -> ItemPage:
        """Items by id, with a text in them."""
        return await self.send(calls.items(text, n, cursor))

    async def put_items(self, items: Iterable[Item]) -> int:
        """Add items, or describe them anew; how many."""
        return await self.send(calls.put_items(items))

    async def change_item(self, item: str, **changes: Json) -> Item:
        """Some attributes of an item, by the names of `Item`."""
        return await self.send(calls.change_item(item, changes))

    async def remove_item(self, item: str) -> bool:
        """Take an item off all lists; whether it was there."""
        return await self.send(calls.remove_item(item))

    async def user(self, user: str) -> User:
        """One person."""
        return await self.send(calls.user(user))

    async def put_users(self, users: Iterable[User]) -> int:
        """Add people, or describe them anew; how many."""
        return await self.send(calls.put_users(users))

    async def delete_user(self, user: str) -> dict[str, int]:
        """Erase a person; rows that went, by kind."""
        return await self.send(calls.delete_user(user))

    async def export_user(self, user: str) -> dict[str, list[dict[str, Json]]]:
        """All that is stored of a person, by kind."""
        return await self.send(calls.export_user(user))

    async def block(self, user: str, kind: Literal["item", "category"], value: str) -> None:
        """Never show somebody an item or a category again."""
        return await self.send(calls.block(user, kind, value, is_blocked=True))

    async def unblock(self, user: str, kind: Literal["item", "category"], value: str) -> None:
        """Allow it again."""
        return await self.send(calls.block(user, kind, value, is_blocked=False))

    async def questions(self, user: str, k: int = 5, exclude: Iterable[str] = ()) -> tuple[Question, ...]:
        """What to ask somebody about, the most telling first; name in `exclude` what they could not answer."""
        return await self.send(calls.questions(user, k, exclude))

    async def explain(self, user: str, item: str) -> Explanation:
        """Why an item is for somebody, held against the model."""
        return await self.send(calls.explain(user, item))

    async def rate_reason(
        self, ranking: str, item: str, *, is_helpful: bool, user: str = "", comment: str = ""
    ) -> None:
        """Whether the reason for an item in a list helped."""
        return await self.send(calls.rate_reason(ranking, item, is_helpful, user, comment))

    async def rules(self) -> Sequence[Rule]:
        """All rules."""
        return await self.send(calls.rules())

    async def put_rule(self, rule: Mapping[str, Any]) -> Rule:
        """Make or change a rule, by the keys of rules.toml."""
        return await self.send(calls.put_rule(rule))

    async def try_rule(self, rule: Mapping[str, Any]) -> Trial:
        """Which items a rule would be about; it is not kept."""
        return await self.send(calls.try_rule(rule))

    async def remove_rule(self, name: str) -> None:
        """Remove a rule that was made by API."""
        return await self.send(calls.remove_rule(name))

    async def status(self) -> Status:
        """Figures of the service."""
        return await self.send(calls.status())
