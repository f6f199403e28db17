"""The processes of a rehearsal: the very commands that people type, each in its own folder and process group."""

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from fedrec.errors import RunError
from fedrec.rows import Mode
from fedrec_client.settings import Node
from fedrec_server.settings import Coordinator
from fedrec_sim.rehearsal.relay import Relay

SERVER = [sys.executable, "-c", "from fedrec_server.cli import main; main()"]
_CLIENT = [sys.executable, "-c", "from fedrec_client.cli import main; main()"]
_POLL_S = 0.05


@dataclass
class Actor:
    """The coordinator or a partner: a folder, and a process group while it runs."""

    name: str
    folder: Path
    command: list[str]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; its log is beside its folder."""
        log = self.folder.with_suffix(".log")
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [*self.command, "start", "--dir", str(self.folder)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "FLWR_TELEMETRY_ENABLED": "0"},
            )

    def kill(self) -> None:
        """SIGKILL to all of its processes at once, as when the machine fails."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def stop(self, timeout_s: float = 15.0) -> None:
        """In order, if it listens."""
        if self.process is not None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout_s)
            self.kill()

    def kill_first(self) -> None:
        """SIGKILL to the process that keeps the others running, and to no other."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def interrupt(self) -> None:
        """Ctrl-C: the terminal tells every process of the group."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGINT)

    def left_over(self) -> int:
        """How many of its processes there are, the first included."""
        if self.process is None:
            return 0
        self.process.poll()
        return len(_group(self.process.pid))

    def limit_files(self, n_bytes: int) -> None:
        """No file of any of its processes may grow beyond so much, as on a full disk; -1 lifts that."""
        if self.process is None:
            return
        for pid in _group(self.process.pid):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard if n_bytes < 0 else n_bytes, hard))


@dataclass
class Stage:
    """A coordinator and its partners, enrolled and with rows, ready to run.

    Attributes:
        folder: of everything; kept.
        relays: one a partner, through which it reaches the coordinator.
    """

    folder: Path
    server: Actor
    clients: dict[str, Actor]
    relays: dict[str, Relay] = field(default_factory=dict, repr=False)

    @cached_property
    def coordinator(self) -> Coordinator:
        """The coordinator's folder."""
        return Coordinator(self.server.folder)

    def node(self, name: str) -> Node:
        """A partner's folder."""
        return Node(self.clients[name].folder)

    def actor(self, name: str) -> Actor:
        """The coordinator or a partner."""
        return self.server if name == "server" else self.clients[name]

    def server_says(self, *words: str) -> Any:
        """What a command of the coordinator's prints as JSON."""
        return said([*SERVER, *words, "--dir", str(self.server.folder), "--json"])

    def client_says(self, name: str, *words: str) -> Any:
        """What a command of a partner's prints as JSON."""
        return said([*_CLIENT, *words, "--dir", str(self.clients[name].folder), "--json"])

    def close(self) -> None:
        """End everything; folders stay."""
        for actor in (*self.clients.values(), self.server):
            actor.stop()
        for relay in self.relays.values():
            relay.close()


def set_stage(
    folder: Path,
    federation: Path,
    rows: dict[str, Path],
    *,
    say: Callable[[str], None],
    mode: Mode = "inspect",
    columns: Sequence[str] = (),
) -> Stage:
    """Init, use, start, invite, enrol, approve, agree, import: as in docs/operations.md, by the commands themselves.

    Args:
        folder: new.
        federation: as `fedrec federation make` wrote it.
        rows: partner -> CSV file with columns user, item, timestamp.
        mode: that partners allow; for `secagg` they exchange keys with each other.
        columns: further words of `flower-client import`, as `--rating` and the name of a fourth column.
    Raises: RunError: a command failed, with its words.
    """
    server = Actor("server", folder / "server", SERVER)
    stage = Stage(folder, server, {name: Actor(name, folder / name, _CLIENT) for name in rows})
    try:
        set_server(stage, federation, say)
        for number, name in enumerate(rows):
            _enrol(stage, name, approve_by_hand=number == 0)
            change_lines(stage.clients[name].folder / "client.toml", {'modes = ["inspect"]': f'modes = ["{mode}"]'})
            say(f"{name} enrolled")
        if mode == "secagg":
            _meet(stage)
            say("partners exchanged keys")
        for name, path in rows.items():
            stage.client_says(name, "agree")
            found = stage.client_says(name, "import", str(path), *columns)
            say(f"{name} imported {found['rows']} rows of {found['users']} users")
    except BaseException:
        stage.close()
        raise
    return stage


def _meet(stage: Stage) -> None:
    """Every partner accepts the keys of all others, as its owner would after a telephone call."""
    keys = {name: stage.client_says(name, "peers", "key")["key"] for name in stage.clients}
    for name in stage.clients:
        for other in keys.keys() - {name}:
            stage.client_says(name, "peers", "add", other, keys[other])


def set_server(
    stage: Stage, federation: Path, say: Callable[[str], None], changes: Mapping[str, str] | None = None
) -> None:
    """Init, use, pause, start.

    Args:
        changes: lines of `server.toml` as `init` writes them -> what they are to be.
    """
    place, ports = stage.server.folder, free_ports(3)
    names = ("--port", "--superlink-port", "--admin-port")
    options = [word for name, port in zip(names, ports, strict=True) for word in (name, str(port))]
    said([*SERVER, "init", str(place), "--name", "rehearsal", "--host", "localhost", *options, "--json"])
    change_lines(place / "server.toml", changes or {})
    stage.server_says("use", str(federation))
    stage.server_says("pause")
    stage.server.start()
    wait_until(lambda: listens(ports[0]), "the gateway to listen")
    say(f"coordinator on port {ports[0]}, TLS")


def change_lines(path: Path, changes: Mapping[str, str]) -> None:
    """Lines of a settings file -> what they are to be. Raises RunError: it has no such line."""
    text = path.read_text()
    for before, after in changes.items():
        if before not in text:
            raise RunError(f"{path.name} has no line {before!r}")
        text = text.replace(before, after)
    path.write_text(text)


def _enrol(stage: Stage, name: str, *, approve_by_hand: bool) -> None:
    """The first is approved by hand, the others by their invitation."""
    approve = () if approve_by_hand else ("--approve",)
    token = stage.server_says("invite", name, *approve)["invitation"]
    place, (port,) = stage.clients[name].folder, free_ports(1)
    said([*_CLIENT, "init", str(place), "--invite", token, "--port", str(port), "--json"])
    if approve_by_hand:
        stage.server_says("partner", "approve", name)
        time.sleep(1.2)  # as long as the gateway remembers
    relay = stage.relays[name] = Relay(stage.coordinator.settings.gateway.port)
    path = place / "client.toml"
    text = path.read_text().replace(stage.node(name).settings.coordinator.address, f"localhost:{relay.port}")
    path.write_text(text.replace("adapter_every_s = 10.0", "adapter_every_s = 1.0"))


def said(command: list[str]) -> Any:
    """Run a command that prints JSON. Raises RunError: it failed, with its words."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        words = " ".join(command[3:5])
        raise RunError(
            f"{words} failed with {done.returncode}: {done.stderr.strip()[-600:]}", "read the logs beside it"
        )
    return json.loads(done.stdout)


def wait_until(holds: Callable[[], bool], what: str, timeout_s: float = 120.0) -> None:
    """Raises RunError if it does not come true in time."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            raise RunError(f"waited {timeout_s:g} s for {what}", "read the logs in the rehearsal's folder")
        time.sleep(_POLL_S)


def free_ports(number: int) -> list[int]:
    """Ports that nobody listens on just now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [int(one.getsockname()[1]) for one in sockets]


def listens(port: int) -> bool:
    """Whether somebody listens on a port of this machine."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
        return True
    return False


def _group(leader: int) -> list[int]:
    """Every process of a group that has not ended."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                is_zombie = entry.joinpath("stat").read_text().rpartition(") ")[2].startswith("Z")
                if os.getpgid(int(entry.name)) == leader and not is_zombie:
                    found.append(int(entry.name))
    return found
