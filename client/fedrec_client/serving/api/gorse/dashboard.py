"""What of Gorse's dashboard is cheap to tell and true here: counts, categories, some of the configuration, users."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Request
from fastapi import Query as InQuery
from fastapi.responses import JSONResponse

from fedrec import __version__
from fedrec.recommend.shelf import Json
from fedrec_client.serving.api.gorse.asking import DEFAULT_N, ListAsked, PageAsked, page_of, tenant_of
from fedrec_client.serving.api.gorse.moments import tell_moment
from fedrec_client.serving.api.gorse.wire import tell_item, tell_user
from fedrec_client.serving.errors import NotFoundError
from fedrec_client.serving.records import Query, User
from fedrec_client.serving.service import Service, TenantService
from fedrec_client.serving.settings import ServingSettings

# Users of a page: each one's latest event is looked up.
_MOST_USERS = 200


def dashboard_routes(router: APIRouter, service: Service) -> None:
    """Adds them."""
    _of_everything(router, service)
    _of_users(router, service)


def _of_everything(router: APIRouter, service: Service) -> None:
    @router.get("/api/dashboard/stats")
    async def stats(request: Request) -> JSONResponse:
        """How many users and items there are. What Gorse's training would tell beside it does not exist here."""
        store = tenant_of(service, request).tenant.store
        users, items = await asyncio.to_thread(lambda: (store.users.count(), store.items.count()))
        return JSONResponse({"BinaryVersion": __version__, "NumServers": 1, "NumUsers": users, "NumItems": items})

    @router.get("/api/dashboard/categories")
    async def categories(request: Request) -> JSONResponse:
        """Categories of items, the largest first."""
        items = tenant_of(service, request).tenant.shelf.items()
        counts = Counter(category for item in items for category in set(item.categories))
        return JSONResponse(sorted(counts, key=lambda name: (-counts[name], name)))

    @router.get("/api/dashboard/config")
    async def config(request: Request) -> JSONResponse:
        """The settings that Gorse has too, under its names."""
        return JSONResponse(_config(tenant_of(service, request).tenant.settings))


def _of_users(router: APIRouter, service: Service) -> None:
    @router.get("/api/dashboard/users")
    async def page(request: Request, asked: Annotated[PageAsked, InQuery()]) -> JSONResponse:
        """Some users, and when they last did something."""
        one, size = tenant_of(service, request), min(asked.size, _MOST_USERS)
        rows, cursor = await asyncio.to_thread(one.tenant.store.users.page, size, asked.cursor)
        return page_of("Users", await asyncio.to_thread(_detailed, one, rows), cursor)

    @router.get("/api/dashboard/user/{user_id}")
    async def user(request: Request, user_id: str) -> JSONResponse:
        """A user, and when they last did something."""
        one = tenant_of(service, request)
        found = await asyncio.to_thread(one.tenant.store.users.get, user_id)
        if found is None:
            raise NotFoundError("user")
        return JSONResponse((await asyncio.to_thread(_detailed, one, [found]))[0])

    @router.get("/api/dashboard/recommend/{user_id}")
    async def recommend(request: Request, user_id: str, asked: Annotated[ListAsked, InQuery()]) -> JSONResponse:
        """What a user would be recommended, as whole items. Nobody is shown it."""
        query = Query(user_id, n=asked.n, categories=asked.categories(), is_recorded=False)
        answer = await tenant_of(service, request).lists.recommend(query)
        return JSONResponse([tell_item(ranked.item) | {"Score": float(ranked.score)} for ranked in answer.items])


def _detailed(one: TenantService, users: Sequence[User]) -> list[dict[str, Json]]:
    """In a thread."""
    told = []
    for user in users:
        latest = one.tenant.store.events.history(user.id, 1)
        told.append(tell_user(user) | {"LastActiveTime": tell_moment(latest[0].timestamp if latest else 0.0)})
    return told


def _config(settings: ServingSettings) -> dict[str, Json]:
    feedback, inserts = settings.feedback, settings.http.auto_insert
    return {
        "server": {"default_n": DEFAULT_N, "auto_insert_user": inserts, "auto_insert_item": inserts},
        "recommend": {
            "data_source": {
                "positive_feedback_types": list(feedback.positive),
                "read_feedback_types": list(feedback.read),
                "negative_feedback_types": list(feedback.negative),
            },
            "replacement": {"enable_replacement": feedback.repeats},
            "fallback": {"recommenders": list(settings.fallback.chain)},
        },
    }
