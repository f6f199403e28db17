"""Gorse's users."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Request
from fastapi import Query as InQuery
from fastapi.responses import JSONResponse

from fedrec_client.serving.api.gorse.asking import PageAsked, affected, page_of, tenant_of
from fedrec_client.serving.api.gorse.wire import UserPatch, UserSent, tell_user, user_of
from fedrec_client.serving.errors import NotFoundError
from fedrec_client.serving.records import User
from fedrec_client.serving.service import Service

_Asked = Annotated[PageAsked, InQuery()]


def user_routes(router: APIRouter, service: Service) -> None:
    """Adds them."""
    _adding(router, service)
    _reading(router, service)
    _changing(router, service)


def _adding(router: APIRouter, service: Service) -> None:
    async def put(request: Request, sent: Sequence[UserSent]) -> JSONResponse:
        return affected(await tenant_of(service, request).intake.put_users([user_of(one) for one in sent]))

    @router.post("/api/user")
    async def add(request: Request, sent: UserSent) -> JSONResponse:
        """Insert a user, or describe them anew."""
        return await put(request, [sent])

    @router.post("/api/users")
    async def add_all(request: Request, sent: list[UserSent]) -> JSONResponse:
        """Insert users, or describe them anew."""
        return await put(request, sent)


def _reading(router: APIRouter, service: Service) -> None:
    @router.get("/api/users")
    async def page(request: Request, asked: _Asked) -> JSONResponse:
        """Some of all users."""
        users = tenant_of(service, request).tenant.store.users
        rows, cursor = await asyncio.to_thread(users.page, asked.size, asked.cursor)
        return page_of("Users", [tell_user(user) for user in rows], cursor)

    @router.get("/api/user/{user_id}")
    async def get(request: Request, user_id: str) -> JSONResponse:
        """One."""
        found = await asyncio.to_thread(tenant_of(service, request).tenant.store.users.get, user_id)
        if found is None:
            raise NotFoundError("user")
        return JSONResponse(tell_user(found))


def _changing(router: APIRouter, service: Service) -> None:
    @router.patch("/api/user/{user_id}")
    async def modify(request: Request, user_id: str, patch: UserPatch) -> JSONResponse:
        """Change what is not null; nothing of a user who is not there, as in Gorse."""
        one = tenant_of(service, request)
        before = await asyncio.to_thread(one.tenant.store.users.get, user_id)
        if before is None:
            return affected(0)
        await one.intake.put_users([_changed(before, patch)])
        return affected(1)

    @router.delete("/api/user/{user_id}")
    async def remove(request: Request, user_id: str) -> JSONResponse:
        """Forget a user, what they did, and all that was derived from it."""
        gone = await tenant_of(service, request).intake.remove_user(user_id)
        return affected(int(any(gone.values())))


def _changed(user: User, patch: UserPatch) -> User:
    return replace(
        user,
        labels=user.labels if patch.labels is None else patch.labels,
        comment=user.comment if patch.comment is None else patch.comment,
        subscribe=user.subscribe if patch.subscribe is None else tuple(patch.subscribe),
    )
