"""Hostile connections at the gateway's real TLS listener: each is cut off in time, and others are served meanwhile."""

import contextlib
import logging
import resource
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrec.errors import RunError
from fedrec_server.gateway.door import Guests, neighbourhood, open_doors, room_for

Listener = Any
MakeListener = Callable[..., Listener]


def hello(version: bytes) -> bytes:
    """A ClientHello of a version, with suites, a signature algorithm and a curve that the server would take."""
    suites, algorithms, curves = (
        bytes.fromhex(text) for text in ("0004c02bc00a", "000d000400020403", "000a000400020017")
    )
    more = algorithms + curves
    body = version + bytes(32) + b"\0" + suites + b"\1\0" + len(more).to_bytes(2, "big") + more
    told = b"\1" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x01" + len(told).to_bytes(2, "big") + told


TLS_1_1, TLS_1_2 = hello(b"\3\2"), hello(b"\3\3")
GET = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
POST = b"POST /fedrec/v1/enrol HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n"


def rest_of(connection: socket.socket) -> bytes:
    """Everything until the other side closes; a reset counts as that."""
    parts = []
    with contextlib.suppress(ConnectionResetError, BrokenPipeError, ssl.SSLError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def answer(connection: socket.socket) -> bytes:
    """One whole answer of ours: head, and a JSON object without a brace in it."""
    found = b""
    while not found.endswith(b"}"):
        part = connection.recv(65536)
        assert part, found
        found += part
    return found


def files_open() -> int:
    folder = Path("/proc/self/fd")
    return sum(1 for _ in folder.iterdir()) if folder.is_dir() else 0


def until(holds: Callable[[], bool], timeout_s: float = 5.0) -> bool:
    end = time.monotonic() + timeout_s
    while not holds() and time.monotonic() < end:
        time.sleep(0.01)
    return holds()


def trickled(connection: socket.socket, words: bytes, pause_s: float = 0.05) -> float:
    """Send a byte now and then until the other side has had enough; seconds until then."""
    started = time.monotonic()
    with contextlib.suppress(OSError):
        for number in range(200):
            connection.sendall(words[number % len(words)].to_bytes(1, "big"))
            time.sleep(pause_s)
    return time.monotonic() - started


def test_a_partner_is_served_and_keeps_its_connection(listener: Listener) -> None:
    with listener.tls() as connection:
        for _ in range(3):
            connection.sendall(GET)
            assert answer(connection).startswith(b"HTTP/1.1 200 ")
    assert until(lambda: listener.inside() == 0)
    assert listener.server.guests.inside == {}


@pytest.mark.parametrize(
    "words", [b"x-header: 1\r\n", b"a", b"\r\n"], ids=["header after header", "one long word", "empty lines"]
)
def test_a_head_that_does_not_end_is_cut_off(listener: Listener, words: bytes) -> None:
    with listener.tls() as connection:
        if words != b"\r\n":
            connection.sendall(b"GET / HTTP/1.1\r\n")
        assert trickled(connection, words) < 5.0
    assert listener.is_well()
    assert until(lambda: listener.inside() == 0)


@pytest.mark.parametrize("sent", [b"", GET, GET + b"\r\n\r\n"], ids=["nothing", "one request", "and empty lines"])
def test_an_idle_connection_is_closed(listener: Listener, sent: bytes) -> None:
    with listener.tls() as connection:
        connection.sendall(sent)
        assert rest_of(connection).startswith(b"HTTP/1.1 200 " if sent else b"")
    assert until(lambda: listener.inside() == 0)


def test_empty_lines_keep_no_answered_connection_alive(listener: Listener) -> None:
    with listener.tls() as connection:
        connection.sendall(GET)
        assert answer(connection).startswith(b"HTTP/1.1 200 ")
        assert trickled(connection, b"\r\n") < 5.0


def test_a_handshake_that_stalls_is_cut_off(listener: Listener) -> None:
    with listener.connect() as silent, listener.connect() as half:
        half.sendall(TLS_1_1[:9])
        assert listener.is_well()
        assert rest_of(silent) == rest_of(half) == b""
    assert until(lambda: listener.inside() == 0)


def test_who_never_says_goodbye_is_cut_off(listener: Listener) -> None:
    """A TLS connection ends when both have said so; one side alone must not keep it."""
    raw = listener.connect()
    tls = ssl.create_default_context(cafile=listener.keys / "ca.pem").wrap_socket(raw, server_hostname="localhost")
    tls.sendall(GET)
    assert until(lambda: listener.inside() == 0)  # nothing is read here, so nothing is answered either
    tls.close()


def test_plain_http_gets_no_answer(listener: Listener) -> None:
    with listener.connect() as connection:
        connection.sendall(GET)
        assert b"HTTP" not in rest_of(connection)
    assert listener.is_well()


def test_old_tls_is_refused(listener: Listener) -> None:
    with listener.connect() as old, listener.connect() as new:
        new.sendall(TLS_1_2)
        assert new.recv(1) == b"\x16"  # its handshake goes on
        old.sendall(TLS_1_1)
        assert rest_of(old)[:1] in (b"", b"\x15")  # closed, or an alert


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nx: " + b"a" * 20_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nx: " + b"a" * 400_000, 431),
        (b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 10_000, 431),
        (b"\x00\xff garbage\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"GET  /health\r\n\r\n", 400),
        (b"CONNECT inner:443 HTTP/1.1\r\nhost: inner\r\n\r\n", 400),
        (b"GET /\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n", 400),
        (b"OPTIONS * HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", 404),
        (b"DELETE /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", 405),
        (b"GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"POST /fedrec/v1/enrol HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\na: b\r\n\r\n", 411),
        (b"POST / HTTP/1.1\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc", 400),
        (b"POST / HTTP/1.1\r\ncontent-length: 99999999999999999999999\r\n\r\nabc", 400),
        (b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\nabc", 400),
    ],
)
def test_what_is_no_decent_request_is_refused_in_words(
    listener: Listener, sent: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO), listener.tls() as connection:
        with contextlib.suppress(OSError):
            connection.sendall(sent)
        head, _, body = rest_of(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert body.startswith(b'{"error":"')
    assert len(body) < 120
    assert listener.is_well()
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]  # strangers fill no log


REQUEST = GET.replace(b"\r\n\r\n", b"\r\nuser-agent: a\r\ncontent-length: 3\r\n\r\nabc")


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A decent request with bytes cut out, put in, or said twice."""
    start, end = sorted(draw(st.tuples(st.integers(0, len(REQUEST)), st.integers(0, len(REQUEST)))))
    middle = draw(st.one_of(st.binary(max_size=40), st.just(REQUEST[start:end] * 2), st.just(b"\r\n")))
    return REQUEST[:start] + middle + REQUEST[end:]


def test_no_bytes_make_the_listener_fail(listener: Listener, caplog: pytest.LogCaptureFixture) -> None:
    @settings(max_examples=100, deadline=None)
    @given(sent=mutated() | st.binary(max_size=300))
    def send(sent: bytes) -> None:
        with listener.tls() as connection:
            connection.sendall(sent)
            socket.socket.shutdown(connection, socket.SHUT_WR)  # TLS goes on in the other direction
            told = rest_of(connection)
        assert told == b"" or told.startswith((b"HTTP/1.1 2", b"HTTP/1.1 4"))

    send()
    assert listener.is_well()
    assert until(lambda: listener.inside() == 0)
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]


def test_pipelined_requests_end_the_connection(listener: Listener) -> None:
    with listener.tls() as connection, contextlib.suppress(OSError):
        connection.sendall(GET * 5_000)
        assert rest_of(connection).count(b"HTTP/1.1 200") <= 1
    assert until(lambda: listener.inside() == 0)
    assert listener.server.server_state.tasks == set()


def test_garbage_behind_a_request_ends_the_connection(listener: Listener) -> None:
    with listener.tls() as connection:
        connection.sendall(GET)
        assert answer(connection).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"\x16\x03\x01 garbage")
        assert rest_of(connection).startswith(b"HTTP/1.1 400 ")


def test_a_body_that_breaks_off_leaves_nothing_behind(listener: Listener, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(20):
        with listener.tls() as connection:
            connection.sendall(POST + b"x" * 50)
    assert until(lambda: listener.inside() == 0)
    assert until(lambda: listener.server.server_state.tasks == set())
    assert listener.is_well()
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]


def test_who_goes_on_sending_after_a_refusal_is_cut_off(listener: Listener) -> None:
    """Refused on its length alone, a caller may send on for a moment, so that it can read why."""
    with listener.tls() as connection:
        connection.sendall(POST.replace(b"100", b"100000000"))
        assert answer(connection).startswith(b"HTTP/1.1 413 ")
        assert trickled(connection, b"x") < 5.0
    assert until(lambda: listener.inside() == 0)


def test_one_address_has_so_many_connections_and_the_next_is_closed_at_once(make_listener: MakeListener) -> None:
    listener = make_listener(most_of_one=3, handshake_s=30.0)
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(listener.connect()) for _ in range(3)]
        assert until(lambda: listener.inside() == 3)
        with listener.connect() as one_more:
            assert rest_of(one_more) == b""
        assert listener.inside() == 3
        held[0].close()
        assert until(lambda: listener.inside() == 2)
        assert listener.is_well()


def test_two_thousand_hostile_calls_leave_no_table_grown(make_listener: MakeListener) -> None:
    """Each by one of six ways; afterwards nothing is remembered of them but one caller's allowance."""
    listener = make_listener(head_s=0.2)
    files = files_open()
    ways = [b"", GET, TLS_1_1, b"\0" * 300, TLS_1_1[:20], b"\x16\x03\x01\xff\xff" + b"\0" * 1000]
    for _ in range(19):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for number in range(100):
                stack.enter_context(listener.connect()).sendall(ways[number % len(ways)])
    for number in range(100):
        with listener.tls() as connection, contextlib.suppress(OSError):
            connection.sendall([POST, b"\xff" * 300, GET * 3, b"GET /a HTTP/1.1\r\nx: " + b"b" * 500][number % 4])
    assert until(lambda: listener.inside() == 0)
    state, gateway = listener.server.server_state, listener.world.gateway
    assert until(lambda: not state.connections and not state.tasks)
    assert listener.server.guests.inside == {}
    assert len(gateway._strangers._left) <= 1
    assert gateway._partners._left == {}
    assert gateway.desk._seen == {}
    assert until(lambda: files_open() <= files + 3)
    assert listener.is_well()


def test_a_gateway_that_stops_ends_its_calls_in_order(
    make_world: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
    listen: Callable[..., Listener],
) -> None:
    """One node waits for work, one is idle and does not listen, one's body does not come, one's SuperLink is slow."""
    world = make_world(held_s=30.0, look_s=30.0)
    world.upstream.work_after = 10**6
    listener = listen(world, head_s=30.0, idle_s=30.0, goodbye_s=0.2, flush_s=30.0)
    headers = "".join(f"{name}: {value}\r\n" for name, value in world.node_headers().items())
    with listener.tls() as waits, listener.tls() as idle, listener.tls() as stalls:
        waits.sendall(f"POST /v1/fleet/pull-messages HTTP/1.1\r\n{headers}content-length: 0\r\n\r\n".encode())
        idle.sendall(GET)
        assert answer(idle)
        stalls.sendall(POST)
        assert until(lambda: len(world.upstream.calls) == 1)
        listener.world.gateway.stop()
        listener.stop()
        assert rest_of(waits).startswith(b"HTTP/1.1 200 ")
        assert rest_of(stalls).startswith(b"HTTP/1.1 503 ")
    assert not [one for one in caplog.records if one.exc_info]


def test_addresses_from_one_network_are_one_caller() -> None:
    guests = Guests(most=10, most_of_one=2)
    one, other = neighbourhood("2001:db8::1"), neighbourhood("2001:db8::ffff:2")
    assert one == other != neighbourhood("2001:db8:0:1::1")
    assert [guests.enter(one), guests.enter(other), guests.enter(one)] == [True, True, False]
    assert neighbourhood("fe80::1%eth0") == neighbourhood("fe80::2")


def test_all_addresses_together_have_so_many_and_none_is_remembered_that_was_refused() -> None:
    guests = Guests(most=5, most_of_one=2)
    assert sum(guests.enter(f"10.0.{number % 256}.{number // 256}") for number in range(5_000)) == 5
    assert len(guests.inside) == 5


def test_a_port_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RunError, match=f"127.0.0.1:{port}: cannot be listened on"):
            open_doors("127.0.0.1", port, Guests(1, 1))


def test_connections_leave_room_for_other_files(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 2048))
    monkeypatch.setattr(resource, "setrlimit", lambda _, both: asked.append(both))
    assert room_for(4000) == 2048 - 512
    assert asked == [(2048, 2048)]
    assert room_for(100) == 100
