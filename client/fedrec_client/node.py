"""`flower-client start`: SuperNode and warm worker as processes, the executor and the adapter's fetcher as threads."""

import logging
import math
import random
import signal
import sys
import threading
import time
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from fedrec.errors import FedrecError, RunError
from fedrec.processes import Child, only_one, stop_process
from fedrec_client.adapters import Adapters, HeldAdapter
from fedrec_client.agreement import Agreement, refuse_to_serve
from fedrec_client.coordinator_keys import CoordinatorKeys
from fedrec_client.coordinator_link import CoordinatorLink
from fedrec_client.executor import Executor
from fedrec_client.figures import NodeWatch
from fedrec_client.link import UNIX
from fedrec_client.metrics_server import serve_metrics
from fedrec_client.own_keys import refuse_unfinished
from fedrec_client.settings import Node
from fedrec_client.socket_link import SocketDesk

_log = logging.getLogger(__name__)
_LOOK_S = 0.2
_LONGEST_WAIT_S = 60.0
_KEYS_EVERY_S = 3600.0
# More than the service gives requests that are under way, since it writes down and closes afterwards.
SERVING_PATIENCE_S = 25.0
# After a broken TLS connection Flower's node leaves its loop, but a thread of its keeps the process alive and deaf.
_SUPERNODE = """
import os, sys
from fedrec.processes import end_with_parent
end_with_parent()
from flwr.supernode.cli import flower_supernode
try:
    flower_supernode()
finally:
    sys.stdout.flush()
    os._exit(1)
"""


@dataclass
class RunningNode:
    """Keeps a partner's node running until it is told to stop.

    Attributes:
        stop: set to end.
        heard_at: Unix time of the coordinator's last good answer about adapters; None before the first.
    """

    node: Node
    stop: threading.Event = field(default_factory=threading.Event)
    heard_at: float | None = None
    _has_new_authorities: threading.Event = field(default_factory=threading.Event, repr=False)

    def run(self) -> None:
        """Until stopped.

        Raises: RunError: runs already, or has no rows. PrivacyError: the policy forbids the terms. ConfigError: the
            certificate authority is not the one that is pinned, `metrics_port` is taken, or the node is to serve a
            task's head.
        """
        if not self.node.data.is_dir():
            raise RunError(f"{self.node.folder}: has no rows yet", "flower-client import FILE")
        with only_one(self.node.state / "running.lock", "`flower-client stop` ends it"):
            refuse_unfinished(self.node)
            if self.node.settings.local.serve:
                refuse_to_serve(self.node, Agreement.read(self.node).terms)
            self.node.authorities.settle()  # Flower's node trusts whatever stands in ca.pem
            agreement = Agreement.read(self.node)
            agreement.hold_against(self.node.settings.policy)
            children = [
                Child("worker", [sys.executable, "-m", "fedrec_client", str(self.node.folder)], self._log("worker")),
                Child("supernode", self._supernode(), self._log("supernode")),
            ]
            if self.node.settings.local.serve:
                serve = [sys.executable, "-m", "fedrec_client", "serve", str(self.node.folder)]
                children.append(Child("serving", serve, self._log("serving"), patience_s=SERVING_PATIENCE_S))
            with self._metrics(agreement, children[1]):
                threads = [
                    threading.Thread(target=self._execute, name="executor", daemon=True),
                    threading.Thread(target=self._fetch_forever, args=(agreement,), name="adapters", daemon=True),
                ]
                for thread in threads:
                    thread.start()
                self._keep_running(children)

    def stop_on_signals(self) -> None:
        """SIGTERM and Ctrl-C end it in order."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop.set())

    def _metrics(self, agreement: Agreement, supernode: Child) -> AbstractContextManager[None]:
        """Served while the node runs, if its owner gave them a port."""
        if not (port := self.node.settings.local.metrics_port):
            return nullcontext()
        watch = NodeWatch(
            self.node, agreement.terms, adapters_of(self.node, agreement), supernode.is_running, lambda: self.heard_at
        )
        return serve_metrics(watch, port)

    def _keep_running(self, children: list[Child]) -> None:
        """The worker at once; Flower's node once there is somebody to answer.

        Who is connected is asked, and an attempt that fails for want of this answer was paid for by all others.
        """
        worker, supernode, *others = children
        is_ready = False
        try:
            while not self.stop.wait(_LOOK_S):
                if self._has_new_authorities.is_set() and supernode.process is not None:
                    self._has_new_authorities.clear()
                    stop_process(supernode.process)  # it is started anew below
                worker.look()
                for other in others:
                    other.look()
                is_ready = is_ready or self._is_worker_up()
                if is_ready:
                    supernode.look()
        finally:
            for child in reversed(children):
                if child.process is not None:
                    stop_process(child.process, child.patience_s)

    def _is_worker_up(self) -> bool:
        try:
            SocketDesk(self.node.run).status()
        except FedrecError:
            return False
        return True

    def _supernode(self) -> list[str]:
        """Flower's, with node authentication; it starts no app, and installs nothing."""
        settings, keys, run = self.node.settings, self.node.keys, self.node.run
        options = {
            "--superlink": settings.coordinator.address,
            "--root-certificates": keys / "ca.pem",
            "--auth-supernode-private-key": keys / "node.key",
            "--isolation": "process",
            "--superexec-auth-secret-file": run / "executor.secret",
            "--host": "127.0.0.1",
            "--port": settings.local.supernode_port,
            "--node-config": f'worker="{UNIX}{run.resolve()}"',
        }
        return [sys.executable, "-c", _SUPERNODE, *(str(word) for option in options.items() for word in option)]

    def _execute(self) -> None:
        address = f"127.0.0.1:{self.node.settings.local.supernode_port}"
        Executor(address, self.node.run / "executor.secret", self.stop).run()

    def _fetch_forever(self, agreement: Agreement) -> None:
        """Keep the newest adapter; without the coordinator the one that is held stays."""
        every, failures, asked = self.node.settings.local.adapter_every_s, 0, -math.inf
        while not self.stop.is_set():
            try:
                if time.monotonic() - asked >= _KEYS_EVERY_S:
                    self._follow()
                    asked = time.monotonic()
                held = self._fetch(agreement)
                failures, self.heard_at = 0, time.time()
                if held is not None:
                    _log.info("adapter of round %d", held.round, extra={"event": "adapter", "round": held.round})
            except FedrecError as error:
                failures += 1
                _log.warning("no newer adapter: %s", error.problem, extra={"event": "no_adapter"})
            self.stop.wait(min(_LONGEST_WAIT_S, every * 2.0 ** min(failures, 6)) * random.uniform(0.75, 1.0))

    def _fetch(self, agreement: Agreement) -> HeldAdapter | None:
        """The newest adapter, if it is newer; under a key that is newer too, if the one known here vouches for it."""
        keys = CoordinatorKeys(self.node)
        with closing(CoordinatorLink(self.node)) as link:
            return keys.heard(lambda: adapters_of(self.node, agreement).fetch(link), link)

    def _follow(self) -> None:
        """Trust what the coordinator's key vouches for; Flower's node reads authorities when it starts."""
        before = (self.node.keys / "ca.pem").read_bytes()
        with closing(CoordinatorLink(self.node)) as link:
            if CoordinatorKeys(self.node).follow(link):
                _log.info("the coordinator has other keys", extra={"event": "coordinator_keys"})
        if (self.node.keys / "ca.pem").read_bytes() != before:
            self._has_new_authorities.set()

    def _log(self, name: str) -> Path:
        return self.node.logs / f"{name}.log"


def adapters_of(node: Node, agreement: Agreement) -> Adapters:
    """The adapter folder of a node."""
    return Adapters(
        node.folder / "adapter", CoordinatorKeys(node).current(), agreement.terms.name, agreement.terms.spec
    )
