"""What a tenant is told: events, items and people, written to the disk before anybody hears that they were taken."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from fedrec.errors import DataError
from fedrec.recommend.shelf import Item, Json
from fedrec_client.serving.errors import NotFoundError
from fedrec_client.serving.records import IMPORTED_TYPE, Event, User
from fedrec_client.serving.reviewing import Reviewing
from fedrec_client.serving.store.block_book import Kind
from fedrec_client.serving.store.event_book import AddedEvents, remove_events_of_item
from fedrec_client.serving.store.user_book import remove_user
from fedrec_client.serving.tenant import SESSION, Tenant, text_of
from fedrec_client.serving.tracing import span
from fedrec_client.serving.training_rows import IMPORTED

# Texts that are encoded before the answer; of more items the rest joins the lists some moments later.
_ENCODED_AT_ONCE = 64


@dataclass(frozen=True)
class Told:
    """What came of events.

    Attributes:
        accepted: that count now; `duplicates`: that were there already, by their ids.
        ignored: with users or items that are not known, where `http.auto_insert` is off.
    """

    accepted: int
    duplicates: int = 0
    ignored: int = 0


class Intake:
    """Changes of one tenant. Called on the event loop.

    Args:
        reviewing: looks at every item before it can stand in a list.
    """

    def __init__(self, tenant: Tenant, reviewing: Reviewing) -> None:
        self._tenant, self._reviewing = tenant, reviewing
        self._later: set[asyncio.Task[None]] = set()
        self._removals: set[asyncio.Task[dict[str, int]]] = set()
        self._known_users: set[str] = set()

    async def add_events(self, events: Sequence[Event], mode: Literal["add", "set"] = "add") -> Told:
        """Write events down; when this returns they are on the disk, and count in the next answer.

        Raises: DataError, StorageError (BusyError: too much waits): none of them was taken.
        """
        tenant, now = self._tenant, time.time()
        if any(event.type == IMPORTED_TYPE or event.id.startswith(IMPORTED) for event in events):
            raise DataError(
                f"the type {IMPORTED_TYPE!r} and ids with {IMPORTED!r} are kept for imported rows", "use others"
            )
        dated = [event if event.timestamp else replace(event, timestamp=now) for event in events]
        taken = dated if tenant.settings.http.auto_insert else await self._known(dated)
        if tenant.settings.http.auto_insert:
            await self._insert_unknown(taken)
        with span("store"):
            added: AddedEvents = await asyncio.wrap_future(tenant.writer.add_events(tenant.name, taken, mode))
        if mode == "set":
            for event in taken:
                self._forget(event)
        for event in _accepted(taken, added.duplicates):
            tenant.apply(event)
        repeated = set(added.duplicates)
        for event in taken:
            if event.id in repeated:  # whoever sent it first may have gone before it could count
                self._forget(event)
        return Told(added.accepted, len(added.duplicates), len(dated) - len(taken))

    def _forget(self, event: Event) -> None:
        for key in filter(None, (event.user, event.session and SESSION + event.session)):
            self._tenant.forget(key)

    async def _known(self, events: Sequence[Event]) -> list[Event]:
        tenant = self._tenant
        with_item = [event for event in events if event.item in tenant.shelf]
        users = {event.user for event in with_item if event.user} - self._known_users
        for user in users:
            if await asyncio.to_thread(tenant.store.users.get, user) is not None:
                self._known_users.add(user)
        return [event for event in with_item if not event.user or event.user in self._known_users]

    async def _insert_unknown(self, events: Sequence[Event]) -> None:
        """Users and items that events name come to be. Nobody said when such an item appeared: the newest it is not."""
        tenant = self._tenant
        items = sorted({event.item for event in events if tenant.shelf.find(event.item) is None})
        if items:
            await self.put_items([Item(item) for item in items])
        users = {event.user for event in events if event.user} - self._known_users
        if users:
            await asyncio.to_thread(tenant.store.users.put_new, sorted(users))
            self._known_users |= users

    async def put_items(self, items: Sequence[Item]) -> int:
        """Add items, or describe them anew; they are recommendable when this returns, but for those of a long list.

        What the screen finds something in is stored, and held back from lists until a person has decided.
        """
        tenant = self._tenant
        await self._reviewing.look_at(list({item.id: item for item in items}.values()))
        await asyncio.to_thread(tenant.store.items.put, items)
        async with tenant.changing_items:
            new = [item for item in {item.id: item for item in items}.values() if tenant.shelf.find(item.id) is None]
            await self._describe([item for item in items if tenant.shelf.find(item.id) is not None])
            await self._join(new[:_ENCODED_AT_ONCE])
        if new[_ENCODED_AT_ONCE:]:
            task = asyncio.create_task(self._join_later(new[_ENCODED_AT_ONCE:]))
            self._later.add(task)
            task.add_done_callback(self._later.discard)
        return len(items)

    async def _describe(self, items: Sequence[Item]) -> None:
        """Items that are there; one that joined later and has another text gets the features of that."""
        tenant, anew = self._tenant, list[Item]()
        for item in {item.id: item for item in items}.values():
            code = tenant.shelf.code_of(item.id)
            is_later = code >= tenant.engine.model.n_catalog
            if is_later and text_of(item) != text_of(tenant.shelf.item(code)):
                anew.append(item)
            else:
                tenant.shelf.put(item)
        for start in range(0, len(anew), _ENCODED_AT_ONCE):
            await self._describe_anew(anew[start : start + _ENCODED_AT_ONCE])

    async def _describe_anew(self, items: Sequence[Item]) -> None:
        """What was read of people who had them is of the text before."""
        tenant, codes = self._tenant, [self._tenant.shelf.code_of(item.id) for item in items]
        await tenant.engine.change_items(codes, [text_of(item) for item in items])
        tenant.index.changed(tenant.engine.model, codes)
        for item in items:
            tenant.shelf.put(item)
        changed = set(codes)
        for person in tenant.people.everybody():
            if not changed.isdisjoint(person.codes):
                tenant.forget(person.key[1])

    async def _join(self, items: Sequence[Item]) -> None:
        """First the engine, which takes time, then the shelf, at whose codes the engine's rows then are."""
        tenant = self._tenant
        if not items:
            return
        await tenant.engine.add_items([text_of(item) for item in items])
        for item in items:
            tenant.shelf.put(item)

    async def _join_later(self, items: Sequence[Item]) -> None:
        for start in range(0, len(items), _ENCODED_AT_ONCE):
            async with self._tenant.changing_items:
                some = [i for i in items[start : start + _ENCODED_AT_ONCE] if self._tenant.shelf.find(i.id) is None]
                await self._join(some)

    async def settle(self) -> None:
        """Wait for the items of long lists."""
        while self._later:
            await asyncio.gather(*self._later)

    async def change_item(self, item: str, changes: Mapping[str, Any]) -> Item:
        """Some attributes of an item, by the names of `Item`. Raises NotFoundError."""
        before = await asyncio.to_thread(self._tenant.store.items.get, item)
        if before is None:
            raise NotFoundError("item")
        after = replace(before, **changes)
        await self.put_items([after])
        return after

    async def remove_item(self, item: str, *, with_events: bool = False) -> bool:
        """Take an item off the lists; its events stay, unless they shall go too. Whether it was there."""
        tenant = self._tenant
        was_there = await asyncio.to_thread(tenant.store.items.remove, item)
        was_there = tenant.shelf.remove(item) or was_there
        if with_events:
            await asyncio.wrap_future(
                tenant.writer.submit(lambda connection: remove_events_of_item(connection, tenant.name, item))
            )
            code = tenant.shelf.find(item)
            for person in tenant.people.everybody():
                if code in person.seen:
                    tenant.forget(person.key[1])
        return was_there

    async def put_users(self, users: Sequence[User]) -> int:
        """Add people, or describe them anew."""
        await asyncio.to_thread(self._tenant.store.users.put, users)
        for user in users:
            self._known_users.add(user.id)
            if (person := self._tenant.people.find(user.id)) is not None:
                person.labels = user.labels
        return len(users)

    async def remove_user(self, user: str) -> dict[str, int]:
        """Delete a person and all that was derived from them here, by kind; docs/serving.md says what cannot be.

        It goes through the writer, behind what was written of them before.
        """
        # Whoever asked may go away: a deletion that has begun is carried to its end.
        task = asyncio.create_task(self._remove_user(user))
        self._removals.add(task)
        task.add_done_callback(self._removals.discard)
        return await asyncio.shield(task)

    async def _remove_user(self, user: str) -> dict[str, int]:
        self._tenant.removing.add(user)
        try:
            return await self._remove(user)
        finally:
            self._tenant.removing.discard(user)

    async def _remove(self, user: str) -> dict[str, int]:
        tenant = self._tenant
        self._forget_all(user)
        tenant.write_shown()
        gone = await asyncio.wrap_future(
            tenant.writer.submit(lambda connection: remove_user(connection, tenant.name, user))
        )
        self._forget_all(user)
        self._known_users.discard(user)
        for tell in tenant.on_removed:
            await asyncio.to_thread(tell, user)
        return gone

    def _forget_all(self, user: str) -> None:
        """A session may hold what somebody did, who may have many: all sessions are loaded anew when they are asked."""
        for person in self._tenant.people.everybody():
            if person.key[1] == user or person.key[1].startswith(SESSION):
                self._tenant.forget(person.key[1])
        self._tenant.forget(user)

    async def remove_events(self, user: str, item: str, type: str | None = None) -> int:  # noqa: A002
        """Delete what somebody did with an item; how many events went."""
        n = await asyncio.to_thread(self._tenant.store.events.remove, user, item, type)
        self._forget_all(user)
        return n

    async def block(self, user: str, kind: Kind, value: str, *, is_blocked: bool) -> bool:
        """Never show somebody an item or a category again, or allow it again; whether `unblock` found it."""
        blocks = self._tenant.store.blocks
        was_there = await asyncio.to_thread(blocks.block if is_blocked else blocks.unblock, user, kind, value)
        self._tenant.forget(user)
        return bool(was_there)

    async def export_user(self, user: str) -> dict[str, Json]:
        """Everything that is stored of a person, and what of them waits to be written now."""
        await self._tenant.written()
        return await asyncio.to_thread(self._tenant.store.users.export, user)


def _accepted(events: Sequence[Event], duplicates: Sequence[str]) -> Iterator[Event]:
    """Those that were stored: of an id that comes several times the first, unless it was there before."""
    left = Counter(event.id for event in events) - Counter(duplicates)
    for event in events:
        if not event.id or left[event.id] > 0:
            left[event.id] -= 1
            yield event
