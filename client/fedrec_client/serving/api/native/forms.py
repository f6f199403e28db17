"""What the models of this API have in common: what may be sent, how errors are listed, whose tenant it is."""

from typing import Annotated, Any

from fastapi import Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue

from fedrec_client.serving.http.paths import printable
from fedrec_client.serving.service import Service, TenantService

MOST_ROWS = 1000
MOST_AT_ONCE = 10_000
_YEAR_9999 = 253_402_300_799

Text = Annotated[str, Field(max_length=100_000)]
Comment = Annotated[str, Field(max_length=4096)]
Category = Annotated[str, Field(min_length=1, max_length=256)]
Timestamp = Annotated[float, Field(ge=0, le=_YEAR_9999, description="Unix seconds; 0 for none.")]
N = Annotated[int, Field(ge=1, le=MOST_ROWS, description="How many.")]
Cursor = Annotated[str, Field(max_length=20_000, description="What the page before gave; empty for the first.")]
_SAYABLE = {"pattern": r"^[^\x00-\x1f\x7f]*$"}  # as of `Id`
OptionalId = Annotated[str, Field(max_length=256, json_schema_extra=_SAYABLE), AfterValidator(printable)]
Fields = dict[Annotated[str, Field(max_length=256)], JsonValue]


class Asked(BaseModel):
    """A body: an unknown name is an error, and a number is no text."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class AskedInQuery(BaseModel):
    """Parameters behind the question mark, which are all text: an unknown one is an error here too."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class Told(BaseModel):
    """A part of an answer."""

    model_config = ConfigDict(frozen=True)


class Paged(AskedInQuery):
    """Some rows of many."""

    n: N = 100
    cursor: Cursor = ""


class FlawForm(Told):
    """One of several things that are wrong."""

    place: str
    problem: str


class ProblemForm(Told):
    """RFC 9457, with what to do about it."""

    type: str = Field(examples=["urn:fedrec:error:no-such-item"])
    title: str = Field(examples=["There is no such item"])
    status: int
    detail: str
    remedy: str
    errors: list[FlawForm]
    request: str = Field(description="As in X-Request-ID.")


class WasThere(Told):
    """What became of a deletion."""

    was_there: bool


class Stored(Told):
    """How many were stored."""

    stored: int


_WORDS = {
    400: "What was sent cannot be used.",
    401: "No valid API key.",
    403: "The API key lacks the scope.",
    404: "There is no such thing.",
    408: "The body did not come in time.",
    409: "It does not fit what is there.",
    413: "The body is too large.",
    421: "The service is not known under this name.",
    422: "The request is not as described; every flaw is listed.",
    429: "Too many requests; Retry-After says when to come again.",
    503: "Not ready, or full; Retry-After says when to come again.",
}
_SCHEMA = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemForm"}}}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"description": words, "content": _SCHEMA} for status, words in _WORDS.items()
}
PROBLEMS[400]["model"] = ProblemForm  # one names it, so that FastAPI writes its schema down


class Desk:
    """Whose books a request means."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def __call__(self, request: Request) -> TenantService:
        """By the API key. Raises NotReadyError."""
        return self._service.of(request.state.tenant)
