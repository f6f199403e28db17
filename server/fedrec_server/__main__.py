"""`python -m fedrec_server gateway|admin|drive FOLDER`: the processes that `flower-server start` keeps running."""

import logging
import signal
import sys
from pathlib import Path

from fedrec.errors import FedrecError
from fedrec.logs import log_json
from fedrec.processes import end_with_parent
from fedrec_server.settings import Coordinator


def main() -> None:
    """Run one of them; a named error ends it with its exit code."""
    end_with_parent()
    log_json()
    kind, folder = sys.argv[1], Path(sys.argv[2])
    try:
        if kind == "gateway":
            from fedrec_server.gateway.front import run_front

            run_front(Coordinator(folder))
        elif kind == "admin":
            from fedrec_server.admin.app import run_admin

            run_admin(Coordinator(folder))
        else:
            _drive(Coordinator(folder))
    except FedrecError as error:
        logging.getLogger("fedrec_server").error("%s: %s", type(error).__name__, error.problem)
        sys.exit(error.exit_code)


def _drive(coordinator: Coordinator) -> None:
    from fedrec_server.gateway.front import BellRope
    from fedrec_server.rounds.driver import Driver
    from fedrec_server.rounds.heartbeat import BeatingStop

    rope, stop = BellRope(coordinator), BeatingStop(coordinator.folder)
    driver = Driver(coordinator, coordinator.database, stop=stop, ring=rope.pull, listen=rope.listen)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: driver.stop.set())
    driver.run()


if __name__ == "__main__":
    main()
