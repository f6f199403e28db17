"""Flower's SuperLink as a subprocess on the loopback, and everything that is ever asked of it.

Its one port carries every API, and the one that starts runs and registers nodes asks for no password: so nobody but
this machine may reach it, and the gateway passes on what partners need and nothing else.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import httpx
from flwr.cli.build import build_fab_from_files
from flwr.common.constant import SubStatus
from flwr.common.serde import run_from_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    RegisterNodeRequest,
    StartRunRequest,
    UnregisterNodeRequest,
)
from flwr.proto.fab_pb2 import Fab
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullTaskInputRequest,
    PushTaskOutputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.supercore.constant import TaskType
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity

from fedrec.errors import RunError
from fedrec_server.rounds.grid import AnswerGrid
from fedrec_server.rounds.superlink_place import SuperLinkPlace

# Flower's task is given up after two missed heartbeats of 30 s each.
_HEARTBEAT_S = 10.0
_ACQUIRE_TIMEOUT_S = 20.0
_POLL_S = 0.1

# What Flower calls the app. Neither side ever loads code from it: both have fedrec installed.
_APP = b"""[project]
name = "fedrec"
version = "1.0.0"
description = "Names the installed fedrec; carries no code."
license = "Apache-2.0"

[tool.flwr.app]
publisher = "fedrec"

[tool.flwr.app.components]
serverapp = "fedrec_server.app:app"
clientapp = "fedrec_client.app:app"
"""


class SuperLinkError(RunError):
    """Flower's SuperLink does not answer, or refuses; another run may do better, which no damaged registry can."""


class SuperLinkControl:
    """What only this machine may ask: nodes and runs.

    Raises, in every method: SuperLinkError: the SuperLink does not answer, or refuses.
    """

    def __init__(self, place: SuperLinkPlace) -> None:
        self._place = place
        authority = (place.certificates / "ca.pem").read_bytes()
        self._client = ControlHttpClient.from_server_address(
            place.address, False, authority, [RuntimeVersionHttpInterceptor(component_name="flwr CLI")]
        )

    def is_up(self) -> bool:
        """Whether it answers."""
        with suppress(httpx.HTTPError):
            self._client.ListNodes(ListNodesRequest())
            return True
        return False

    def wait_until_up(self, timeout_s: float = 60.0) -> None:
        """Raises SuperLinkError if it does not answer in time."""
        deadline = time.monotonic() + timeout_s
        while not self.is_up():
            if time.monotonic() > deadline:
                raise SuperLinkError(
                    f"Flower's SuperLink does not answer on {self._place.address}", "read superlink.log"
                )
            time.sleep(_POLL_S)

    def nodes(self) -> dict[bytes, int]:
        """Public key -> id, of all that may connect."""
        with _run_errors():
            listed = self._client.ListNodes(ListNodesRequest()).nodes_info
        return {node.public_key: int(node.node_id) for node in listed if not node.unregistered_at}

    def register(self, public_key: bytes) -> int:
        """Let a node with this key connect; its id."""
        with _run_errors():
            return int(self._client.RegisterNode(RegisterNodeRequest(public_key=public_key)).node_id)

    def unregister(self, node: int) -> None:
        """Never again."""
        with _run_errors():
            self._client.UnregisterNode(UnregisterNodeRequest(node_id=node))

    def start_run(self) -> int:
        """A new run of Flower's; ours goes on over as many of them as crashes make necessary."""
        content, _ = build_fab_from_files({"pyproject.toml": _APP})
        with _run_errors():
            response = self._client.StartRun(StartRunRequest(fab=Fab(content=content)))
        if not response.run_id:
            raise SuperLinkError("Flower's SuperLink starts no run", "read superlink.log")
        return int(response.run_id)


@dataclass
class OpenRun:
    """A run of Flower's whose task this process has taken: the grid, kept alive by a heartbeat in a thread.

    Attributes:
        grid: for `run_rounds`.
        run_id: Flower's.
        lost: set once the SuperLink says that the run is over, or does not answer for long.
    """

    grid: AnswerGrid
    run_id: int
    lost: threading.Event = field(default_factory=threading.Event)
    _ended: threading.Event = field(default_factory=threading.Event)

    def close(self, *, completed: bool) -> None:
        """Tell Flower how it ended, if it still listens."""
        self._ended.set()
        status = SubStatus.COMPLETED if completed else SubStatus.FAILED
        with suppress(httpx.HTTPError):
            self.grid._runtime_client.PushTaskOutput(PushTaskOutputRequest(sub_status=status, details=""))
        self.grid.close()

    def keep_alive(self) -> None:
        """Until closed; three heartbeats in a row that fail mean that the run is lost."""
        failed = 0
        while not self._ended.wait(_HEARTBEAT_S):
            try:
                alive = self.grid._runtime_client.SendTaskHeartbeat(SendTaskHeartbeatRequest()).success
                failed = 0 if alive else 3
            except httpx.HTTPError:
                failed += 1
            if failed >= 3:
                self.lost.set()
                return


def open_run(place: SuperLinkPlace, control: SuperLinkControl, after_push: Callable[[], None]) -> OpenRun:
    """Start a run and take its task, as Flower's SuperExec would, but into this process.

    Args:
        after_push: called when questions were handed to the SuperLink.

    Raises: SuperLinkError: the SuperLink does not answer, or gives the task to nobody.
    """
    authority = (place.certificates / "ca.pem").read_bytes()
    run_id = control.start_run()
    token = _acquire(place, authority, run_id)
    grid = AnswerGrid(place.address, authority, token, after_push)
    with _run_errors():
        given = grid._runtime_client.PullTaskInput(PullTaskInputRequest())
    TaskIdentity.task_id, TaskIdentity.run_id = given.task_id, given.run.run_id
    TaskIdentity.node_id = given.context.node_id
    grid.set_run(run_from_proto(given.run))
    opened = OpenRun(grid, run_id)
    threading.Thread(target=opened.keep_alive, name="flower-heartbeat", daemon=True).start()
    return opened


def _acquire(place: SuperLinkPlace, authority: bytes, run_id: int) -> str:
    secret = SuperExecAuthHttpInterceptor(
        master_secret=place.executor_secret.read_bytes(), protected_methods={"/flwr.proto.Runtime/AcquireTask"}
    )
    version = RuntimeVersionHttpInterceptor(component_name="SuperExec")
    with RuntimeHttpClient.from_server_address(place.address, False, authority, [version, secret]) as client:
        deadline = time.monotonic() + _ACQUIRE_TIMEOUT_S
        while time.monotonic() < deadline:
            with _run_errors():
                given = client.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP]))
            # A task of an earlier run may still lie there: it is taken off the pile and left to end.
            if given.token and given.task.run_id == run_id:
                return str(given.token)
            time.sleep(_POLL_S)
    raise SuperLinkError("Flower's SuperLink gives nobody the new run's task", "read superlink.log")


@contextmanager
def _run_errors() -> Iterator[None]:
    """Turns what Flower's client raises into words."""
    try:
        yield
    except httpx.HTTPStatusError as error:
        words = f"{error.response.status_code} at {error.request.url.path}"
        raise SuperLinkError(f"Flower's SuperLink refuses: {words}", "read superlink.log") from error
    except httpx.TransportError as error:
        raise SuperLinkError(f"Flower's SuperLink does not answer: {type(error).__name__}") from error
