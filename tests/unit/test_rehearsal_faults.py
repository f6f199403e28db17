"""Faults of a rehearsal as a person writes them, and the relay that cuts a partner off."""

import socket
import threading

import pytest

from fedrec.errors import ConfigError
from fedrec_sim.rehearsal.faults import Fault, parse_faults
from fedrec_sim.rehearsal.relay import Relay

NAMES = ["client-1", "client-2"]


def test_faults_are_read() -> None:
    assert parse_faults("kill", ["server@2", "client-1@1"], NAMES, 3) == [
        Fault("kill", "server", 2),
        Fault("kill", "client-1", 1),
    ]
    assert parse_faults("garbage", ["client-2"], NAMES, 3) == [Fault("garbage", "client-2", 0)]


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("kill", "server", "needs a round"),
        ("kill", "server@4", "from 1 to 3"),
        ("kill", "client-3@1", "names nobody"),
        ("partition", "client-1@1", "needs a partner and seconds"),
        ("partition", "server@1:3s", "needs a partner and seconds"),
        ("garbage", "server", "is a partner's"),
        ("disk-full", "client-1@1", "is the server's"),
        ("kill", "; rm -rf", "names nobody"),
    ],
)
def test_what_cannot_be_is_refused_with_the_remedy(kind: str, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as found:
        parse_faults(kind, [text, text], NAMES, 3)  # type: ignore[arg-type]
    assert "2 problems" in found.value.problem


def test_a_relay_passes_on_until_it_is_cut() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def echo() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(connection.recv(10))
                connection.recv(10)

        threading.Thread(target=echo, daemon=True).start()
        relay = Relay(server.getsockname()[1])
        with socket.create_connection(("127.0.0.1", relay.port), timeout=5.0) as client:
            client.sendall(b"hello")
            assert client.recv(10) == b"hello"
            relay.cut(60.0)
            assert client.recv(10) == b""
        with socket.create_connection(("127.0.0.1", relay.port), timeout=5.0) as client:
            assert client.recv(10) == b""
        relay.close()
