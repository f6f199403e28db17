"""What a caller is told when something fails, by API. Neither told nor logged is what somebody sent or is called."""

import asyncio
import logging
from typing import Annotated, Any, Literal

import httpx
import pytest
from fastapi import APIRouter, HTTPException
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError, field_validator

from fedrec import errors
from fedrec.errors import BudgetError, ConfigError, DataError, FedrecError, LedgerError, ModelError, StorageError
from fedrec_client.serving.errors import ConflictError, NotFoundError, NotReadyError
from fedrec_client.serving.http.app import make_app
from fedrec_client.serving.http.keys import KeyRing
from fedrec_client.serving.http.metrics import EngineFigures, ServingMetrics
from fedrec_client.serving.http.problems import family_of, invalid, problem_of
from fedrec_client.serving.records import Event
from fedrec_client.serving.settings import ServingSettings

SECRET = "somebody@example.com"
PLACES = {"own": "/v1", "gorse": "/api", "metarank": "/rank"}


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


class Sent(BaseModel):
    n: Annotated[int, Field(ge=1)]
    kind: Literal["a", "b"]
    name: str
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]

    @field_validator("name")
    @classmethod
    def _short(cls, name: str) -> str:
        if len(name) > 3:
            raise ValueError("longer than 3 characters")
        return name


BAD = {"n": 0, "kind": SECRET, "name": SECRET, "pet": {"kind": SECRET}}


def raising(error: Exception) -> APIRouter:
    router = APIRouter()

    @router.get("/v1/raise/{user}")
    @router.get("/api/raise/{user}")
    @router.get("/rank/raise/{user}")
    async def fail(user: str) -> None:
        raise error

    @router.post("/v1/sent")
    @router.post("/api/sent")
    @router.post("/rank/sent")
    async def take(sent: Sent) -> None:
        return None

    return router


def ask(url: str, error: Exception | None = None, method: str = "GET", **call: Any) -> httpx.Response:
    ring = KeyRing(lambda _: None, lambda: False)
    app = make_app(
        ServingSettings(format=1),
        [raising(error or ValueError())],
        ring=ring,
        metrics=ServingMetrics(EngineFigures),
        is_ready=lambda: True,
        on_stop=lambda: None,
    )

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, url, **call)

    return asyncio.run(send())


@pytest.mark.parametrize(
    ("error", "status", "name"),
    [
        (NotFoundError("user"), 404, "no-such-user"),
        (NotFoundError("API key"), 404, "no-such-API-key"),
        (ConflictError("the name is taken"), 409, "conflict"),
        (NotReadyError("the engine still reads"), 503, "not-ready"),
        (DataError("n: not a number"), 400, "malformed"),
        (ConfigError("rules: no such field"), 400, "malformed"),
        (BudgetError("0.3 is left"), 409, "budget"),
        (ModelError("/path"), 503, "model"),
        (StorageError("/path"), 503, "storage"),
        (LedgerError("/path"), 500, "broken"),
        (HTTPException(404), 404, "no-such-path"),
        (HTTPException(501, "not offered"), 501, "not-implemented"),
        (RuntimeError(SECRET), 500, "broken"),
    ],
)
def test_an_error_has_a_status_and_a_stable_name(error: Exception, status: int, name: str) -> None:
    answer = ask("/v1/raise/u", error)
    told = answer.json()
    assert (answer.status_code, told["status"], told["type"]) == (status, status, f"urn:fedrec:error:{name}")
    assert answer.headers["content-type"] == "application/problem+json"
    assert told["title"]
    assert told["request"] == answer.headers["x-request-id"]
    assert set(told) == {"type", "title", "status", "detail", "remedy", "errors", "request"}
    assert ("retry-after" in answer.headers) == (status == 503)


def test_every_error_of_ours_is_told_without_a_path_of_the_disk() -> None:
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, FedrecError)]
    for kind in classes:
        problem = problem_of(kind("/home/shop/ledger: changed"))
        assert 400 <= problem.status < 600
        if problem.status >= 500:
            assert "/home" not in f"{problem.title}{problem.detail}{problem.remedy}", kind


def test_errors_of_serving_say_no_name() -> None:
    assert NotFoundError("user").problem == "no such user"
    assert isinstance(NotFoundError("user"), DataError)
    assert NotReadyError("x", retry_after_s=7).exit_code == ModelError.exit_code
    assert ask("/v1/raise/u", NotReadyError("x", retry_after_s=7)).headers["retry-after"] == "7"


def test_all_problems_of_an_error_are_told_at_once() -> None:
    with pytest.raises(DataError) as caught:
        Event("", "")
    told = ask("/v1/raise/u", caught.value).json()
    assert told["detail"] == "event: 3 problems"
    assert [one["problem"] for one in told["errors"]] == ["type is empty", "item is empty", "neither user nor session"]


@pytest.mark.parametrize(("api", "status"), [("own", 422), ("gorse", 400), ("metarank", 400)])
def test_a_body_that_does_not_fit_is_told_place_by_place_without_what_was_sent(api: str, status: int) -> None:
    answer = ask(f"{PLACES[api]}/sent", method="POST", json=BAD)
    assert answer.status_code == status
    assert SECRET not in answer.text
    for place in ("body.n", "body.kind", "body.name", "body.pet"):
        assert place in answer.text
    assert "longer than 3 characters" in answer.text


def test_a_body_that_is_no_json_is_not_quoted() -> None:
    answer = ask("/v1/sent", method="POST", content=SECRET, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert SECRET not in answer.text


def test_a_thousand_problems_are_not_all_told() -> None:
    class Many(BaseModel):
        n: list[int]

    with pytest.raises(ValidationError) as caught:
        Many.model_validate({"n": ["x"] * 1000})
    assert len(invalid(RequestValidationError(caught.value.errors()), "/v1/x").errors) == 100


def test_gorse_is_told_in_plain_text() -> None:
    answer = ask("/api/raise/u", NotFoundError("user"))
    assert (answer.status_code, answer.text) == (404, "no such user")
    assert answer.headers["content-type"].startswith("text/plain")
    refused = ask("/api/raise/u", headers={"x-forwarded-for": "10.0.0.1"})
    assert (refused.status_code, refused.text) == (401, "unauthorized")


def test_metarank_is_told_in_json() -> None:
    assert ask("/rank/raise/u", NotFoundError("model")).json() == {"error": "no such model"}
    assert ask("/train/x", method="POST").json() == {"error": "Not Found"}


@pytest.mark.parametrize(
    ("path", "api"),
    [("/api", "gorse"), ("/api/x", "gorse"), ("/apidocs", "own"), ("/feedback", "metarank"), ("/", "own"), ("", "own")],
)
def test_an_api_is_known_by_its_first_segment(path: str, api: str) -> None:
    assert family_of(path) == api


@pytest.mark.parametrize("path", PLACES.values())
def test_a_fault_of_ours_is_told_by_its_class_and_logged_by_its_place(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        answer = ask(f"{path}/raise/{SECRET}", RuntimeError(SECRET))
    assert answer.status_code == 500
    assert "RuntimeError" in answer.text
    ours = [one for one in caplog.records if one.name.startswith("fedrec")]
    (record,) = [one for one in ours if one.levelno == logging.ERROR]
    assert "test_serving_problems.py:" in record.getMessage()
    assert record.exc_info is None
    for one in ours:
        assert SECRET not in f"{one.__dict__}"
    assert SECRET not in answer.text
