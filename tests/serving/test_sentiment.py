"""The sentiment monitor through the real service: judged, counted, alarmed, kept over a restart; and no text left."""

import asyncio
import json
import logging
import threading
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from fastapi import APIRouter

from fedrec.errors import ConfigError, FedrecError, ModelError, RunError
from fedrec.sentiment.head import INPUTS
from fedrec_client.serving import sentiment as watching
from fedrec_client.serving.api.native.router import routes
from fedrec_client.serving.errors import NotReadyError
from fedrec_client.serving.http.metrics import ServingMetrics
from fedrec_client.serving.http.scopes import scope_needed
from fedrec_client.serving.pages.routes import routes as pages
from fedrec_client.serving.service import Served, Service
from fedrec_client.serving.starting import Starting
from tests.serving.conftest import Place, put_head
from tests.serving.native_calls import problem

SECRET = "loud space drama"
TEXTS = "/v1/sentiment/texts"
TOPICS = {"rivers": ["quiet river"], "war": ["space war"]}


@pytest.fixture
def place(make_place: Callable[..., Place], served: Served, tmp_path: Path) -> Place:
    """All that comes is negative."""
    assert served.sentences is not None
    put_head(tmp_path, served.sentences, bias=5.0)
    return make_place(sentiment={"head": "head", "window_texts": 8, "topics": TOPICS})


def both(service: Service, metrics: ServingMetrics) -> APIRouter:
    """API and pages."""
    router = routes(service, metrics)
    router.routes.extend(pages(service, metrics).routes)
    return router


class Slow:
    """Does what another does, in as many threads as call it, once it may."""

    def __init__(self, real: Callable[..., object]) -> None:
        self._real, self._lock, self.may_go = real, threading.Lock(), threading.Event()
        self.at_once = self.most_at_once = 0

    def __call__(self, *given: object) -> object:
        with self._lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        self.may_go.wait(10)
        with self._lock:
            self.at_once -= 1
        return self._real(*given)

    async def give_up(self, call: Coroutine[object, object, object]) -> None:
        """Cancel a call once its thread is here."""
        task = asyncio.create_task(call)
        while not self.at_once:
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()


async def send(client: httpx.AsyncClient, n: int) -> httpx.Response:
    return await client.post(TEXTS, json={"texts": [SECRET] * n})


def test_texts_are_judged_and_counted_and_a_rise_alarms(place: Place) -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        empty = (await client.get("/v1/sentiment")).json()
        assert (empty["is_on"], empty["texts"], empty["windows"], empty["rises"]) == (True, 0, [], [])
        judged = (await send(client, 3)).json()["judged"]
        assert [one["sentiment"] for one in judged] == ["negative"] * 3
        assert {one["topic"] for one in judged} <= {*TOPICS, "other"}
        before = (await client.get("/v1/sentiment")).json()
        assert 0 < before["evidence"] < before["threshold"]
        await send(client, 9)
        told = (await client.get("/v1/sentiment")).json()
        assert told["texts"] == 12
        assert [(one["texts"], one["negative"], one["negative_share"]) for one in told["windows"]] == [
            (8, 8, 1.0),
            (4, 4, 1.0),
        ]
        assert sum(one["negative"] for one in told["topics"]) == 12
        assert told["rises"][0]["share"] == 1.0
        assert len((await client.get("/v1/sentiment", params={"n": 1})).json()["windows"]) == 1

    place.call(routes, work)


def test_counts_alarms_and_evidence_outlive_a_restart(place: Place) -> None:
    async def fill(client: httpx.AsyncClient, service: Service) -> dict[str, object]:
        await asyncio.gather(*(send(client, 5) for _ in range(3)))
        return dict((await client.get("/v1/sentiment")).json())

    async def look(client: httpx.AsyncClient, service: Service) -> dict[str, object]:
        return dict((await client.get("/v1/sentiment")).json())

    before = place.call(routes, fill)
    assert (before["texts"], before["evidence"] != 0, before["rises"] != []) == (15, True, True)
    assert place.call(routes, look) == before
    (kept,) = place.folder.glob("sentiment-*.json")
    assert SECRET not in kept.read_text(encoding="utf-8")


def test_another_head_begins_the_evidence_anew_and_damage_begins_all(place: Place, served: Served) -> None:
    async def fill(client: httpx.AsyncClient, service: Service) -> None:
        await send(client, 3)

    async def look(client: httpx.AsyncClient, service: Service) -> tuple[int, float, list[int]]:
        told = (await client.get("/v1/sentiment")).json()
        return told["texts"], told["evidence"], [one["texts"] for one in told["windows"]]

    async def more(client: httpx.AsyncClient, service: Service) -> tuple[int, float, list[int]]:
        await send(client, 2)
        return await look(client, service)

    place.call(routes, fill)
    assert served.sentences is not None
    put_head(place.folder, served.sentences, bias=-5.0)
    assert place.call(routes, look) == (3, 0.0, [3])
    assert place.call(routes, more) == (5, 0.0, [3, 2])  # no window holds what two heads said
    kept = place.folder / "sentiment-default.json"
    for damage in ("{", '{"format": 1, "judged_by": {}, "monitor": {"texts": "many"}}'):
        kept.write_text(damage, encoding="utf-8")
        assert place.call(routes, look) == (0, 0.0, [])


def test_what_cannot_be_judged_is_refused_with_every_flaw_and_nothing_counts(place: Place) -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        answer = await client.post(TEXTS, json={"texts": [SECRET, "", "  \n", 7, None, "x" * 10_001]})
        assert problem(answer) == (422, "invalid")
        assert {one["place"] for one in answer.json()["errors"]} == {f"body.texts.{n}" for n in range(1, 6)}
        for bad in (
            {},
            {"texts": []},
            {"texts": "one"},
            {"texts": [SECRET] * 101},
            {"texts": [SECRET], "user": "anna"},
        ):
            assert problem(await client.post(TEXTS, json=bad)) == (422, "invalid")
        assert (await client.get("/v1/sentiment")).json()["texts"] == 0
        assert problem(await client.get("/v1/sentiment", params={"n": 0})) == (422, "invalid")

    place.call(routes, work)


def test_a_text_that_the_encoder_cannot_read_is_named(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        sentiment = service.of("default").sentiment
        judge = sentiment._judge
        assert judge is not None
        real = judge.judge

        def strict(texts: list[str]) -> object:
            if "?" in texts:
                raise ModelError("no token", "mend it")
            return real(texts)

        monkeypatch.setattr(judge, "judge", strict)
        answer = await client.post(TEXTS, json={"texts": [SECRET, "?", SECRET, "?"]})
        assert problem(answer) == (400, "malformed")
        assert answer.json()["detail"].startswith("texts.1, texts.3:")
        assert sentiment.told(1).texts == 0

    place.call(routes, work)


def test_of_too_much_at_once_some_is_asked_to_come_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "MOST_WAITING", 10)

    async def work(client: httpx.AsyncClient, service: Service) -> None:
        sentiment = service.of("default").sentiment
        async with sentiment._judging:  # a slow encoder
            first = asyncio.create_task(send(client, 6))
            while not sentiment._waiting:
                await asyncio.sleep(0.001)
            refused = await send(client, 6)
            assert (problem(refused), refused.headers["retry-after"]) == ((503, "not-ready"), "5")
        assert (await first).status_code == 200
        assert (await send(client, 6)).status_code == 200
        assert (await client.get("/v1/sentiment")).json()["texts"] == 12

    place.call(routes, work)


def test_a_call_that_is_given_up_keeps_its_place_until_its_thread_has_ended(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "MOST_WAITING", 10)

    async def work(client: httpx.AsyncClient, service: Service) -> None:
        sentiment = service.of("default").sentiment
        assert sentiment._judge is not None
        slow = Slow(sentiment._judge.judge)
        monkeypatch.setattr(sentiment._judge, "judge", slow)
        await slow.give_up(sentiment.take([SECRET] * 6))
        with pytest.raises(NotReadyError):
            await sentiment.take([SECRET] * 6)
        second = asyncio.create_task(sentiment.take([SECRET] * 2))
        await asyncio.sleep(0.05)
        slow.may_go.set()
        await second
        assert slow.most_at_once == 1
        assert sentiment.told(9).texts == 8
        assert (await send(client, 10)).status_code == 200

    place.call(routes, work)


def test_of_calls_that_are_given_up_counts_are_written_one_after_the_other(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        sentiment = service.of("default").sentiment
        slow = Slow(sentiment._write)
        monkeypatch.setattr(sentiment, "_write", slow)
        await slow.give_up(sentiment.take([SECRET]))
        second = asyncio.create_task(sentiment.take([SECRET] * 2))
        await asyncio.sleep(0.05)
        slow.may_go.set()
        await second
        assert slow.most_at_once == 1
        (kept,) = place.folder.glob("sentiment-*.json")
        assert json.loads(kept.read_text(encoding="utf-8"))["monitor"]["texts"] == 3

    place.call(routes, work)


def test_a_text_is_in_no_log_file_alert_or_page(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    bodies: list[bytes] = []

    async def take(request: httpx.Request) -> httpx.Response:
        bodies.append(request.content)
        return httpx.Response(204)

    async def work(client: httpx.AsyncClient, service: Service) -> None:
        service.alerts._webhook, service.alerts._transport = "https://hook.test/", httpx.MockTransport(take)
        with caplog.at_level(logging.DEBUG):
            await send(client, 20)
            await service.alerts.settle()
        body = json.loads(bodies[0])
        assert (body["kind"], body["tenant"], body["figures"]["share"]) == ("negative texts", "default", 1.0)
        page = (await client.get("/operate/sentiment")).text
        live = (await client.get("/operate/sentiment/live")).text
        metrics = (await client.get("/metrics")).text
        assert 'fedrec_serving_sentiment_texts_total{sentiment="negative"} 16.0' in metrics  # two windows of 8
        assert "fedrec_serving_sentiment_rises_total 0.0" not in metrics
        assert "alarm</small>" in page
        figures = Starting(place.folder, place.settings, lambda say: place.served)._figures(service)
        assert figures is not None
        assert figures.sentiment_negative_share == 1.0
        await asyncio.to_thread(service.store.close)
        kept = b"".join(path.read_bytes() for path in place.folder.rglob("*") if path.is_file())
        for told in (caplog.text, page, live, metrics, bodies[0].decode()):
            assert SECRET not in told
        assert SECRET.encode() not in kept

    place.call(both, work)


def test_without_a_head_texts_are_refused_and_the_page_says_what_to_do(
    make_place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedrec.sentiment.monitor.threshold_for", lambda _: pytest.fail("simulated for nothing"))

    async def ask(client: httpx.AsyncClient, service: Service) -> None:
        assert problem(await send(client, 1)) == (409, "conflict")
        told = (await client.get("/v1/sentiment")).json()
        assert (told["is_on"], told["threshold"]) == (False, None)

    async def look(client: httpx.AsyncClient, service: Service) -> None:
        assert "No sentiment head" in (await client.get("/operate/sentiment")).text
        assert (await client.get("/operate/sentiment/live")).status_code == 200

    make_place().call(routes, ask)
    make_place().call(pages, look)


def test_a_head_that_cannot_serve_stops_the_start_in_words(
    make_place: Callable[..., Place], served: Served, tmp_path: Path
) -> None:
    async def nothing(service: Service) -> None:
        """Opening is all."""

    def refusal(place: Place, kind: type[FedrecError]) -> str:
        with pytest.raises(kind) as caught:
            place.run(nothing)
        return str(caught.value)

    place = make_place(sentiment={"head": "head"})
    assert "no head yet" in refusal(place, RunError)
    assert served.sentences is not None
    put_head(tmp_path, served.sentences)
    assert "no sentence encoder" in refusal(replace(place, served=replace(served, sentences=None)), ConfigError)
    about = tmp_path / "head" / INPUTS
    good = about.read_text(encoding="utf-8")
    about.write_text(good.replace(served.sentences.name, "sentence-1|other"), encoding="utf-8")
    assert "another sentence encoder" in refusal(place, ModelError)
    about.write_text(good.replace('"scale": 1.0', '"scale": -1.0'), encoding="utf-8")
    assert "damaged" in refusal(place, RunError)


@pytest.mark.parametrize(
    "wrong",
    [{"base": 0.6, "raised": 0.3}, {"topics": {"other": ["x"]}}, {"topics": {"a": []}}, {"topics": {"a": [" "]}}],
)
def test_settings_that_make_no_sense_are_refused(make_place: Callable[..., Place], wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="sentiment"):
        make_place(sentiment=wrong)


def test_sending_texts_is_no_right_to_read_the_counts() -> None:
    assert scope_needed("POST", TEXTS) == "write"
    assert scope_needed("GET", "/v1/sentiment") == "admin"
    assert scope_needed("GET", "/operate/sentiment") == "admin"
