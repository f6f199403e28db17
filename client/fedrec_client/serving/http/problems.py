"""What a caller is told when something fails: RFC 9457 under `/v1` and on pages, text for Gorse, JSON for Metarank."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse, Response

from fedrec.errors import BudgetError, ConfigError, DataError, FedrecError, ModelError, PrivacyError, StorageError
from fedrec_client.serving.errors import ConflictError, NotFoundError, NotReadyError

Family = Literal["own", "gorse", "metarank"]
_METARANK = frozenset({"feedback", "rank", "recommend", "train", "inference"})
_MOST_FLAWS = 100
_MOST_PLACE = 120

# Errors that a route lets through: status, name and title. The first class that fits counts; others give 500 and say
# no word of theirs, since these may name paths of the partner's disk.
_BY_CLASS: tuple[tuple[type[FedrecError], int, str, str], ...] = (
    (ConflictError, 409, "conflict", "It does not fit what is there"),
    (NotReadyError, 503, "not-ready", "The engine cannot answer yet"),
    (DataError, 400, "malformed", "What was sent cannot be used"),
    (ConfigError, 400, "malformed", "What was sent cannot be used"),
    (BudgetError, 409, "budget", "The privacy budget does not cover it"),
    (PrivacyError, 409, "privacy", "It cannot be private"),
    (ModelError, 503, "model", "The model cannot be used"),
    (StorageError, 503, "storage", "The store cannot be used"),
)
_OF_STATUS = {401: "unauthorized", 404: "no-such-path", 405: "no-such-method", 413: "too-large"}
_WITHOUT_WORDS = (StorageError, ModelError)
# Messages of pydantic's that quote the value.
_QUOTING = {"union_tag_invalid": "this kind is not known"}


@dataclass(frozen=True)
class Flaw:
    """One of several things that are wrong: where, such as "body.3.ItemId", and what. Never what was sent."""

    place: str
    problem: str


@dataclass(frozen=True)
class Problem:
    """Why a request is not answered.

    Attributes:
        name: stable; `type` is `urn:fedrec:error:` and it.
        status: HTTP's.
        title: the same for every problem of this name.
        detail: of this one.
        remedy: what the caller can do.
        errors: all flaws at once.
        headers: of the answer, beside the usual ones.
    """

    name: str
    status: int
    title: str
    detail: str = ""
    remedy: str = ""
    errors: tuple[Flaw, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)


class RefusalError(Exception):
    """A request that is not answered, with the problem that the caller is told."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(problem.name)


def family_of(path: str) -> Family:
    """Whose API a path is.

    >>> family_of("/api/recommend/u"), family_of("/rank/default"), family_of("/v1/rank"), family_of("/ranking")
    ('gorse', 'metarank', 'own', 'own')
    """
    first = path[1:].partition("/")[0]
    if first == "api":
        return "gorse"
    return "metarank" if first in _METARANK else "own"


def respond(problem: Problem, path: str, request: str) -> Response:
    """The answer in the manner of the path's API.

    Args:
        problem: public to the caller.
        path: of the request.
        request: its id.
    """
    headers = dict(problem.headers)
    match family_of(path):
        case "gorse":
            return PlainTextResponse(_in_a_line(problem), problem.status, headers)
        case "metarank":
            return JSONResponse({"error": _in_a_line(problem)}, problem.status, headers)
        case "own":
            kind = "application/problem+json"
            return JSONResponse(_as_problem(problem, request), problem.status, headers, media_type=kind)


def problem_of(error: FedrecError) -> Problem:
    """What a caller is told of an error of ours."""
    if isinstance(error, NotFoundError):
        name = "no-such-" + error.kind.replace(" ", "-")
        return Problem(name, 404, f"There is no such {error.kind}", error.problem, error.remedy)
    found = next((known for known in _BY_CLASS if isinstance(error, known[0])), None)
    if found is None:
        return broken(error)
    _, status, name, title = found
    headers = {"retry-after": str(getattr(error, "retry_after_s", 1))} if status == 503 else {}
    if isinstance(error, _WITHOUT_WORDS) and not isinstance(error, NotReadyError):
        return Problem(name, status, title, type(error).__name__, "read the service's log", headers=headers)
    head, *lines = error.problem.split("\n  - ")
    flaws = tuple(Flaw("", line) for line in lines)
    return Problem(name, status, title, head, error.remedy, flaws, headers)


def broken(error: Exception) -> Problem:
    """A fault of ours: the class, no words."""
    return Problem("broken", 500, "This failed here", type(error).__name__, "read the service's log")


def invalid(error: RequestValidationError, path: str) -> Problem:
    """Every flaw of a request, 422 for our own API and 400 for the others', as they do."""
    flaws = tuple(_flaw(one) for one in error.errors()[:_MOST_FLAWS])
    status = 422 if family_of(path) == "own" else 400
    count = f"{len(flaws)} problem{'s' if len(flaws) != 1 else ''}"
    return Problem("invalid", status, "The request is not as described", count, "see /v1/openapi.json", flaws)


def http_problem(error: HTTPException) -> Problem:
    """Of an error that a route or the router raised as a status alone."""
    phrase = HTTPStatus(error.status_code).phrase
    name = _OF_STATUS.get(error.status_code, re.sub(r"[^a-z]+", "-", phrase.lower()))
    detail = "" if error.detail == phrase else str(error.detail)
    return Problem(name, error.status_code, phrase, detail, headers=dict(error.headers or {}))


def handle_problems(app: FastAPI) -> None:
    """Let an app tell its errors so."""

    async def tell(request: Request, error: Exception) -> Response:
        path = str(request.scope["path"])
        return respond(_problem(error, path), path, request.scope.get("state", {}).get("request", ""))

    for kind in (FedrecError, RefusalError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, tell)


def _problem(error: Exception, path: str) -> Problem:
    match error:
        case RefusalError():
            return error.problem
        case FedrecError():
            return problem_of(error)
        case RequestValidationError():
            return invalid(error, path)
        case HTTPException():
            return http_problem(error)
        case _:
            return broken(error)


def _flaw(one: Mapping[str, object]) -> Flaw:
    """Of pydantic's: place and words, without `input` and `ctx`, which hold what was sent."""
    loc = one.get("loc", ())
    place = ".".join(map(str, loc)) if isinstance(loc, tuple | list) else ""
    words = _QUOTING.get(str(one.get("type")), str(one.get("msg", ""))).removeprefix("Value error, ")
    return Flaw(place[:_MOST_PLACE], words)


def _in_a_line(problem: Problem) -> str:
    """For APIs whose errors are a sentence."""
    flaws = "; ".join(f"{flaw.place}: {flaw.problem}" if flaw.place else flaw.problem for flaw in problem.errors)
    head = problem.detail or problem.title
    return f"{head}: {flaws}" if flaws else head


def _as_problem(problem: Problem, request: str) -> dict[str, object]:
    told: dict[str, object] = {"type": f"urn:fedrec:error:{problem.name}", "title": problem.title}
    told |= {"status": problem.status, "detail": problem.detail, "remedy": problem.remedy}
    told["errors"] = [{"place": flaw.place, "problem": flaw.problem} for flaw in problem.errors]
    return told | {"request": request}
