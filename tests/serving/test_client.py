"""Both clients against the real service, and against one that fails as services do."""

import asyncio
import inspect
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import uvicorn

from fedrec.client import (
    AccessError,
    AsyncRecommenderClient,
    Item,
    MissingError,
    RecommenderClient,
    RecommenderError,
    RequestRefusedError,
    UnavailableError,
    User,
)
from fedrec.client.calls import path_of
from fedrec_client.serving.api.native.router import routes
from fedrec_client.serving.service import Served, Service
from tests.serving.conftest import Place

ODD = "a/b?c#d%2F ä"


def everything(client: RecommenderClient, items: list[str]) -> None:
    """All that a person needs, in the order of a shop's life."""
    assert client.put_items([Item(ODD, "Song of War", categories=("War",), fields={"price": 4.5})]) == 1
    assert client.change_item(ODD, text="A song").title == "Song of War"
    assert client.item(ODD).fields == {"price": 4.5}
    assert [one.id for one in client.items("song of", n=1).items] == [ODD]
    assert client.put_users([User("anna", {"age": 30})]) == 1
    assert client.user("anna").labels == {"age": 30}
    taken = client.add_events({"type": "like", "user": "anna", "item": item} for item in items[:4])
    assert (taken.accepted, taken.duplicates) == (4, 0)
    answer = client.recommend("anna", n=3, explain=True, fields=["*"])
    assert len(answer.ids) == 3
    assert answer.items[0].why is not None
    assert answer.items[0].why.because[0].item in items[:4]
    every = [item for page in client.pages("anna", n=10, ranking="mine") for item in page.ids]
    assert len(every) == len(set(every)) == 37
    assert client.recommend_session(events=[{"item": items[0]}], n=2).items[0].source == "session"
    assert items[0] not in client.similar(items[0], user="anna", category=("War",), n=40).ids
    assert sorted(client.rank([items[7], items[8]], user="anna").ids) == sorted([items[7], items[8]])
    told = client.explain("anna", answer.ids[0])
    assert told.holds
    assert told.because
    asked = client.questions("anna", 3)
    assert len({one.id for one in asked}) == 3
    assert asked[0].title
    assert asked[0].id not in {one.id for one in client.questions("anna", 3, exclude=[asked[0].id])}
    client.rate_reason(answer.ranking, answer.ids[0], is_helpful=True, user="anna")
    client.block("anna", "item", answer.ids[0])
    assert answer.ids[0] not in client.recommend("anna", n=40).ids
    client.unblock("anna", "item", answer.ids[0])
    rule = {"name": "wars", "action": "exclude", "category": "War"}
    assert client.try_rule(rule).count > 0
    assert not client.put_rule(rule).is_in_file
    assert [one.rule["name"] for one in client.rules()] == ["wars"]
    assert all("War" not in one.categories for one in client.recommend("anna", n=40).items)
    client.remove_rule("wars")
    assert client.status().events == 4
    assert len(client.export_user("anna")["events"]) == 4
    assert client.delete_user("anna")["events"] == 4
    assert (client.remove_item(ODD), client.remove_item(ODD)) == (True, False)
    with pytest.raises(MissingError) as missing:
        client.item(ODD)
    assert (missing.value.status, missing.value.type, missing.value.problem) == (404, "no-such-item", "no such item")
    assert missing.value.request
    with pytest.raises(RequestRefusedError) as refused:
        client.recommend("anna", n=0, offset=-1)
    assert [flaw.place for flaw in refused.value.flaws] == ["body.n", "body.offset"]


def test_the_client_that_waits_over_a_real_socket(place: Place, served: Served) -> None:
    async def work(service: Service) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(place.app(service, routes), lifespan="off", ws="none", log_config=None))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            with RecommenderClient(f"http://127.0.0.1:{listener.getsockname()[1]}") as client:
                await asyncio.to_thread(everything, client, list(served.catalog.ids))
        finally:
            server.should_exit = True
            await serving
            listener.close()

    place.run(work)


class Waited(RecommenderClient):
    """The one that awaits, asked as the other is: each call in the event loop of the service."""

    def __init__(self, client: AsyncRecommenderClient, loop: asyncio.AbstractEventLoop) -> None:
        self._awaited, self._loop = client, loop

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_"):
            return object.__getattribute__(self, name)
        return lambda *given, **named: self._in_loop(getattr(self._awaited, name)(*given, **named))

    def _in_loop(self, asked: Any) -> Any:
        async def collected() -> list[Any]:
            return [one async for one in asked]

        work = collected() if inspect.isasyncgen(asked) else asked
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def test_the_client_that_awaits_in_the_process_of_the_service(place: Place, served: Served) -> None:
    async def work(service: Service) -> None:
        transport = httpx.ASGITransport(place.app(service, routes))
        async with AsyncRecommenderClient("http://127.0.0.1", transport=transport) as client:
            waited = Waited(client, asyncio.get_running_loop())
            await asyncio.to_thread(everything, waited, list(served.catalog.ids))

    place.run(work)


def test_both_clients_have_the_same_calls() -> None:
    def calls(kind: type) -> dict[str, list[str]]:
        found = {name: value for name, value in vars(kind).items() if callable(value) and not name.startswith("_")}
        return {name: [*inspect.signature(value).parameters] for name, value in found.items()}

    assert calls(RecommenderClient) == calls(AsyncRecommenderClient)


TAKEN = {"accepted": 1, "duplicates": 0, "ignored": 0}


class Failing:
    """Answers in turn what it is given, and notes what it was sent."""

    def __init__(self, *turns: httpx.Response | Exception) -> None:
        self.turns: Iterator[httpx.Response | Exception] = iter(turns)
        self.sent: list[bytes] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request.content)
        turn = next(self.turns)
        if isinstance(turn, Exception):
            raise turn
        return turn


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr("fedrec.client.waiting.time.sleep", found.append)
    return found


def client_of(failing: Failing, **more: Any) -> RecommenderClient:
    return RecommenderClient("http://service", "fk_x", transport=httpx.MockTransport(failing), **more)


@pytest.mark.parametrize(
    "turn",
    [
        lambda: httpx.Response(503),
        lambda: httpx.Response(429, headers={"retry-after": "7"}),
        lambda: httpx.ReadTimeout("x"),
        lambda: httpx.RemoteProtocolError("x"),
        lambda: httpx.ConnectError("x"),
    ],
)
def test_a_second_try_sends_the_same_ids(slept: list[float], turn: Callable[[], httpx.Response | Exception]) -> None:
    failing = Failing(turn(), turn(), httpx.Response(200, json=TAKEN))
    assert client_of(failing).add_events([{"type": "like", "user": "anna", "item": "1"}]).accepted == 1
    assert len(failing.sent) == 3
    assert len(set(failing.sent)) == 1
    assert b'"id":"' in failing.sent[0]
    if isinstance(turn(), httpx.Response) and "retry-after" in turn().headers:  # type: ignore[union-attr]
        assert slept == [7.0, 7.0]
    else:
        assert 0.1 <= slept[0] <= 0.3
        assert 0.2 <= slept[1] <= 0.6


@pytest.mark.parametrize(
    ("turn", "tries"),
    [
        (lambda: httpx.ReadTimeout("x"), 1),
        (lambda: httpx.Response(503), 1),
        (lambda: httpx.ConnectError("x"), 4),
        (lambda: httpx.Response(429), 4),
        (lambda: httpx.Response(429, headers={"retry-after": "3600"}), 1),
        (lambda: httpx.Response(500), 1),
    ],
)
def test_what_may_not_be_done_twice_is_sent_again_only_where_nothing_was_done(
    slept: list[float], turn: Callable[[], httpx.Response | Exception], tries: int
) -> None:
    failing = Failing(*(turn() for _ in range(4)))
    with pytest.raises(UnavailableError):
        client_of(failing).remove_rule("x")
    assert len(failing.sent) == tries


@pytest.mark.parametrize(
    ("answer", "kind", "type_", "words"),
    [
        (httpx.Response(401), AccessError, "unknown", "HTTP 401"),
        (httpx.Response(404, text="<html>"), MissingError, "unknown", "HTTP 404"),
        (httpx.Response(422, json=["x"]), RequestRefusedError, "unknown", "HTTP 422"),
        (httpx.Response(200, text="<html>"), RecommenderError, "alien", "the answer is not of this API"),
        (httpx.Response(200, json={"accepted": 1}), RecommenderError, "alien", "the answer is not of this API"),
    ],
)
def test_answers_that_are_not_this_apis_are_named_errors(
    answer: httpx.Response, kind: type[RecommenderError], type_: str, words: str
) -> None:
    with pytest.raises(kind, match=words) as told:
        client_of(Failing(answer)).add_events([])
    assert (told.value.type, told.value.status) == (type_, answer.status_code)


def test_no_answer_at_all_is_told_after_some_tries(slept: list[float]) -> None:
    failing = Failing(*(httpx.ConnectError("x") for _ in range(3)))
    with pytest.raises(UnavailableError, match="no answer: ConnectError") as told:
        client_of(failing, retries=2).status()
    assert (told.value.status, len(failing.sent)) == (0, 3)


def test_paths_escape_what_would_lead_elsewhere() -> None:
    assert path_of("users", "a/../b", "export") == "/v1/users/a%2F..%2Fb/export"
    assert path_of("items", ".") == "/v1/items/%2E"


def test_the_client_loads_httpx_and_nothing_heavy() -> None:
    code = "import sys, fedrec.client; print(sorted({'torch','numpy','pydantic','fastapi','scipy'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_threads_may_share_a_client() -> None:
    failing = Failing(*(httpx.Response(200, json=TAKEN) for _ in range(20)))
    client = client_of(failing)
    threads = [threading.Thread(target=client.add_events, args=([],)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(failing.sent) == 20
