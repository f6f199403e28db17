"""`/api/v1`: what the commands of `flower-server` can do, as JSON. Described at `/api/v1/openapi.json`."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from fedrec_server.admin import administration, progress
from fedrec_server.admin.overview import overview, partners_told
from fedrec_server.admin.progress import EpsilonByRound
from fedrec_server.settings import Coordinator
from fedrec_server.state.round_book import RoundBook
from fedrec_server.state.store import Office

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
NameInPath = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
Limit = Annotated[int, Query(ge=1, le=1000)]
# Of a row's number in the database.
Before = Annotated[int | None, Query(ge=1, lt=2**31)]


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Standing(_Body):
    """What a partner may do."""

    status: Literal["approved", "suspended", "removed"]


class Asked(_Body):
    """An invitation to be made."""

    name: Name
    hours: Annotated[float, Field(gt=0, le=720)] = 72.0
    is_approved: bool = False
    replaces_keys: bool = False


class Pausing(_Body):
    """Whether rounds rest."""

    paused: bool


def _whole(value: object) -> object:
    """JSON knows one kind of number: 3.0 is 3."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class Return(_Body):
    """The committed round to go back to."""

    round: Annotated[int, Field(ge=0, lt=2**31), BeforeValidator(_whole)]


class Invited(BaseModel):
    """A new invitation; the token is not to be had again."""

    partner: str
    invitation: str
    valid_hours: float


class Problem(BaseModel):
    """Why a request was not carried out."""

    error: str
    remedy: str


_PROBLEMS: dict[int | str, dict[str, Any]] = {
    code: {"model": Problem} for code in (400, 401, 403, 404, 405, 409, 413, 421, 422, 500, 503)
}


def api_routes(coordinator: Coordinator, epsilon: EpsilonByRound) -> APIRouter:
    """The routes; each is refused or answered by the same functions as the commands."""
    api = APIRouter(prefix="/api/v1", responses=_PROBLEMS)

    @api.get("/overview")
    def read_overview() -> dict[str, Any]:
        """What runs, who takes part, how far training is, and the attempt under way."""
        return {**overview(coordinator), "under_way": progress.under_way(coordinator)}

    @api.get("/partners")
    def read_partners() -> list[dict[str, Any]]:
        """Everybody who ever enrolled."""
        return partners_told(coordinator)

    @api.post("/partners/{name}/status")
    def change_status(name: NameInPath, standing: Standing) -> dict[str, str]:
        """Approve, suspend or remove a partner."""
        found = administration.set_status(coordinator, name, standing.status, who="api")
        return {"partner": found.name, "status": found.status}

    @api.post("/invitations", status_code=201)
    def invite(asked: Asked) -> Invited:
        """Make a one-time invitation."""
        return Invited(**administration.invite(coordinator, **asked.model_dump(), who="api"))

    @api.get("/rounds")
    def read_rounds(limit: Limit = 100, before: Before = None) -> list[dict[str, Any]]:
        """Attempts at rounds, newest first."""
        return RoundBook(coordinator.database).latest(limit, before)

    @api.get("/progress")
    def read_progress() -> list[dict[str, Any]]:
        """Each committed round that counts: seconds, bytes, answers, epsilon so far, norm of the step."""
        return progress.series(coordinator, epsilon)

    @api.get("/versions")
    def read_versions() -> list[dict[str, Any]]:
        """Committed adapter versions, newest first."""
        return progress.versions(coordinator)

    @api.post("/rollback")
    def roll_back(wanted: Return) -> dict[str, Any]:
        """Let an earlier version count again; paused first."""
        return administration.roll_back(coordinator, wanted.round, who="api").to_dict()

    @api.post("/pause")
    def pause(wanted: Pausing) -> dict[str, bool]:
        """Begin no further round, or go on."""
        administration.set_paused(coordinator, wanted.paused, who="api")
        return {"paused": wanted.paused}

    @api.get("/audit")
    def read_audit(limit: Limit = 100, before: Before = None) -> list[dict[str, Any]]:
        """Who did what, newest first."""
        return Office(coordinator.database).audit(limit, before)

    return api
