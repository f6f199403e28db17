"""The serving process: it takes its port first, refuses to be exposed, and ends in good order."""

import asyncio
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.types import ASGIApp

from fedrec.errors import ConfigError
from fedrec_client.serving.http.app import make_app
from fedrec_client.serving.http.keys import KeyRing
from fedrec_client.serving.http.metrics import EngineFigures, ServingMetrics
from fedrec_client.serving.http.server import check_exposure, listen, serve
from fedrec_client.serving.settings import HttpSettings, ServingSettings

PROGRAM = """
import asyncio, sys
from pathlib import Path
from fastapi import APIRouter
from fedrec.logs import log_json
from fedrec_client.serving.http.app import make_app
from fedrec_client.serving.http.keys import KeyRing
from fedrec_client.serving.http.metrics import EngineFigures, ServingMetrics
from fedrec_client.serving.http.server import listen, serve
from fedrec_client.serving.settings import ServingSettings

folder, grace_s = Path(sys.argv[1]), float(sys.argv[2])
settings = ServingSettings.model_validate({"format": 1, "http": {"port": 0}})
router = APIRouter()

@router.get("/v1/recommend/{seconds}")
async def slow(seconds: float) -> str:
    (folder / "begun").touch()
    await asyncio.sleep(seconds)
    return f"{type(asyncio.get_running_loop()).__module__}"

log_json()
listener = listen(settings.http)
app = make_app(
    settings,
    [router],
    ring=KeyRing(lambda _: None, lambda: False),
    metrics=ServingMetrics(EngineFigures),
    is_ready=(folder / "ready").exists,
    on_stop=(folder / "stopped").touch,
)
(folder / "port.new").write_text(str(listener.getsockname()[1]))
(folder / "port.new").rename(folder / "port")
serve(app, settings, has_keys=False, grace_s=grace_s, listener=listener)
(folder / "ended").touch()
"""


class Process:
    def __init__(self, folder: Path, grace_s: float) -> None:
        self.folder = folder
        words = [sys.executable, "-c", PROGRAM, str(folder), str(grace_s)]
        with (folder / "log").open("w") as log:
            self.process = subprocess.Popen(words, stderr=log)
        self.port = int(self.wait_for("port").read_text())

    def wait_for(self, name: str) -> Path:
        deadline = time.monotonic() + 20
        while not (self.folder / name).exists():
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.01)
        return self.folder / name

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=20)

    def get_meanwhile(self, path: str) -> tuple[threading.Thread, list[httpx.Response | Exception]]:
        found: list[httpx.Response | Exception] = []

        def ask() -> None:
            try:
                found.append(self.get(path))
            except httpx.HTTPError as error:
                found.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        self.wait_for("begun")
        return thread, found

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    made = Process(tmp_path, 10.0)
    yield made
    made.process.kill()
    made.process.wait()


def test_at_the_end_what_is_under_way_is_finished_and_nothing_new_is_taken(process: Process) -> None:
    assert process.get("/health").status_code == 200
    assert (process.get("/ready").status_code, process.get("/api/health/ready").status_code) == (503, 503)
    assert process.get("/api/health/live").json()["Ready"] is False
    (process.folder / "ready").touch()
    assert (process.get("/ready").status_code, process.get("/api/health/ready").status_code) == (200, 200)
    thread, found = process.get_meanwhile("/v1/recommend/1.0")
    process.process.send_signal(signal.SIGTERM)
    refused = False
    while thread.is_alive() and not refused:
        try:
            socket.create_connection(("127.0.0.1", process.port), timeout=1).close()
        except ConnectionRefusedError:
            refused = True
        time.sleep(0.01)
    assert refused
    assert not (process.folder / "stopped").exists(), "the store is not closed under a request"
    thread.join()
    (answer,) = found
    assert isinstance(answer, httpx.Response)
    assert (answer.status_code, answer.json()) == (200, "uvloop")
    assert process.process.wait(20) == 0
    assert (process.folder / "stopped").exists()
    assert (process.folder / "ended").exists()
    assert "Traceback" not in (process.folder / "log").read_text()


def test_what_takes_longer_than_the_grace_is_cut_off(tmp_path: Path) -> None:
    process = Process(tmp_path, 0.3)
    thread, found = process.get_meanwhile("/v1/recommend/9")
    began = time.monotonic()
    assert process.end() == 0
    thread.join()
    assert time.monotonic() - began < 5
    assert not (isinstance(found[0], httpx.Response) and found[0].status_code == 200)
    assert (tmp_path / "stopped").exists()


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port}: Address already in use"):
            listen(HttpSettings(port=port))


def test_an_address_that_is_not_ours_is_named() -> None:
    with pytest.raises(ConfigError, match=r"203\.0\.113\.1"):
        listen(HttpSettings(host="203.0.113.1", port=0))


TLS = {"certificate": "c.pem", "key": "k.pem"}
PROXY = {"behind_proxy": True}


@pytest.mark.parametrize(
    ("http", "has_keys", "problems"),
    [
        ({}, False, 0),
        (PROXY, False, 1),
        (PROXY, True, 0),
        ({"host": "::1"}, False, 0),
        ({"host": "0.0.0.0"}, False, 2),
        ({"host": "0.0.0.0"}, True, 1),
        ({"host": "0.0.0.0", **PROXY}, True, 0),
        ({"host": "0.0.0.0", **PROXY}, False, 1),
        ({"host": "shop.example", **TLS}, True, 0),
        ({"host": "shop.example", **TLS}, False, 1),
        ({"host": ""}, True, 1),
    ],
)
def test_beyond_this_machine_there_must_be_keys_and_tls(http: dict[str, object], has_keys: bool, problems: int) -> None:
    settings = HttpSettings.model_validate(http)
    if not problems:
        check_exposure(settings, has_keys=has_keys)
        return
    with pytest.raises(ConfigError, match=f"{problems} problem"):
        check_exposure(settings, has_keys=has_keys)


def test_a_certificate_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "c.pem").write_text("no certificate")
    http = {"port": 0, "certificate": str(tmp_path / "c.pem"), "key": str(tmp_path / "k.pem")}
    settings = ServingSettings.model_validate({"format": 1, "http": http})
    with pytest.raises(ConfigError, match="certificate or key cannot be used"):
        serve(app_of(settings), settings, has_keys=False)


def app_of(settings: ServingSettings) -> ASGIApp:
    ring = KeyRing(lambda _: None, lambda: False)
    metrics = ServingMetrics(EngineFigures)
    return make_app(settings, [], ring=ring, metrics=metrics, is_ready=lambda: True, on_stop=lambda: None)


def get(app: ASGIApp, url: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            return await client.get(url)

    return asyncio.run(ask())


def test_the_api_explains_itself_without_anything_from_elsewhere() -> None:
    app = app_of(ServingSettings(format=1))
    described = get(app, "/v1/openapi.json").json()
    assert described["info"]["title"] == "fedrec serving"
    assert get(app, "/apidocs.json").json() == described
    page = get(app, "/v1/docs").text
    assert page.startswith("<!doctype html>")
    assert "<script" not in page
    assert "//" not in page.removeprefix("<!doctype html>")
    assert get(app, "/docs").status_code == 404
