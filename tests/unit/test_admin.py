"""The admin app: nobody without credentials, nothing from another site, and deeds like those of the commands."""

import asyncio
import hashlib
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from starlette.routing import Route

from fedrec.data.catalog import ItemCatalog, write_catalog
from fedrec.invitation import Invitation
from fedrec.web.assets import SHARED
from fedrec_server.admin.administration import invite
from fedrec_server.admin.api import api_routes
from fedrec_server.admin.app import admin_app
from fedrec_server.admin.guard import COOKIE, CSRF_HEADER
from fedrec_server.admin.pages import ago, page_routes
from fedrec_server.admin.progress import EpsilonByRound
from fedrec_server.keys.credentials import (
    ADMIN_TOKEN,
    METRICS_TOKEN,
    Credentials,
    remove_password,
    set_password,
)
from fedrec_server.settings import make_coordinator
from fedrec_server.state.partner_book import PartnerBook
from fedrec_server.state.quality_book import Quality, QualityBook
from fedrec_server.state.round_book import RoundBook
from fedrec_server.state.store import Office, at
from fedrec_sim.rehearsal.federations import sums_federation

PORTS = {"GATEWAY_PORT": 8443, "SUPERLINK_PORT": 9191, "ADMIN_PORT": 8444}
PASSWORD = "correct horse battery"


class World:
    """A coordinator's folder with two committed rounds, and browsers and programs that call its admin app."""

    def __init__(self, folder: Path) -> None:
        catalog = ItemCatalog(("1",), ("Heat",), ("Heat",), ((),), (1995,))
        write_catalog(catalog, folder / "catalog.parquet")
        self.coordinator = make_coordinator(folder / "server", name="films", hosts=("localhost",), ports=PORTS)
        del self.coordinator.__dict__["database"]  # init closed it
        federation = sums_federation(folder / "catalog.parquet", rounds=3, quorum=1)
        self.coordinator.use(federation)
        self._commit(federation.initial)
        self.app = admin_app(self.coordinator)
        self.token = (self.coordinator.keys / ADMIN_TOKEN).read_text()
        self.cookies: dict[str, str] = {}

    def _commit(self, state: Any) -> None:
        parent, book = "", RoundBook(self.coordinator.database)
        for number in range(3):
            version = self.coordinator.registry.commit(
                state, round=number, parent=parent, mode="inspect", statement={}, server_state={}
            )
            parent = version.adapter_hash
            if number:
                book.begin("sums/1", number, 1, "head")
                told = {"partners": ["shop"], "seconds": 1.5, "step_norm": 2.0, "adapter_hash": parent}
                book.end("sums/1", number, 1, status="committed", **told)

    def call(self, method: str, path: str, **more: Any) -> httpx.Response:
        async def run() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, client=("127.0.0.1", 5), raise_app_exceptions=False)
            address = "http://localhost:8444"
            async with httpx.AsyncClient(transport=transport, base_url=address, cookies=self.cookies) as client:
                return await client.request(method, path, **more)

        return asyncio.run(run())

    def api(self, method: str, path: str, body: Any = None) -> httpx.Response:
        return self.call(method, f"/api/v1{path}", json=body, headers={"authorization": f"Bearer {self.token}"})

    def log_in(self, secret: str) -> httpx.Response:
        answer = self.call("POST", "/login", data={"secret": secret})
        if COOKIE in answer.cookies:
            self.cookies = {COOKIE: answer.cookies[COOKIE]}
        return answer

    def press(self, path: str, **data: str) -> httpx.Response:
        """As a button of a page does, with what only our own page knows."""
        found = re.search(r'"x-csrf-token": "([^"]+)"', self.call("GET", "/").text)
        assert found
        return self.call("POST", path, data=data, headers={CSRF_HEADER: found[1], "hx-request": "true"})

    def enrol(self, name: str) -> None:
        book = PartnerBook(self.coordinator.database)
        made = invite(self.coordinator, name, hours=1, is_approved=False, who="cli")["invitation"]
        secret = Invitation.from_token(made).secret
        keys = {"node_key": f"node {name}", "signing_key": hashlib.sha256(name.encode()).hexdigest()}
        book.enrol(name, secret, **keys)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> World:
    """For tests that change nothing which others read."""
    return World(tmp_path_factory.mktemp("admin"))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def every_route(world: World) -> list[tuple[str, str]]:
    """Method and an address of each route of the app."""
    epsilon, credentials = EpsilonByRound(None, ()), Credentials(world.coordinator.keys)
    routers = api_routes(world.coordinator, epsilon), page_routes(world.coordinator, credentials, epsilon)
    routes = [route for router in routers for route in router.routes if isinstance(route, Route)]
    values = {"{name}": "shop", "{status}": "approved", "{how}": "on", "{number}": "1"}
    found = []
    for route in routes:
        path = re.sub(r"{\w+}", lambda match: values[match[0]], route.path)
        found += [(method, path) for method in route.methods or () if method != "HEAD"]
    return found


def test_nobody_gets_anything_without_credentials(kept: World) -> None:
    routes = every_route(kept)
    assert len(routes) > 20
    before = Office(kept.coordinator.database).audit()
    for method, path in routes:
        if path in ("/login", "/health"):
            continue
        for headers in ({}, {"authorization": "Bearer x"}, {"cookie": f"{COOKIE}=x"}, {"authorization": "Bearer "}):
            assert kept.call(method, path, headers=headers).status_code == 401, (method, path)
    assert Office(kept.coordinator.database).audit() == before


def test_a_person_is_led_to_the_door_and_a_program_is_told(kept: World) -> None:
    assert kept.call("GET", "/partners", headers={"accept": "text/html"}).headers["location"] == "/login"
    assert kept.call("GET", "/parts/live", headers={"hx-request": "true"}).headers["hx-redirect"] == "/login"
    assert kept.call("GET", "/api/v1/rounds").json()["error"] == "no valid token"


@pytest.mark.parametrize("path", ["/login", "/", "/api/v1/overview", "/no-such-page", "/static/admin.css"])
def test_every_answer_carries_strict_headers(kept: World, path: str) -> None:
    for answer in (kept.call("GET", path), kept.call("GET", path, headers={"host": "evil.example"})):
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "", "[::1", "a@b:c"])
def test_another_name_that_leads_here_is_refused(kept: World, host: str) -> None:
    headers = {"host": host, "authorization": f"Bearer {kept.token}"}
    assert kept.call("GET", "/api/v1/overview", headers=headers).status_code == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:9999"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_another_site_changes_nothing(world: World, headers: dict[str, str]) -> None:
    assert world.call("POST", "/login", data={"secret": world.token}, headers=headers).status_code == 403
    headers = {**headers, "authorization": f"Bearer {world.token}"}
    assert world.call("POST", "/api/v1/pause", json={"paused": True}, headers=headers).status_code == 403
    assert Office(world.coordinator.database).setting("paused") == ""


def test_a_session_changes_nothing_without_the_word_of_its_page(world: World) -> None:
    assert world.log_in(world.token).status_code == 303
    for headers in ({}, {CSRF_HEADER: "x"}, {CSRF_HEADER: ""}):
        assert world.call("POST", "/pause/on", headers=headers).status_code == 403
        assert world.call("POST", "/api/v1/pause", json={"paused": True}, headers=headers).status_code == 403
        assert world.call("POST", "/logout", headers=headers).status_code == 403
    assert Office(world.coordinator.database).setting("paused") == ""
    assert "Rounds are paused" in world.press("/pause/on").text
    assert Office(world.coordinator.database).setting("paused") == "yes"


def test_the_cookie_is_for_this_site_and_no_script(world: World) -> None:
    cookie = world.log_in(world.token).headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert world.token not in cookie


def test_a_wrong_secret_opens_nothing_and_guesses_are_few(world: World) -> None:
    set_password(world.coordinator.keys, PASSWORD)
    codes = [world.log_in(f"wrong password {number}").status_code for number in range(12)]
    assert codes[:10] == [401] * 10
    assert codes[-1] == 429
    assert world.log_in(PASSWORD).status_code == 429
    assert world.api("GET", "/overview").status_code == 200  # a token is no guess


def test_a_password_opens_and_its_change_ends_sessions(world: World) -> None:
    keys = world.coordinator.keys
    set_password(keys, PASSWORD)
    assert PASSWORD not in (keys / "admin.password").read_text()
    assert (keys / "admin.password").stat().st_mode & 0o077 == 0
    assert world.log_in(PASSWORD).status_code == 303
    assert world.call("GET", "/partners").status_code == 200
    set_password(keys, PASSWORD + "!")
    assert world.call("GET", "/partners").status_code == 401
    remove_password(keys)
    assert world.log_in(PASSWORD + "!").status_code == 401


def test_credentials_that_others_may_read_open_nothing(world: World) -> None:
    (world.coordinator.keys / ADMIN_TOKEN).chmod(0o644)
    answer = world.api("GET", "/overview")
    assert answer.status_code == 500
    assert "may be read by others" in answer.json()["error"]


def test_logging_out_ends_the_session(world: World) -> None:
    world.log_in(world.token)
    assert world.press("/logout").headers["hx-redirect"] == "/login"
    assert world.call("GET", "/partners").status_code == 401


def test_monitoring_reads_figures_and_nothing_else(kept: World) -> None:
    headers = {"authorization": f"Bearer {(kept.coordinator.keys / METRICS_TOKEN).read_text()}"}
    for method, path in every_route(kept):
        if path not in ("/login", "/health"):
            assert kept.call(method, path, headers=headers).status_code == 401, path
    assert b"fedrec_server_" in kept.call("GET", "/metrics", headers=headers).content
    assert kept.call("GET", "/ready", headers=headers).json()["is_ready"] is False  # no SuperLink, no driver
    assert [kept.call("GET", path).status_code for path in ("/metrics", "/ready", "/health")] == [401, 401, 200]


def test_a_large_body_is_refused_before_it_is_read_whole(kept: World) -> None:
    headers = {"authorization": f"Bearer {kept.token}"}
    assert kept.call("POST", "/api/v1/pause", content=b"x" * 70_000, headers=headers).status_code == 413
    assert kept.call("POST", "/login", content=b"x" * 70_000).status_code == 413


def test_what_is_wrong_is_named_all_at_once_and_not_repeated(kept: World) -> None:
    answer = kept.api("POST", "/invitations", {"name": "<Secret>", "hours": -1, "more": 1})
    assert answer.status_code == 422
    for place in ("body.name", "body.hours", "body.more"):
        assert place in answer.json()["error"]
    assert "Secret" not in answer.text


def test_the_api_does_what_the_commands_do(world: World) -> None:
    made = world.api("POST", "/invitations", {"name": "shop", "hours": 2.0})
    assert made.status_code == 201
    assert made.json()["invitation"].startswith("fedrec1.")
    world.enrol("music")
    assert world.api("POST", "/partners/music/status", {"status": "approved"}).json()["status"] == "approved"
    assert world.api("POST", "/partners/nobody/status", {"status": "approved"}).status_code == 409
    assert world.api("POST", "/pause", {"paused": True}).json() == {"paused": True}
    head = world.api("POST", "/rollback", {"round": 1}).json()
    assert (head["round"], head["generation"]) == (1, 2)
    overview = world.api("GET", "/overview").json()
    assert (overview["round"], overview["paused"], overview["under_way"]) == (1, True, None)
    deeds = [(line["who"], line["what"]) for line in world.api("GET", "/audit").json()]
    for deed in ("invited", "partner approved", "set paused", "rolled back"):
        assert ("api", deed) in deeds
    again = world.api("POST", "/rollback", {"round": 2})
    assert again.status_code == 409
    assert "not committed" in again.json()["error"]


def test_progress_shows_what_counts(world: World) -> None:
    adapter = world.coordinator.registry.load_head().hash
    quality = Quality(adapter, "movielens-small", "leave-last-out", 500, 0.2, 0.1)
    QualityBook(world.coordinator.database).note(quality, who="cli")
    found = world.api("GET", "/progress").json()
    assert [(one["round"], one["step_norm"], one["answers"]) for one in found] == [(1, 2.0, 1), (2, 2.0, 1)]
    assert found[0]["quality"]["hit_ratio"] == 0.2
    plan = world.coordinator.federation().terms.plan
    assert plan is not None
    assert found[0]["epsilon"] < found[1]["epsilon"] < plan.epsilon()
    assert found[1]["epsilon"] == pytest.approx(plan.epsilon({"head": 2}))
    world.api("POST", "/rollback", {"round": 1})
    assert [one["round"] for one in world.api("GET", "/progress").json()] == [1]


def test_the_attempt_under_way_shows_who_answered(world: World) -> None:
    book = PartnerBook(world.coordinator.database)
    for name in ("a", "b", "c"):
        world.enrol(name)
        book.set_status(name, "approved", who="cli")
    book.see("a", "")  # of an earlier round
    RoundBook(world.coordinator.database).begin("sums/1", 3, 1, "head")
    stands = {one["partner"]: one["stands"] for one in world.api("GET", "/overview").json()["under_way"]["partners"]}
    assert set(stands.values()) <= {"open", "answered"}
    book.see("b", "")
    book.see("c", "too slow")
    stands = {one["partner"]: one["stands"] for one in world.api("GET", "/overview").json()["under_way"]["partners"]}
    assert (stands["b"], stands["c"]) == ("answered", "lost")


def test_pages_go_back_in_time(world: World) -> None:
    office = Office(world.coordinator.database)
    for number in range(60):
        office.note("cli", f"deed {number}", {})
    world.log_in(world.token)
    first = world.call("GET", "/audit").text
    earlier = re.search(r'href="(/audit\?before=\d+)"', first)
    assert earlier
    assert "deed 59" in first
    assert "deed 0" not in first
    assert "deed 0<" in world.call("GET", earlier[1]).text


def test_words_of_partners_are_no_markup(world: World) -> None:
    world.enrol("shop")
    PartnerBook(world.coordinator.database).see("shop", "<script>alert(1)</script>")
    world.log_in(world.token)
    page = world.call("GET", "/partners").text
    assert "&lt;script&gt;alert" in page
    assert "<script>alert" not in page


def test_a_page_invites_once_and_shows_the_token_once(world: World) -> None:
    world.log_in(world.token)
    answer = world.press("/invitations", name="shop", hours="5", is_approved="yes")
    token = re.search(r"fedrec1\.[\w.=-]+", answer.text)
    assert token
    assert token[0] not in world.call("GET", "/partners").text
    assert token[0] not in world.call("GET", "/audit").text
    assert world.press("/invitations", name="shop!", hours="5").status_code == 409
    world.enrol("films")
    assert "fedrec1." in world.press("/invitations", name="films", hours="5", replaces_keys="yes").text
    assert PartnerBook(world.coordinator.database).partner("films").status == "keyless"
    assert world.press("/invitations", name="music", hours="many").status_code == 409


def test_what_is_shipped_is_what_its_list_says() -> None:
    text = (SHARED / "THIRD-PARTY.txt").read_text()
    listed = re.findall(r"^(\S+\.js) .*?SHA-256 ([0-9a-f]{64})$", text, re.MULTILINE | re.DOTALL)
    assert {name for name, _ in listed} == {f.name for f in SHARED.iterdir()} - {"icon.svg", "THIRD-PARTY.txt"}
    for name, digest in listed:
        assert hashlib.sha256((SHARED / name).read_bytes()).hexdigest() == digest


def test_pages_load_nothing_from_elsewhere(world: World) -> None:
    world.log_in(world.token)
    for path in ("/", "/partners", "/rounds", "/versions", "/audit", "/parts/figures"):
        page = world.call("GET", path).text
        assert not re.search(r"(src|href|action)=.?(https?:)?//", page)
        assert not re.search(r"<script(?![^>]*\bsrc=)", page)
        assert not re.search(r"\son\w+=|\sstyle=", page)


def test_times_are_told_in_words() -> None:
    assert ago(at(datetime.now(UTC) - timedelta(hours=5))) == "5 h ago"


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The API as it describes itself, and a coordinator that may be changed at will."""
    world = World(tmp_path_factory.mktemp("fuzzed"))
    headers = {"authorization": f"Bearer {world.token}", "host": "localhost"}
    found = schemathesis.openapi.from_asgi("/api/v1/openapi.json", world.app, headers=headers)
    found.config.headers = headers
    return found


@pytest.mark.parametrize("kind", GenerationMode)
def test_the_api_is_as_it_describes_itself_whatever_is_sent(described: Any, kind: GenerationMode) -> None:
    """Status, type and form of every answer; what the description forbids is refused; nothing breaks."""
    operations = [found.ok() for found in described.get_all_operations()]
    assert len(operations) == 10
    for operation in operations:
        if kind is GenerationMode.NEGATIVE and not (operation.body or operation.query or operation.path_parameters):
            continue  # nothing to get wrong

        @given(case=operation.as_strategy(generation_mode=kind))
        @settings(max_examples=25, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
        def call(case: schemathesis.Case) -> None:
            case.call_and_validate()

        call()
