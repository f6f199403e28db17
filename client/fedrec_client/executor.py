"""Answers Flower's messages in one process that stays, with the installed ClientApp and no other.

Flower starts a process for each message and loads the app that the coordinator sent; that costs seconds, and is code
of somebody else's on this machine. Here the app of the message is never unpacked: what runs is `fedrec_client.app`.
"""

import logging
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
from flwr.app import Context, Message
from flwr.common.constant import SubStatus
from flwr.common.serde import context_from_proto
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullAppMessagesRequest,
    PullTaskInputRequest,
    PushTaskOutputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.supercore.constant import TaskType
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import pull_and_inflate_object_from_tree
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.protobuf.client import ProtobufClientInterceptor
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.runtime.run_clientapp import push_message

from fedrec.signing import read_secret
from fedrec_client.app import app

_log = logging.getLogger(__name__)
_LOOK_S = 0.1
_AWAY_S, _LONG_AWAY_S = 1.0, 120.0
_HEARTBEAT_S = 10.0
_FIRST_WAIT_S = 0.05


class Executor:
    """Takes tasks of a SuperNode on the loopback.

    Args:
        address: of the SuperNode's runtime API.
        secret: file with what the SuperNode asks of whoever takes a task.
        stop: set to end after what is under way.
    """

    def __init__(self, address: str, secret: Path, stop: threading.Event) -> None:
        self._address, self._secret, self._stop = address, read_secret(secret), stop
        self._away_since: float | None = None

    def run(self) -> None:
        """Until stopped; a SuperNode that is away is waited for."""
        version = RuntimeVersionHttpInterceptor(component_name="SuperExec")
        signed = SuperExecAuthHttpInterceptor(
            master_secret=self._secret, protected_methods={"/flwr.proto.Runtime/AcquireTask"}
        )
        with RuntimeHttpClient.from_server_address(self._address, True, None, [version, signed]) as client:
            while not self._stop.is_set():
                try:
                    token = self._ask(client)
                    if token:
                        self._do(token)
                        continue
                except (httpx.HTTPError, RuntimeError, ValueError) as error:
                    _log.warning("a task failed: %s", type(error).__name__, extra={"event": "task_failed"})
                    self._stop.wait(1.0)
                self._stop.wait(_LOOK_S)

    def _ask(self, client: RuntimeHttpClient) -> str:
        """The token of a task, if there is one."""
        try:
            given = client.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP]))
        except httpx.ConnectError:  # it waits for the worker, which loads for long: nothing has failed
            if self._away_since is None:
                self._away_since = time.monotonic()
            elif time.monotonic() - self._away_since > _LONG_AWAY_S:
                self._away_since = math.inf  # said once
                _log.warning("no SuperNode listens at %s", self._address, extra={"event": "supernode_away"})
            self._stop.wait(_AWAY_S)
            return ""
        self._away_since = None
        return str(given.token)

    def _do(self, token: str) -> None:
        started = time.monotonic()
        version = RuntimeVersionHttpInterceptor(component_name="flwr-clientapp")
        interceptors: list[ProtobufClientInterceptor] = [version, RuntimeTokenHttpInterceptor(token)]
        with RuntimeHttpClient.from_server_address(self._address, True, None, interceptors) as client, _alive(client):
            status = SubStatus.FAILED
            try:
                message, context = _pull(client)
                push_message(client, app(message, context), context)
                status = SubStatus.COMPLETED
            finally:
                with suppress(httpx.HTTPError):
                    client.PushTaskOutput(PushTaskOutputRequest(sub_status=status, details=""))
        _log.info(
            "a message is answered", extra={"event": "task_done", "seconds": round(time.monotonic() - started, 3)}
        )


def _pull(client: RuntimeHttpClient) -> tuple[Message, Context]:
    """The message and its context, as Flower's own `pull_task_input` does, but for the app, which is left packed.

    The SuperNode gives out the task before the message is there, and Flower would wait a second and more for the rest.
    """
    given = client.PullTaskInput(PullTaskInputRequest())
    TaskIdentity.task_id, TaskIdentity.run_id = given.task_id, given.run.run_id
    TaskIdentity.node_id = given.context.node_id
    context = context_from_proto(given.context)
    pulled = client.PullMessages(PullAppMessagesRequest())
    if not pulled.messages_list:
        raise RuntimeError("the task has no message")
    tree, node = pulled.message_object_trees[0], Node(node_id=context.node_id)
    message = pull_and_inflate_object_from_tree(
        tree,
        make_pull_object_fn_protobuf(client.PullObject, node, context.run_id),
        make_confirm_message_received_fn_protobuf(client.ConfirmMessageReceived, node, context.run_id),
        return_type=Message,
        initial_backoff=_FIRST_WAIT_S,
    )
    message.metadata.__dict__["_message_id"] = tree.object_id  # what is carried does not hold its own name
    return message, context


@contextmanager
def _alive(client: RuntimeHttpClient) -> Iterator[None]:
    """Tells the SuperNode that the task is still worked on."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(_HEARTBEAT_S):
            with suppress(httpx.HTTPError):
                client.SendTaskHeartbeat(SendTaskHeartbeatRequest())

    thread = threading.Thread(target=beat, name="task-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
