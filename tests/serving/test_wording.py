"""Requests in words in the service: what is understood and told, whose list it is, and that nothing else changes."""

from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from fedrec.data.catalog import ItemCatalog
from fedrec.query.learning import LearningPlan
from fedrec.query.query_model import QueryModel, QuerySource, make_query_model
from fedrec.query.titles import spoken_title
from fedrec_client.serving.api.native.router import routes
from fedrec_client.serving.service import Service
from tests.serving.conftest import Place
from tests.serving.native_calls import ids, like, problem


@pytest.fixture(scope="module")
def queries(tiny_llama: Path, catalog: ItemCatalog) -> QueryModel:
    plan = LearningPlan(first_requests=200, head_steps=150, steps=2, batch=8, chinese=0.0)
    return make_query_model(QuerySource(catalog, tiny_llama, None, 2), plan, lambda *_: None)


@pytest.fixture
def asked(place: Place, queries: QueryModel) -> Place:
    return replace(place, served=replace(place.served, queries=queries))


def test_a_request_in_words_is_answered_told_and_personal(asked: Place, catalog: ItemCatalog) -> None:
    title = spoken_title(catalog.titles[4])

    async def work(client: httpx.AsyncClient, service: Service) -> None:
        found = await client.post("/v1/recommend", json={"query": "a comedy", "n": 5})
        told = found.json()
        assert found.status_code == 200
        assert list(told["understood"]) == ["wanted", "unwanted", "first_year", "last_year", "like", "named"]
        assert {place["source"] for place in told["items"]} == {"popular"}
        stranger = ids(found)
        alike = (await client.get("/v1/recommend/nobody", params={"query": f"like {title}", "n": 40})).json()
        assert alike["understood"]["like"] == ["i4"]
        assert "i4" not in [place["id"] for place in alike["items"]]
        named = (await client.get("/v1/recommend/nobody", params={"query": title, "n": 3})).json()
        assert named["items"][0]["id"] == "i4"
        assert named["understood"]["named"] == ["i4"]
        await like(client, "anna", "i1", "i5", "i9")
        own = await client.get("/v1/recommend/anna", params={"query": "a comedy", "n": 5})
        assert own.json()["items"][0]["source"] == "model"
        assert ids(own) != stranger
        assert not {"i1", "i5", "i9"} & set(ids(own))
        plain = await client.get("/v1/recommend/anna", params={"n": 5})
        assert "understood" not in plain.json()

    asked.call(routes, work)


def test_the_next_page_belongs_to_its_request_and_repeats_nothing(asked: Place) -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        first = await client.post("/v1/recommend", json={"query": "a comedy", "n": 5})
        cursor = first.json()["cursor"]
        second = await client.post("/v1/recommend", json={"query": "a comedy", "n": 5, "cursor": cursor})
        assert not set(ids(first)) & set(ids(second))
        other = await client.post("/v1/recommend", json={"query": "a war film", "n": 5, "cursor": cursor})
        assert problem(other)[0] == 400

    asked.call(routes, work)


def test_items_that_came_later_answer_by_their_categories_and_year(
    asked: Place, queries: QueryModel, catalog: ItemCatalog
) -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        item = {"id": "new", "title": "New", "categories": ["Comedy"], "fields": {"year": 1980}}
        assert (await client.post("/v1/items", json=[item])).status_code == 200
        scores = service.of("default").lists.wording.worded(queries.understand("a comedy")).scores
        assert catalog.categories[20] == ("Comedy",)
        assert catalog.years[20] == 1980
        assert len(scores) == 41
        assert scores[40] == pytest.approx(scores[20])

    asked.call(routes, work)


def test_without_a_reader_words_are_refused_with_the_remedy(place: Place) -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        answer = await client.post("/v1/recommend", json={"query": "a comedy"})
        assert 400 <= answer.status_code < 500
        assert "taught" in answer.json()["detail"]
        assert "fedrec query train" in answer.json()["remedy"]

    place.call(routes, work)
