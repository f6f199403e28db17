"""`python -m fedrec_client [serve] FOLDER`: what `flower-client start` keeps running: the warm worker, the service."""

import logging
import os
import sys
from pathlib import Path

from fedrec.errors import FedrecError
from fedrec.logs import log_json
from fedrec.processes import end_with_parent


def main() -> None:
    """Run it; a named error ends it with its exit code."""
    end_with_parent()
    log_json()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # models are fetched by `fedrec model fetch`, which checks hashes
    from fedrec_client.settings import Node

    try:
        match sys.argv[1:]:
            case ["serve", folder]:
                os.environ.setdefault("OMP_NUM_THREADS", "1")  # see serving.toml, model.threads
                from fedrec_client.serve_node import serve_node

                serve_node(Node(Path(folder)))
            case [folder]:
                from fedrec_client.worker_process import run_worker

                run_worker(Node(Path(folder)))
            case _:
                sys.exit("python -m fedrec_client [serve] FOLDER")
    except FedrecError as error:
        logging.getLogger("fedrec_client").error("%s: %s", type(error).__name__, error.problem)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
