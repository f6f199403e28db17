"""`POST /rank/{model}` and `POST /recommend/{model}`. What Metarank does not know stands in headers."""

import time
from dataclasses import replace
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from fedrec.recommend.arms import DEFAULT
from fedrec.recommend.shelf import Json
from fedrec_client.serving.api.metarank.wire import RankRequest, RecommendRequest, read_request
from fedrec_client.serving.errors import NotFoundError
from fedrec_client.serving.http.metrics import ServingMetrics
from fedrec_client.serving.people import FeedbackType
from fedrec_client.serving.records import Answer, Event, Query, Ranked
from fedrec_client.serving.service import Service, TenantService
from fedrec_client.serving.settings import ServingSettings


def list_routes(router: APIRouter, service: Service, metrics: ServingMetrics) -> None:
    """Puts them in."""

    @router.post("/rank/{model}")
    async def rank(model: str, request: Request, explain: bool = False) -> JSONResponse:
        """All given items, best first, with what the final ranking weighed if `explain` is true.

        The list is noted as shown under its `id`; a ranking event with that `id` tells what of it was displayed.
        """
        began, one, arm = time.perf_counter(), service.of(request.state.tenant), arm_named(service.settings, model)
        asked = read_request(await request.body(), RankRequest)
        query = Query(
            asked.user, session_id=asked.session, candidates=asked.ids(), explain=explain, arm=arm, ranking=asked.id
        )
        answer = await one.lists.rank(query)
        metrics.count_rank(arm, time.perf_counter() - began)
        return _told(answer, metrics, began, with_features=explain)

    @router.post("/recommend/{model}")
    async def recommend(model: str, request: Request) -> JSONResponse:
        """For a user, for what a session is about, or items like one."""
        began, one, arm = time.perf_counter(), service.of(request.state.tenant), arm_named(service.settings, model)
        asked = read_request(await request.body(), RecommendRequest)
        return _told(await _recommended(one, asked, arm), metrics, began)


def arm_named(settings: ServingSettings, model: str) -> str:
    """The arm that a path calls a model. Raises NotFoundError."""
    if model not in ([arm.name for arm in settings.arms] or [DEFAULT]):
        raise NotFoundError("model", "name one of [[arms]], or default where there are none")
    return model


async def _recommended(one: TenantService, asked: RecommendRequest, arm: str) -> Answer:
    """One item and nobody: what is like it. Otherwise the items are what somebody does now."""
    items = tuple(dict.fromkeys(asked.items))
    query = Query(asked.user, n=asked.count, exclude=items, arm=arm)
    if len(items) == 1 and not asked.user and items[0] in one.tenant.shelf:
        return await one.lists.similar(items[0], query)
    kind, value = _liking(one)
    session = tuple(Event(kind, item, session="now", value=value) for item in items)
    return await one.lists.recommend(replace(query, session=session))


def _liking(one: TenantService) -> tuple[str, float]:
    """A type and value of event that makes a history, whatever `[feedback]` says."""
    for text in one.tenant.settings.feedback.positive:
        told = FeedbackType.parse(text)
        kind = "click" if told.name == "*" else told.name
        for value in (told.bound or 1.0, told.bound + 1, told.bound - 1):
            if one.tenant.feedback.is_positive(kind, value):
                return kind, value
    return "click", 1.0


def _told(answer: Answer, metrics: ServingMetrics, began: float, *, with_features: bool = False) -> JSONResponse:
    metrics.count_list("metarank", [ranked.source for ranked in answer.items])
    items = [_item(ranked, with_features=with_features) for ranked in answer.items]
    headers = {"x-fedrec-ranking": quote(answer.id), "x-fedrec-arm": answer.arm, "x-fedrec-adapter": answer.adapter}
    return JSONResponse({"took": round(1000 * (time.perf_counter() - began)), "items": items}, headers=headers)


def _item(ranked: Ranked, *, with_features: bool) -> dict[str, Json]:
    told: dict[str, Json] = {"item": ranked.item.id, "score": ranked.score}
    if with_features:
        features = [{"name": name, "value": value} for name, value in ranked.features.items()]
        told["features"] = features + [{"name": f"rule:{name}", "value": 1.0} for name in ranked.rules]
    return told
