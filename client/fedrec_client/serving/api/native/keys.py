"""API keys of the caller's own tenant: listed, made, revoked."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import Field

from fedrec.errors import ConfigError
from fedrec_client.serving.api.native.forms import PROBLEMS, Asked, Told
from fedrec_client.serving.errors import ConflictError, NotFoundError
from fedrec_client.serving.http.keys import KeyRing
from fedrec_client.serving.http.paths import Id, Segment
from fedrec_client.serving.service import Service
from fedrec_client.serving.store.key_book import ApiKey, Scope


class KeyForm(Asked):
    """A key to be made."""

    name: Id
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=3)]


class KeyTold(Told):
    """A key without its secret."""

    name: str
    scopes: list[Scope]
    created_at: float = Field(description="Unix seconds.")


class NewKey(Told):
    """A key with its secret, which is shown now and never again."""

    name: str
    scopes: list[Scope]
    secret: str = Field(examples=["fk_..."])


class KeysTold(Told):
    """Keys, by name."""

    keys: list[KeyTold]


class Revoked(Told):
    """A key that opens nothing any more."""

    revoked: str


def key_routes(service: Service, ring: KeyRing | None) -> APIRouter:
    """See the module. What another tenant has is neither told nor touched.

    Args:
        ring: where keys are remembered, which is told of every change; without one it takes some seconds.
    """
    router = APIRouter(prefix="/v1", tags=["Keys"], responses=PROBLEMS)
    book = service.store.keys

    async def own(request: Request) -> list[ApiKey]:
        return [key for key in await asyncio.to_thread(book.every) if key.tenant == request.state.tenant]

    @router.get("/keys", summary="List keys")
    async def every(request: Request) -> KeysTold:
        """Without their secrets, which nobody has but their holders."""
        keys = await own(request)
        told = [KeyTold(name=key.name, scopes=sorted(key.scopes), created_at=key.created_at) for key in keys]
        return KeysTold(keys=told)

    @router.post("/keys", summary="Make a key", status_code=201)
    async def make(sent: KeyForm, request: Request) -> NewKey:
        """Its secret is in this answer alone. The first key closes a service that was open to its machine."""
        if not request.state.key and "admin" not in sent.scopes:
            raise ConflictError("the first key needs the scope admin", "without it nobody could make another")
        try:
            secret = await asyncio.to_thread(book.create, request.state.tenant, sent.name, set(sent.scopes))
        except ConfigError as error:
            raise ConflictError(error.problem, error.remedy) from None
        _forget(ring)
        return NewKey(name=sent.name, scopes=sorted(set(sent.scopes)), secret=secret)

    @router.delete("/keys/{name}", summary="Revoke a key")
    async def revoke(name: Segment, request: Request) -> Revoked:
        """From now on it opens nothing. Not the one that asks, so that somebody can still open."""
        if name == request.state.key:
            raise ConflictError("a key cannot revoke itself", "use another with the scope admin")
        if name not in [key.name for key in await own(request)]:
            raise NotFoundError("key")
        await asyncio.to_thread(book.revoke, name)
        _forget(ring)
        return Revoked(revoked=name)

    return router


def _forget(ring: KeyRing | None) -> None:
    if ring is not None:
        ring.forget()
