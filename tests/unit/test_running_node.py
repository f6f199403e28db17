"""A node's processes: Flower's node is connected only once the worker can answer."""

import socket
import threading
import time
from multiprocessing.connection import Listener
from pathlib import Path

import pytest

from fedrec.files import replace_file
from fedrec.processes import Child
from fedrec_client.executor import Executor
from fedrec_client.node import RunningNode
from fedrec_client.settings import Node
from fedrec_client.socket_link import SECRET, SOCKET, pack


def answer_once_asked(path: Path, secret: bytes) -> None:
    """As a worker that has loaded its model."""
    with Listener(str(path), "AF_UNIX", authkey=secret) as listener, listener.accept() as connection:
        connection.recv_bytes()
        connection.send_bytes(pack({"answered": 0}, b""))


def test_nobody_is_asked_before_the_worker_can_answer(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.run.mkdir()
    replace_file(node.run / SECRET, b"s" * 32)
    children = [Child(name, ["sleep", "60"], tmp_path / f"{name}.log") for name in ("worker", "supernode")]
    running = RunningNode(node)
    thread = threading.Thread(target=running._keep_running, args=(children,))
    thread.start()
    try:
        time.sleep(1.0)
        assert [child.is_running() for child in children] == [True, False]
        answer_once_asked(node.run / SOCKET, b"s" * 32)
        deadline = time.monotonic() + 10.0
        while not children[1].is_running() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert children[1].is_running()
    finally:
        running.stop.set()
        thread.join(20.0)
    assert not any(child.is_running() for child in children)


def test_a_supernode_that_is_not_there_yet_is_no_failure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It starts once the worker has loaded its model: a log full of failures would hide those that are some."""
    replace_file(tmp_path / "executor.secret", b"s" * 32)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    stop = threading.Event()
    executor = Executor(address, tmp_path / "executor.secret", stop)
    thread = threading.Thread(target=executor.run)
    thread.start()
    time.sleep(0.5)
    stop.set()
    thread.join(20.0)
    assert not thread.is_alive()
    assert not [record for record in caplog.records if record.name == "fedrec_client.executor"]


def test_a_supernode_that_stays_away_is_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedrec_client.executor._LONG_AWAY_S", 0.0)
    monkeypatch.setattr("fedrec_client.executor._AWAY_S", 0.01)
    replace_file(tmp_path / "executor.secret", b"s" * 32)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    stop = threading.Event()
    thread = threading.Thread(target=Executor(address, tmp_path / "executor.secret", stop).run)
    thread.start()
    time.sleep(1.0)
    stop.set()
    thread.join(20.0)
    assert [record.msg for record in caplog.records if record.name == "fedrec_client.executor"] == [
        "no SuperNode listens at %s"
    ]


@pytest.mark.parametrize("leftover", [True, False])
def test_a_socket_that_was_left_behind_is_no_worker(tmp_path: Path, leftover: bool) -> None:
    node = Node(tmp_path)
    node.run.mkdir()
    replace_file(node.run / SECRET, b"s" * 32)
    if leftover:
        with socket.socket(socket.AF_UNIX) as left:  # nobody unlinks it
            left.bind(str(node.run / SOCKET))
    assert not RunningNode(node)._is_worker_up()
