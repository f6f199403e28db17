"""`flower-server start`: SuperLink, gateway, pages and driver as processes; one that dies is started anew."""

import logging
import signal
import sys
import threading
from dataclasses import dataclass, field

from fedrec.processes import Child, holder_of, only_one, stop_process
from fedrec_server.keys.certificates import make_loopback_certificate
from fedrec_server.keys.key_rotation import refuse_unfinished
from fedrec_server.settings import Coordinator

_log = logging.getLogger(__name__)
_LOOK_S = 0.2


@dataclass
class Supervisor:
    """Keeps a coordinator's processes running until it is told to stop.

    Attributes:
        stop: set to end.
    """

    coordinator: Coordinator
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Until stopped. Raises RunError: another one runs here. ConfigError: the folder is not ready."""
        self.coordinator.aggregator()  # refuse before anything is started
        with only_one(self.coordinator.lock, "`flower-server stop` ends it"):
            refuse_unfinished(self.coordinator)
            make_loopback_certificate(self.coordinator.keys)  # folders of older versions have none
            children = self._children()
            try:
                while not self.stop.wait(_LOOK_S):
                    for child in children:
                        child.look()
            finally:
                for child in reversed(children):
                    if child.process is not None:
                        stop_process(child.process)

    def stop_on_signals(self) -> None:
        """SIGTERM and Ctrl-C end it in order."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop.set())

    def _children(self) -> list[Child]:
        folder, logs = str(self.coordinator.folder), self.coordinator.logs
        ours = [sys.executable, "-m", "fedrec_server"]
        return [
            Child("superlink", self.coordinator.superlink.command(), logs / "superlink.log"),
            Child("gateway", [*ours, "gateway", folder], logs / "gateway.log"),
            Child("admin", [*ours, "admin", folder], logs / "admin.log"),
            Child("driver", [*ours, "drive", folder], logs / "driver.log"),
        ]


def running_pid(coordinator: Coordinator) -> int | None:
    """The process that `flower-server start` runs in, on this machine; None if there is none."""
    return holder_of(coordinator.lock)
