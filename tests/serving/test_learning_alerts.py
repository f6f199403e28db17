"""Alerts arrive at a real server, once an hour, again after a failure, and nowhere that they should not."""

import asyncio
import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fedrec.errors import ConfigError
from fedrec_client.serving.learning.alerts import Alert, Alerts, checked_address

DRIFT = Alert("drift", "changed: events by type", "default", {"events by type": 0.4})


class Hook(ThreadingHTTPServer):
    """Answers with the given codes, one after the other, the last for good."""

    daemon_threads = True

    def __init__(self, codes: list[int]) -> None:
        self.codes, self.got, self.paths = codes, list[dict[str, object]](), list[str]()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook"


class _Handler(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        self.server.paths.append(self.path)
        self.server.got.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        code = self.server.codes.pop(0) if len(self.server.codes) > 1 else self.server.codes[0]
        self.send_response(code)
        if code == 302:
            self.send_header("location", "/elsewhere")
        self.send_header("content-length", "0")
        self.end_headers()

    do_GET = do_POST  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hook() -> Iterator[Hook]:
    server = Hook([200])
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def sent(hook: Hook, *alerts: Alert, times: tuple[float, ...] = ()) -> list[bool]:
    """Whether each was new."""
    clock = iter(times or [1000.0] * len(alerts))

    async def send() -> list[bool]:
        sender = Alerts(hook.address, pauses_s=(0.0, 0.0), clock=lambda: next(clock))
        found = [sender.raise_alert(alert) for alert in alerts]
        await sender.settle()
        return found

    return asyncio.run(send())


def test_one_arrives_and_says_no_more_than_it_should(hook: Hook, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert sent(hook, DRIFT) == [True]
    told = {"kind": "drift", "what": DRIFT.what, "tenant": "default", "figures": {"events by type": 0.4}, "at": 1000.0}
    assert hook.got == [told]
    assert "changed: events by type" in caplog.text


def test_one_of_a_kind_and_tenant_within_an_hour(hook: Hook) -> None:
    other = Alert("drift", "changed: x", "shop")
    assert sent(hook, DRIFT, DRIFT, other, DRIFT, times=(0, 3599, 3599, 3600)) == [True, False, True, True]
    assert len(hook.got) == 3


def test_a_failure_is_tried_again_and_in_the_end_stands_in_the_log(
    hook: Hook, caplog: pytest.LogCaptureFixture
) -> None:
    hook.codes = [500, 503, 200]
    sent(hook, DRIFT)
    assert len(hook.got) == 3
    assert "not delivered" not in caplog.text
    hook.codes = [500]
    sent(hook, DRIFT)
    assert len(hook.got) == 6
    assert "an alert was not delivered: it answers 500" in caplog.text
    assert hook.address not in caplog.text


def test_redirects_are_not_followed(hook: Hook, caplog: pytest.LogCaptureFixture) -> None:
    hook.codes = [302]
    sent(hook, DRIFT)
    assert set(hook.paths) == {"/hook"}
    assert "not delivered" in caplog.text


def test_a_server_that_hangs_or_is_not_there_holds_nobody_up(caplog: pytest.LogCaptureFixture) -> None:
    async def send() -> float:
        loop = asyncio.get_running_loop()
        sender = Alerts("http://127.0.0.1:1/x", pauses_s=(60.0,))
        began = loop.time()
        sender.raise_alert(DRIFT)
        took = loop.time() - began
        await asyncio.sleep(0.05)
        await sender.close()
        return took

    assert asyncio.run(send()) < 0.05


def test_without_a_webhook_the_log_has_it(caplog: pytest.LogCaptureFixture) -> None:
    assert Alerts("").raise_alert(DRIFT)
    assert "changed: events by type" in caplog.text


@pytest.mark.parametrize(
    "address",
    [
        "http://example.com/x",
        "ftp://127.0.0.1/x",
        "https://",
        "hook",
        "http://127.0.0.1.example/x",
        "http://[::1",
        "//x",
    ],
)
def test_only_tls_or_this_machine(address: str) -> None:
    with pytest.raises(ConfigError) as error:
        checked_address(address)
    assert "example" not in str(error.value)


@pytest.mark.parametrize("address", ["", "https://example.com/x", "http://localhost:1/x", "http://[::1]:1/x"])
def test_these_are_good(address: str) -> None:
    assert checked_address(address) == address
