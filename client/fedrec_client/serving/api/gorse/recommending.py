"""Gorse's lists: for a user, for a session, of one source, and what is like an item or a user."""

import itertools
import time
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Request
from fastapi import Query as InQuery
from fastapi.responses import JSONResponse

from fedrec.recommend.shelf import Json
from fedrec_client.serving.api.gorse.asking import ListAsked, RecommendAsked, tenant_of
from fedrec_client.serving.api.gorse.wire import FeedbackSent, event_of
from fedrec_client.serving.errors import NotFoundError
from fedrec_client.serving.http.metrics import ServingMetrics
from fedrec_client.serving.http.problems import Problem, RefusalError
from fedrec_client.serving.records import Answer, Event, Query, Ranked, Source
from fedrec_client.serving.service import Service, TenantService

_Asked = Annotated[ListAsked, InQuery()]
_RecommendAsked = Annotated[RecommendAsked, InQuery()]
# Gorse's are named in its configuration; these are what is here.
_NON_PERSONALIZED: dict[str, Source] = {"popular": "popular", "trending": "trending", "latest": "latest"}
# As the ranking that a written-back event answers: it is none of somebody's clicks on the list.
_WRITTEN_BACK = "write-back"
_MOST_RUNS = 50


def list_routes(router: APIRouter, service: Service, metrics: ServingMetrics) -> None:
    """Adds them."""
    _personal(router, service, metrics)
    _of_sources(router, service, metrics)
    _neighbours(router, service, metrics)


def _personal(router: APIRouter, service: Service, metrics: ServingMetrics) -> None:
    @router.get("/api/recommend/{user_id}")
    @router.get("/api/recommend/{user_id}/", include_in_schema=False)  # so PyGorse asks, and is not to wait for it
    async def recommend(request: Request, user_id: str, asked: _RecommendAsked) -> JSONResponse:
        """Ids for a user, best first; with `X-API-Version: 2` ids and scores."""
        return await _recommend(tenant_of(service, request), metrics, request, user_id, asked, asked.categories())

    @router.get("/api/recommend/{user_id}/{category}", deprecated=True)
    async def recommend_of(request: Request, user_id: str, category: str, asked: _RecommendAsked) -> JSONResponse:
        """The same of one category."""
        one = tenant_of(service, request)
        return await _recommend(one, metrics, request, user_id, asked, asked.categories(category))

    @router.post("/api/session/recommend")
    async def session(request: Request, sent: list[FeedbackSent], asked: _Asked) -> JSONResponse:
        """For what is done now, which is not stored."""
        answer = await _session(tenant_of(service, request), sent, asked, asked.categories())
        return _list(metrics, answer, _scored(answer.items))

    @router.post("/api/session/recommend/{category}", deprecated=True)
    async def session_of(request: Request, category: str, sent: list[FeedbackSent], asked: _Asked) -> JSONResponse:
        """The same of one category."""
        answer = await _session(tenant_of(service, request), sent, asked, (category,))
        return _list(metrics, answer, _scored(answer.items))


def _of_sources(router: APIRouter, service: Service, metrics: ServingMetrics) -> None:
    async def tell(request: Request, source: Source, asked: ListAsked, categories: Sequence[str]) -> JSONResponse:
        return await _from_source(tenant_of(service, request), metrics, source, "", asked, categories)

    @router.get("/api/latest")
    async def latest(request: Request, asked: _Asked) -> JSONResponse:
        """The newest items; their score is their Unix time."""
        return await tell(request, "latest", asked, asked.categories())

    @router.get("/api/latest/{category}", deprecated=True)
    async def latest_of(request: Request, category: str, asked: _Asked) -> JSONResponse:
        """The same of one category."""
        return await tell(request, "latest", asked, (category,))

    @router.get("/api/popular", deprecated=True)
    async def popular(request: Request, asked: _Asked) -> JSONResponse:
        """What most people had to do with."""
        return await tell(request, "popular", asked, asked.categories())

    @router.get("/api/popular/{category}", deprecated=True)
    async def popular_of(request: Request, category: str, asked: _Asked) -> JSONResponse:
        """The same of one category."""
        return await tell(request, "popular", asked, (category,))

    @router.get("/api/non-personalized/{name}")
    async def non_personalized(request: Request, name: str, asked: _Asked) -> JSONResponse:
        """One of popular, trending and latest."""
        if name not in _NON_PERSONALIZED:
            raise NotFoundError("non-personalized recommender", "ask for popular, trending or latest")
        return await tell(request, _NON_PERSONALIZED[name], asked, asked.categories())

    @router.get("/api/collaborative-filtering/{user_id}")
    async def filtering(request: Request, user_id: str, asked: _Asked) -> JSONResponse:
        """The model's list for a user alone, which is empty for who has done nothing yet."""
        one = tenant_of(service, request)
        return await _from_source(one, metrics, "model", user_id, asked, asked.categories())

    @router.get("/api/collaborative-filtering/{user_id}/{category}", deprecated=True)
    async def filtering_of(request: Request, user_id: str, category: str, asked: _Asked) -> JSONResponse:
        """The same of one category."""
        return await _from_source(tenant_of(service, request), metrics, "model", user_id, asked, (category,))


def _neighbours(router: APIRouter, service: Service, metrics: ServingMetrics) -> None:
    """There is one likeness of items and one of users, so the names that Gorse's configuration gave are all it."""

    @router.get("/api/item-to-item/{name}/{item_id}")
    async def item_to_item(request: Request, name: str, item_id: str, asked: _Asked) -> JSONResponse:  # noqa: ARG001
        """Items like one."""
        return await _similar(tenant_of(service, request), metrics, item_id, asked, asked.categories())

    @router.get("/api/item/{item_id}/neighbors")
    async def item_neighbours(request: Request, item_id: str, asked: _Asked) -> JSONResponse:
        """Items like one."""
        return await _similar(tenant_of(service, request), metrics, item_id, asked, asked.categories())

    @router.get("/api/item/{item_id}/neighbors/{category}", deprecated=True)
    async def item_neighbours_of(request: Request, item_id: str, category: str, asked: _Asked) -> JSONResponse:
        """The same of one category."""
        return await _similar(tenant_of(service, request), metrics, item_id, asked, (category,))

    @router.get("/api/user-to-user/{name}/{user_id}")
    async def user_to_user(request: Request, name: str, user_id: str, asked: _Asked) -> JSONResponse:  # noqa: ARG001
        """Users like one, among those who were asked for lately."""
        return JSONResponse(await _like(tenant_of(service, request), user_id, asked))

    @router.get("/api/user/{user_id}/neighbors")
    async def user_neighbours(request: Request, user_id: str, asked: _Asked) -> JSONResponse:
        """Users like one, among those who were asked for lately."""
        return JSONResponse(await _like(tenant_of(service, request), user_id, asked))


async def _recommend(
    one: TenantService,
    metrics: ServingMetrics,
    request: Request,
    user: str,
    asked: RecommendAsked,
    categories: tuple[str, ...],
) -> JSONResponse:
    if asked.write_back_type and "write" not in request.state.scopes:
        words = 'this API key lacks the scope "write", which write-back-type needs'
        raise RefusalError(Problem("forbidden", 403, "This caller may not", words))
    answer = await one.lists.recommend(Query(user, n=asked.n, offset=asked.offset, categories=categories))
    if asked.write_back_type:
        at = time.time() + asked.write_back_delay
        events = [
            Event(asked.write_back_type, ranked.item.id, user, value=0.0, timestamp=at, ranking=_WRITTEN_BACK)
            for ranked in answer.items
        ]
        told = await one.intake.add_events(events)
        metrics.count_events("gorse", told.accepted)
    is_scored = request.headers.get("x-api-version", "").strip() == "2"
    return _list(metrics, answer, _scored(answer.items) if is_scored else [one.item.id for one in answer.items])


async def _session(
    one: TenantService, sent: Sequence[FeedbackSent], asked: ListAsked, categories: tuple[str, ...]
) -> Answer:
    """What has no moment is of now."""
    events = sorted((event_of(feedback, "session") for feedback in sent), key=lambda e: e.timestamp or float("inf"))
    return await one.lists.recommend(
        Query(session=tuple(events), n=asked.n, offset=asked.offset, categories=categories)
    )


async def _from_source(
    one: TenantService,
    metrics: ServingMetrics,
    source: Source,
    user: str,
    asked: ListAsked,
    categories: Sequence[str],
) -> JSONResponse:
    query = await _plain_query(one, user, asked, categories)
    answer = await one.lists.from_source(source, query)
    return _list(metrics, answer, _scored(answer.items, by_time=source == "latest"), is_recorded=False)


async def _similar(
    one: TenantService, metrics: ServingMetrics, item: str, asked: ListAsked, categories: Sequence[str]
) -> JSONResponse:
    """Empty for an item that is not there, as in Gorse."""
    query = await _plain_query(one, "", asked, categories)
    try:
        answer = await one.lists.similar(item, query)
    except NotFoundError:
        return JSONResponse([])
    return _list(metrics, answer, _scored(answer.items), is_recorded=False)


async def _like(one: TenantService, user: str, asked: ListAsked) -> list[dict[str, Json]]:
    found = await one.lists.neighbours(user, asked.n + asked.offset)
    return [{"Id": name, "Score": cosine} for name, cosine in found[asked.offset :]]


async def _plain_query(one: TenantService, user: str, asked: ListAsked, categories: Sequence[str]) -> Query:
    """Without what `?user-id=` has read, whether repeats are allowed or not. Nobody was shown a list to choose from."""
    read: tuple[str, ...] = ()
    if asked.user_id:
        person = await one.tenant.person(asked.user_id)
        read = tuple(one.tenant.shelf.item(code).id for code in person.seen)
    return Query(
        user or asked.user_id,
        n=asked.n,
        offset=asked.offset,
        categories=tuple(categories),
        exclude=read,
        is_recorded=False,
    )


def _scored(ranked: Sequence[Ranked], *, by_time: bool = False) -> list[Json]:
    return [{"Id": one.item.id, "Score": float(one.item.timestamp if by_time else one.score)} for one in ranked]


def _list(metrics: ServingMetrics, answer: Answer, body: Sequence[Json], *, is_recorded: bool = True) -> JSONResponse:
    """The body is Gorse's to the byte; what is ours stands in headers."""
    sources = [one.source for one in answer.items]
    metrics.count_list("gorse", sources)
    headers = {"x-fedrec-arm": answer.arm, "x-fedrec-adapter": answer.adapter}
    if is_recorded:
        headers["x-fedrec-ranking"] = answer.id
    runs = [f"{source};n={len(list(run))}" for source, run in itertools.groupby(sources)]
    if runs and len(runs) <= _MOST_RUNS:
        headers["x-fedrec-sources"] = ", ".join(runs)
    return JSONResponse(list(body), headers=headers)
