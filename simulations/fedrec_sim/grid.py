"""Flower's Grid inside one process: unmodified ServerApp and ClientApp, no network, no subprocess."""

import copy
import itertools
from collections.abc import Callable, Iterable, Mapping

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

COORDINATOR = 1
# Flower's own code for a ClientApp that raised.
CLIENT_APP_FAILED = 2


class InProcessGrid(Grid):
    """Answers each message at once by calling the ClientApp, as Flower's SuperNode would.

    Args:
        app: the partners' ClientApp.
        workers: address of the worker behind every node id.
        run: Flower's record of this run.
        before_answer: called with the node id before it trains; faults are injected there.
    """

    def __init__(
        self,
        app: ClientApp,
        workers: Mapping[int, str],
        run: Run,
        before_answer: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._app = app
        self._run = run
        self._before_answer = before_answer
        self._workers = workers
        self._waiting: dict[str, Message] = {}
        self._numbers = itertools.count(1)
        self._act_as(COORDINATOR)

    def set_run(self, run: Run) -> None:
        """Flower calls this in its own processes; here the run is fixed at construction."""
        self._run = run

    @property
    def run(self) -> Run:
        """Flower's record of this run."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """A message from the coordinator to a node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Every node of the simulation."""
        return list(self._workers)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Take messages; they are answered when they are pulled, one after the other."""
        ids = []
        for message in messages:
            number = str(next(self._numbers))
            # A copy, as if it had crossed a network: nobody may share memory with the coordinator.
            copied = copy.deepcopy(message)
            copied.metadata.__dict__["_message_id"] = number
            self._waiting[number] = copied
            ids.append(number)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Answer the first waiting message of these, so that the coordinator sees partners finish one by one."""
        for number in message_ids:
            message = self._waiting.pop(number, None)
            if message is not None:
                return [self._answer(message)]
        return []

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:  # noqa: ARG002  # Flower's signature
        """Push, then pull every answer; nothing is ever late in one process."""
        return [self._answer(self._waiting.pop(number)) for number in self.push_messages(messages)]

    def _answer(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        self._act_as(node)
        try:
            self._before_answer(node)
            return copy.deepcopy(self._app(message, self._context(node)))
        except Exception as error:  # noqa: BLE001  # whatever happens on a node is that node's failure
            # Flower's SuperNode would send the text as well, so the ClientApp lets no exception get here.
            return Message(error=Error(CLIENT_APP_FAILED, type(error).__name__), reply_to=message)
        finally:
            self._act_as(COORDINATOR)

    def _context(self, node: int) -> Context:
        """Made anew for each message: the ClientApp keeps nothing in it, and thousands would fill memory."""
        config: dict[str, str | int | float | bool] = {"worker": self._workers[node]}
        return Context(run_id=self._run.run_id, node_id=node, node_config=config, state=RecordDict(), run_config={})

    def _act_as(self, node: int) -> None:
        """Flower reads the sender of a new message from process-wide identity."""
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = self._run.run_id, node, 1
