"""The pages: rounds live, partners, versions, audit log. What they change, they change as the commands do."""

import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.concurrency import run_in_threadpool

from fedrec.errors import ConfigError
from fedrec.web.assets import SHARED, addresses, static_files
from fedrec_server.admin import administration, progress
from fedrec_server.admin.guard import COOKIE
from fedrec_server.admin.overview import overview, partners_told
from fedrec_server.admin.progress import EpsilonByRound
from fedrec_server.gateway.limits import Buckets
from fedrec_server.keys.credentials import SESSION_S, Credentials
from fedrec_server.settings import Coordinator
from fedrec_server.state.round_book import RoundBook
from fedrec_server.state.store import Office

_log = logging.getLogger(__name__)
_PLACE = files("fedrec_server.admin")
_ASSETS = addresses(static_files(_PLACE / "static", SHARED))
_ON_A_PAGE = 50
# Guesses at the door: ten, then one in five seconds, from wherever they come; tokens of programs are not among them.
_GUESSES_PER_S, _GUESSES = 0.2, 10
Fields = dict[str, str]
Before = Annotated[int | None, Query(ge=1, lt=2**31)]
NameInPath = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]


async def _fields(request: Request) -> Fields:
    """A form's fields, each once; the guard has bounded the body."""
    try:
        return {k: v[-1] for k, v in parse_qs((await request.body()).decode(), max_num_fields=20).items()}
    except ValueError as error:
        raise ConfigError("the form cannot be read", "load the page again") from error


Form = Annotated[Fields, Depends(_fields)]


@dataclass
class Pages:
    """What the routes share.

    Attributes:
        epsilon: costs of the plan.
    """

    coordinator: Coordinator
    credentials: Credentials
    epsilon: EpsilonByRound

    def __post_init__(self) -> None:
        self._guesses = Buckets(_GUESSES_PER_S, _GUESSES)
        self._jinja = Environment(
            loader=FileSystemLoader(str(_PLACE / "templates")), autoescape=True, undefined=StrictUndefined
        )
        self._jinja.filters |= {"ago": ago, "size": size}
        self._jinja.globals |= {"asset": _ASSETS, "federation": self.coordinator.federation().terms.name}

    def page(self, request: Request, name: str, **values: Any) -> HTMLResponse:
        """A whole page."""
        session = request.scope["state"]["session"]
        shared = {"csrf": session.csrf if session else "", "place": name}
        return HTMLResponse(self._jinja.get_template(f"{name}.html.j2").render(**shared, **values))

    def part(self, name: str, notice: str = "", **values: Any) -> HTMLResponse:
        """A piece of a page, and what to say of what was done."""
        return HTMLResponse(self._jinja.get_template(f"_{name}.html.j2").render(notice=notice, **values))

    def live(self, notice: str = "") -> HTMLResponse:
        """State and the attempt under way."""
        return self.part("live", notice, **self.live_values())

    def live_values(self) -> dict[str, Any]:
        """For `_live`."""
        told = overview(self.coordinator)
        attempt = progress.under_way(self.coordinator) if told["running"] and not told["paused"] else None
        return {"told": told, "attempt": attempt, "recent": RoundBook(self.coordinator.database).latest(8)}

    def partners(self, notice: str = "", invited: dict[str, Any] | None = None) -> HTMLResponse:
        """The table of partners."""
        return self.part("partners", notice, partners=partners_told(self.coordinator), invited=invited)

    def versions(self, notice: str = "") -> HTMLResponse:
        """The table of versions."""
        return self.part("versions", notice, **self.versions_values())

    def versions_values(self) -> dict[str, Any]:
        """For `_versions`."""
        told = overview(self.coordinator)
        found = progress.versions(self.coordinator)
        return {"versions": found, "may_roll_back": told["paused"] or not told["running"]}

    def figures(self) -> HTMLResponse:
        """Each committed round, for plots and as a table."""
        found = progress.series(self.coordinator, self.epsilon)
        return self.part("figures", series=found, as_json=json.dumps(found))

    async def log_in(self, request: Request, secret: str) -> Response:
        """A session's cookie for the right secret."""
        if not self._guesses.take("door"):
            return self._door(request, "Too many tries: wait some seconds.", 429)
        session = await run_in_threadpool(self.credentials.log_in, secret)
        if session is None:
            _log.warning("a wrong password or token", extra={"event": "login_failed"})
            return self._door(request, "That is neither the password nor the admin token.", 401)
        await run_in_threadpool(Office(self.coordinator.database).note, "page", "logged in", {})
        answer = RedirectResponse("/", 303)
        answer.set_cookie(COOKIE, session.key, max_age=int(SESSION_S), httponly=True, samesite="strict", path="/")
        return answer

    def _door(self, request: Request, problem: str, status: int) -> Response:
        answer = self.page(request, "login", problem=problem)
        answer.status_code = status
        return answer


def page_routes(coordinator: Coordinator, credentials: Credentials, epsilon: EpsilonByRound) -> APIRouter:
    """The routes of every page."""
    pages = Pages(coordinator, credentials, epsilon)
    router = APIRouter(include_in_schema=False)
    _add_door(router, pages)
    _add_pages(router, pages)
    _add_parts(router, pages)
    _add_deeds(router, pages)
    return router


def _add_door(router: APIRouter, pages: Pages) -> None:
    @router.get("/login")
    def show_door(request: Request) -> HTMLResponse:
        return pages.page(request, "login", problem="")

    @router.post("/login")
    async def enter(request: Request, form: Form) -> Response:
        return await pages.log_in(request, form.get("secret", ""))

    @router.post("/logout")
    def leave(request: Request) -> Response:
        if session := request.scope["state"]["session"]:
            pages.credentials.log_out(session)
        answer = Response(headers={"hx-redirect": "/login"})
        answer.delete_cookie(COOKIE, path="/")
        return answer


def _add_pages(router: APIRouter, pages: Pages) -> None:
    database = pages.coordinator.database

    @router.get("/")
    def show_overview(request: Request) -> HTMLResponse:
        return pages.page(request, "overview", **pages.live_values(), notice="")

    @router.get("/partners")
    def show_partners(request: Request) -> HTMLResponse:
        told = partners_told(pages.coordinator)
        return pages.page(request, "partners", partners=told, invited=None, notice="")

    @router.get("/rounds")
    def show_rounds(request: Request, before: Before = None) -> HTMLResponse:
        found = RoundBook(database).latest(_ON_A_PAGE, before)
        return pages.page(request, "rounds", rounds=found, has_more=len(found) == _ON_A_PAGE)

    @router.get("/versions")
    def show_versions(request: Request) -> HTMLResponse:
        return pages.page(request, "versions", **pages.versions_values(), notice="")

    @router.get("/audit")
    def show_audit(request: Request, before: Before = None) -> HTMLResponse:
        found = Office(database).audit(_ON_A_PAGE, before)
        return pages.page(request, "audit", lines=found, has_more=len(found) == _ON_A_PAGE)


def _add_parts(router: APIRouter, pages: Pages) -> None:
    @router.get("/parts/live")
    def read_live() -> HTMLResponse:
        return pages.live()

    @router.get("/parts/partners")
    def read_partners() -> HTMLResponse:
        return pages.partners()

    @router.get("/parts/figures")
    def read_figures() -> HTMLResponse:
        return pages.figures()


def _add_deeds(router: APIRouter, pages: Pages) -> None:
    coordinator = pages.coordinator

    @router.post("/pause/{how}")
    def pause(how: Literal["on", "off"]) -> HTMLResponse:
        administration.set_paused(coordinator, how == "on", who="page")
        return pages.live("Rounds are paused." if how == "on" else "Rounds go on.")

    @router.post("/partners/{name}/{status}")
    def change_status(name: NameInPath, status: Literal["approved", "suspended", "removed"]) -> HTMLResponse:
        administration.set_status(coordinator, name, status, who="page")
        return pages.partners(f"{name} is {status}.")

    @router.post("/invitations")
    def invite(form: Form) -> HTMLResponse:
        hours, name = _hours(form.get("hours", "")), form.get("name", "")
        is_approved = form.get("is_approved") == "yes"
        replaces = form.get("replaces_keys") == "yes"
        made = administration.invite(
            coordinator, name, hours=hours, is_approved=is_approved, replaces_keys=replaces, who="page"
        )
        return pages.partners(f"{name} is invited: copy the invitation now.", made)

    @router.post("/versions/{number}")
    def roll_back(number: Annotated[int, Path(ge=0, lt=2**31)]) -> HTMLResponse:
        head = administration.roll_back(coordinator, number, who="page")
        return pages.versions(f"Round {head.round} counts again, as generation {head.generation}.")


def _hours(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ConfigError("the hours are no number", "72, say") from error


def ago(moment: str) -> str:
    """How long ago a time was, in words; `never` for the empty one.

    >>> ago("")
    'never'
    """
    if not moment:
        return "never"
    seconds = (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{max(0.0, seconds):.0f} s ago"


def size(n_bytes: int) -> str:
    """Bytes in words.

    >>> size(0), size(2048), size(3_500_000)
    ('0 B', '2.0 KiB', '3.3 MiB')
    """
    value, units = float(n_bytes), ["B", "KiB", "MiB", "GiB"]
    while value >= 1024 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"
