"""People: what the partner knows of them, what they do not want to see, and what is theirs to take along or erase."""

import asyncio
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi import Query as InQuery
from pydantic import Field, JsonValue

from fedrec_client.serving.api.native.forms import (
    MOST_AT_ONCE,
    PROBLEMS,
    Asked,
    AskedInQuery,
    Category,
    Comment,
    Desk,
    Paged,
    Stored,
    Told,
    WasThere,
)
from fedrec_client.serving.api.native.listing import Excluded
from fedrec_client.serving.errors import NotFoundError
from fedrec_client.serving.http.paths import Id, Segment
from fedrec_client.serving.records import Query, User
from fedrec_client.serving.service import TenantService
from fedrec_client.serving.store.block_book import Kind


class UserForm(Asked):
    """A person without their id."""

    labels: Annotated[JsonValue, Field(description="Whatever describes them; rules read an object's values.")] = None
    comment: Comment = ""
    subscribe: list[Category] = Field([], max_length=1000)

    def values(self) -> dict[str, Any]:
        """What was sent, by the names of `User`."""
        sent = {name: getattr(self, name) for name in self.model_fields_set - {"id"}}
        return sent | ({"subscribe": tuple(self.subscribe)} if "subscribe" in sent else {})


class NamedUserForm(UserForm):
    """A person."""

    id: Id


class UserTold(Told):
    """A person as they are stored."""

    id: str
    labels: JsonValue
    comment: str
    subscribe: list[str]


class UserPage(Told):
    """People, by id."""

    users: list[UserTold]
    cursor: str


class Removed(Told):
    """Rows that went, by kind."""

    removed: dict[str, int]


class Exported(Told):
    """All that is stored of a person, by kind."""

    user: str
    kept: dict[str, list[dict[str, JsonValue]]]


class AskedInPath(AskedInQuery):
    """How many, and about what not."""

    k: Annotated[int, Field(ge=1, le=50, description="How many.")] = 5
    exclude: Excluded = Field([])


class QuestionTold(Told):
    """An item to ask about."""

    id: str
    title: str
    categories: list[str]


class QuestionsTold(Told):
    """Items to ask somebody about, the most telling first."""

    questions: list[QuestionTold]


class BlockTold(Told):
    """Whether somebody is never shown an item or a category."""

    is_blocked: bool


class BlocksTold(Told):
    """What somebody is never shown."""

    items: list[str]
    categories: list[str]


def user_routes(desk: Desk) -> APIRouter:
    """See the module."""
    router = APIRouter(prefix="/v1", tags=["Users"], responses=PROBLEMS)
    tenant = Depends(desk)

    @router.get("/users", summary="List people")
    async def find(asked: Annotated[Paged, InQuery()], one: TenantService = tenant) -> UserPage:
        """By id."""
        users, cursor = await asyncio.to_thread(one.tenant.store.users.page, asked.n, asked.cursor)
        return UserPage(users=[_told(user) for user in users], cursor=cursor)

    @router.post("/users", summary="Add many people")
    async def put_many(
        sent: Annotated[list[NamedUserForm], Field(min_length=1, max_length=MOST_AT_ONCE)],
        one: TenantService = tenant,
    ) -> Stored:
        """Or describe them anew."""
        return Stored(stored=await one.intake.put_users([User(form.id, **form.values()) for form in sent]))

    @router.get("/users/{user}", summary="Read a person")
    async def get(user: Segment, one: TenantService = tenant) -> UserTold:
        """What the partner wrote down of them."""
        return _told(await _user(one, user))

    @router.put("/users/{user}", summary="Add a person")
    async def put(user: Segment, sent: UserForm, one: TenantService = tenant) -> UserTold:
        """Or describe them anew."""
        made = User(user, **sent.values())
        await one.intake.put_users([made])
        return _told(made)

    @router.patch("/users/{user}", summary="Change a person")
    async def change(user: Segment, sent: UserForm, one: TenantService = tenant) -> UserTold:
        """What is sent takes the place of what was; `labels` as a whole."""
        made = replace(await _user(one, user), **sent.values())
        await one.intake.put_users([made])
        return _told(made)

    @router.delete("/users/{user}", summary="Erase a person")
    async def remove(user: Segment, one: TenantService = tenant) -> Removed:
        """All that is stored of them and what was derived from it here, from memory and disk."""
        return Removed(removed=await one.intake.remove_user(user))

    @router.get("/users/{user}/export", summary="Export a person")
    async def export(user: Segment, one: TenantService = tenant) -> Exported:
        """All that `DELETE` would erase, to be given to them."""
        return Exported(user=user, kept=await one.intake.export_user(user))

    @router.get("/users/{user}/questions", summary="What to ask somebody about")
    async def questions(
        user: Segment, asked: Annotated[AskedInPath, InQuery()], one: TenantService = tenant
    ) -> QuestionsTold:
        """Items whose answer says most of what to recommend; who is not known yet may be asked too.

        Answers are ordinary events, `like` and `dislike` say. An item that they do not know makes no event: name it in
        `exclude` when you ask again.
        """
        found = await one.lists.questions(Query(user, n=asked.k, exclude=tuple(asked.exclude), is_recorded=False))
        told = [QuestionTold(id=item.id, title=item.title, categories=list(item.categories)) for item in found]
        return QuestionsTold(questions=told)

    router.routes.extend(_block_routes(desk).routes)
    return router


def _block_routes(desk: Desk) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["Users"], responses=PROBLEMS)
    tenant = Depends(desk)
    path = "/users/{user}/blocks/{kind}/{value}"

    @router.get("/users/{user}/blocks", summary="What somebody does not want")
    async def every(user: Segment, one: TenantService = tenant) -> BlocksTold:
        """Items and categories that they are never shown."""
        blocked = await asyncio.to_thread(one.tenant.store.blocks.of, user)
        return BlocksTold(items=sorted(blocked.items), categories=sorted(blocked.categories))

    @router.get(path, summary="Whether somebody does not want it")
    async def get(user: Segment, kind: Kind, value: Segment, one: TenantService = tenant) -> BlockTold:
        """Whether it is on their list."""
        blocked = await asyncio.to_thread(one.tenant.store.blocks.of, user)
        return BlockTold(is_blocked=value in (blocked.items if kind == "item" else blocked.categories))

    @router.put(path, summary="Never show it again")
    async def block(user: Segment, kind: Kind, value: Segment, one: TenantService = tenant) -> BlockTold:
        """From the next list on."""
        await one.intake.block(user, kind, value, is_blocked=True)
        return BlockTold(is_blocked=True)

    @router.delete(path, summary="Allow it again")
    async def unblock(user: Segment, kind: Kind, value: Segment, one: TenantService = tenant) -> WasThere:
        """From the next list on."""
        return WasThere(was_there=await one.intake.block(user, kind, value, is_blocked=False))

    return router


async def _user(one: TenantService, user: str) -> User:
    found = await asyncio.to_thread(one.tenant.store.users.get, user)
    if found is None:
        raise NotFoundError("user")
    return found


def _told(user: User) -> UserTold:
    return UserTold(id=user.id, labels=user.labels, comment=user.comment, subscribe=list(user.subscribe))
