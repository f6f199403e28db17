"""Lists: a person's, a session's, of candidates, of what is like an item, and what is trending, popular or new."""

from collections.abc import Callable, Mapping
from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi import Query as InQuery

from fedrec.errors import DataError
from fedrec.recommend.arms import DEFAULT
from fedrec_client.serving.api.native.forms import PROBLEMS, Desk
from fedrec_client.serving.api.native.listing import (
    AnswerForm,
    ListForm,
    ListInQuery,
    RankForm,
    RecommendForm,
    SourceInQuery,
    query_in_body,
    query_in_path,
    told,
)
from fedrec_client.serving.http.metrics import ServingMetrics
from fedrec_client.serving.http.paths import Segment
from fedrec_client.serving.records import Answer, Query, Source
from fedrec_client.serving.service import TenantService

Tell = Callable[[TenantService, Answer, list[str]], AnswerForm]
_SOURCES: Mapping[Source, tuple[str, str]] = {
    "trending": ("What is chosen lately", "Events here, the older the less; empty until there is one."),
    "popular": ("What is chosen most", "In the federation's public data and here."),
    "latest": ("What is new", "By the items' timestamps."),
}


def list_routes(desk: Desk, metrics: ServingMetrics) -> APIRouter:
    """See the module."""
    router = APIRouter(prefix="/v1", tags=["Lists"], responses=PROBLEMS)
    tenant = Depends(desk)

    def tell(one: TenantService, answer: Answer, fields: list[str]) -> AnswerForm:
        metrics.count_list("own", [ranked.source for ranked in answer.items])
        return told(one.tenant, answer, fields)

    async def recommend(one: TenantService, query: Query, fields: list[str]) -> AnswerForm:
        _check_arm(one, query.arm)
        return tell(one, await one.lists.recommend(query), fields)

    @router.get("/recommend/{user}", summary="A person's list", response_model_exclude_unset=True)
    async def recommend_user(
        user: Segment, asked: Annotated[ListInQuery, InQuery()], one: TenantService = tenant
    ) -> AnswerForm:
        """The best items for somebody; of somebody who is not known yet, what is trending and popular."""
        return await recommend(one, query_in_path(user, asked), asked.fields)

    @router.post("/recommend", summary="A list with all that can be asked", response_model_exclude_unset=True)
    async def recommend_by_form(asked: RecommendForm, one: TenantService = tenant) -> AnswerForm:
        """Of a user, a session, both, or nobody."""
        return await recommend(one, query_in_body(asked.user, asked), asked.fields)

    @router.post("/session/recommend", summary="A session's list", response_model_exclude_unset=True)
    async def recommend_session(asked: ListForm, one: TenantService = tenant) -> AnswerForm:
        """For somebody without a name: by the events that are sent, or by a session's stored ones."""
        if not (asked.events or asked.session):
            raise DataError("neither events nor session", "send what they did, or the id under which it was stored")
        return await recommend(one, query_in_body("", asked), asked.fields)

    @router.post("/rank", summary="Rank candidates", response_model_exclude_unset=True)
    async def rank(asked: RankForm, one: TenantService = tenant) -> AnswerForm:
        """All of the candidates, best first; unknown ones come last, in their order."""
        _check_arm(one, asked.arm)
        return tell(one, await one.lists.rank(query_in_body(asked.user, asked)), asked.fields)

    @router.get("/similar/{item}", summary="What is like an item", response_model_exclude_unset=True)
    async def similar(
        item: Segment, asked: Annotated[SourceInQuery, InQuery()], one: TenantService = tenant
    ) -> AnswerForm:
        """By what people did with them, and by their texts."""
        return tell(one, await one.lists.similar(item, query_in_path(asked.user, asked)), asked.fields)

    for source, words in _SOURCES.items():
        _add_source(router, source, words, desk, tell)
    return router


def _add_source(router: APIRouter, source: Source, words: tuple[str, str], desk: Desk, tell: Tell) -> None:
    tenant = Depends(desk)

    async def from_source(asked: Annotated[SourceInQuery, InQuery()], one: TenantService = tenant) -> AnswerForm:
        answer = await one.lists.from_source(source, query_in_path(asked.user, asked))
        return tell(one, answer, asked.fields)

    router.add_api_route(
        f"/{source}",
        from_source,
        name=source,
        summary=words[0],
        description=words[1],
        response_model_exclude_unset=True,
    )


def _check_arm(one: TenantService, arm: str) -> None:
    """Any text would do for the service, but lists of an arm that is not there would stand among the results."""
    if arm and arm not in (DEFAULT, *(known.name for known in one.tenant.settings.arms)):
        raise DataError("no such arm", "name one of [[arms]]")
