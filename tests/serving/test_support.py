"""Support answers through the real service: found, refused, handed over, answered by a person, forgotten."""

import asyncio
import html
import logging
import re
from collections.abc import Callable

import httpx
import pytest

from fedrec.support.answers import Answer
from fedrec_client.serving.api.native.router import routes
from fedrec_client.serving.http.scopes import scope_needed
from fedrec_client.serving.pages.routes import routes as pages
from fedrec_client.serving.service import Service
from tests.serving.conftest import Place
from tests.serving.native_calls import problem

PAIRS = [
    {"id": "back", "question": "space war river", "answer": "quiet love"},
    {"id": "pay", "question": "music night comedy", "answer": "drama"},
]
SECRET = "loud river drama"
HOSTILE = "<script>alert(1)</script> river"


@pytest.fixture
def desk(make_place: Callable[..., Place]) -> Place:
    """With a threshold that the very question alone passes, since the tiny model knows no meaning."""
    return make_place(support={"threshold": 0.9999, "question_weight": 1.0})


def test_a_known_question_is_answered_and_an_unknown_one_is_handed_over(desk: Place) -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        empty = (await client.post("/v1/support/questions", json={"request": "space", "hand_over": False})).json()
        assert (empty["is_known"], empty["answers"], empty["handover"]) == (False, [], "")
        assert (await client.put("/v1/support/answers", json={"answers": PAIRS})).json() == {"stored": 2}
        told = (await client.post("/v1/support/questions", json={"request": PAIRS[1]["question"]})).json()
        assert (told["is_known"], told["handover"]) == (True, "")
        assert (told["answers"][0]["id"], told["answers"][0]["score"]) == ("pay", 1.0)
        unknown = {"request": SECRET, "user": "anna", "k": 1}
        refused = (await client.post("/v1/support/questions", json=unknown)).json()
        assert not refused["is_known"]
        assert len(refused["answers"]) == 1
        name = refused["handover"]
        assert (await client.get(f"/v1/support/handovers/{name}")).json()["is_answered"] is False
        queue = (await client.get("/v1/support/handovers")).json()
        assert (queue["waiting"], queue["answered"], queue["handovers"][0]["request"]) == (1, 0, SECRET)
        reply = {"answer": "ask the river", "publish_as": "river loud night"}
        done = await client.post(f"/v1/support/handovers/{name}/answer", json=reply)
        assert done.json()["published"].startswith("person-")
        assert problem(await client.post(f"/v1/support/handovers/{name}/answer", json=reply)) == (409, "conflict")
        assert (await client.get(f"/v1/support/handovers/{name}")).json()["answer"] == "ask the river"
        again = (await client.post("/v1/support/questions", json={"request": "river loud night"})).json()
        assert (again["is_known"], again["answers"][0]["answer"]) == (True, "ask the river")
        assert len((await client.get("/v1/support/handovers", params={"is_open": False})).json()["handovers"]) == 1

    desk.call(routes, work)


def test_answers_outlive_a_restart_and_leave_with_their_removal(desk: Place) -> None:
    async def fill(client: httpx.AsyncClient, service: Service) -> None:
        await client.put("/v1/support/answers", json={"answers": PAIRS})
        worded = {**PAIRS[0], "question": "night music"}
        await client.put("/v1/support/answers", json={"answers": [worded]})

    async def look(client: httpx.AsyncClient, service: Service) -> None:
        assert [one["question"] for one in (await client.get("/v1/support/answers")).json()["answers"]] == [
            "night music",
            PAIRS[1]["question"],
        ]
        ask = {"request": "night music", "hand_over": False}
        assert (await client.post("/v1/support/questions", json=ask)).json()["answers"][0]["id"] == "back"
        assert (await client.delete("/v1/support/answers/back")).json() == {"was_there": True}
        assert (await client.delete("/v1/support/answers/back")).json() == {"was_there": False}
        assert not (await client.post("/v1/support/questions", json=ask)).json()["is_known"]

    desk.call(routes, fill)
    desk.call(routes, look)


def test_who_is_deleted_takes_the_handovers_along(desk: Place) -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        names = [
            (await client.post("/v1/support/questions", json={"request": SECRET, "user": user})).json()["handover"]
            for user in ("anna", "bert")
        ]
        exported = (await client.get("/v1/users/anna/export")).json()
        assert SECRET in str(exported)
        assert (await client.delete("/v1/users/anna")).json()["removed"]["handovers"] == 1
        assert problem(await client.get(f"/v1/support/handovers/{names[0]}")) == (404, "no-such-hand-over")
        assert (await client.get(f"/v1/support/handovers/{names[1]}")).status_code == 200

    desk.call(routes, work)


def test_what_cannot_be_an_answer_is_refused_and_nothing_is_stored(desk: Place) -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        twice = {"answers": [PAIRS[0], PAIRS[0]]}
        assert problem(await client.put("/v1/support/answers", json=twice)) == (400, "malformed")
        for bad in ({"answers": []}, {"answers": [{**PAIRS[0], "question": "  "}]}, {"answers": [{"id": "a"}]}):
            assert problem(await client.put("/v1/support/answers", json=bad)) == (422, "invalid")
        assert (await client.get("/v1/support/answers")).json() == {"answers": []}
        assert problem(await client.post("/v1/support/questions", json={"request": ""})) == (422, "invalid")
        reply = await client.post("/v1/support/handovers/none/answer", json={"answer": "yes"})
        assert problem(reply) == (404, "no-such-hand-over")

    desk.call(routes, work)


def test_two_people_cannot_both_answer(desk: Place) -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        name = (await client.post("/v1/support/questions", json={"request": SECRET})).json()["handover"]
        address = f"/v1/support/handovers/{name}/answer"
        both = await asyncio.gather(*(client.post(address, json={"answer": text}) for text in ("one", "two")))
        assert sorted(answer.status_code for answer in both) == [200, 409]

    desk.call(routes, work)


def test_no_log_holds_what_was_asked(desk: Place, caplog: pytest.LogCaptureFixture) -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        with caplog.at_level(logging.DEBUG):
            await client.put("/v1/support/answers", json={"answers": PAIRS})
            await client.post("/v1/support/questions", json={"request": SECRET, "user": "anna"})
            await client.post("/v1/support/questions", json={"request": f"\x00{SECRET}", "user": "anna"})
        assert SECRET not in caplog.text

    desk.call(routes, work)


def test_a_visitor_asks_on_a_page_and_a_person_answers_on_another(desk: Place) -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        await service.of("default").support.put([Answer(one["id"], one["question"], HOSTILE) for one in PAIRS])
        assert "What do you want to know" in (await client.get("/shop/ask?session=s")).text
        known = await client.post("/shop/ask", data={"request": PAIRS[0]["question"], "session": "s"})
        assert (known.status_code, "I do not know" in known.text) == (200, False)
        refused = await client.post("/shop/ask", data={"request": HOSTILE, "user": "anna"})
        assert "I do not know" in refused.text
        address = html.unescape(re.findall(r'href="(/shop/ask[^"]+)"', refused.text)[0])
        assert "Nobody has answered yet" in (await client.get(address)).text
        queue = await client.get("/operate/support")
        name = re.findall(r'name="handover" value="(\w+)"', queue.text)[0]
        empty = await client.post("/operate/support", data={"handover": name, "answer": " "})
        assert "An answer needs words" in empty.text
        done = await client.post("/operate/support", data={"handover": name, "answer": HOSTILE, "wording": ""})
        assert 'data-said="Answered."' in done.text
        twice = await client.post("/operate/support", data={"handover": name, "answer": "again"})
        assert "somebody has answered it already" in twice.text
        reply = await client.get(address)
        assert "A person has answered" in reply.text
        assert "There is no such question" in (await client.get("/shop/ask?session=s&handover=none")).text
        for page in (known, refused, queue, reply):
            assert "<script>alert" not in page.text
        assert "Write down what" in (await client.post("/shop/ask", data={"request": "  "})).text

    desk.call(pages, work)


def test_asking_is_no_right_to_read_the_queue() -> None:
    assert scope_needed("POST", "/v1/support/questions") == "write"
    assert scope_needed("GET", "/v1/support/handovers") == "admin"
    assert scope_needed("POST", "/v1/support/handovers/x/answer") == "admin"
    assert scope_needed("GET", "/v1/support/handovers/x") == "read"
