"""The service under test: a process of its own, as `fedrec serve` makes it, on a store that the bench has filled."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fedrec.errors import RunError
from fedrec.processes import stop_process
from fedrec_sim.rehearsal.stage import free_ports

_READY_S = 900.0


@dataclass
class Server:
    """A running service.

    Attributes:
        run, place: folders of run and service.
        start_s: from its start until it was ready.
    """

    run: Path
    place: Path
    port: int
    process: "subprocess.Popen[bytes]" = field(repr=False)
    start_s: float = 0.0

    def rss_bytes(self) -> int:
        """Resident memory of its process."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def cpu_s(self) -> float:
        """Processor time of its process so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def is_ready(self) -> bool:
        """Whether it answers lists."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ready", timeout=2) as answer:
                return int(answer.status) == 200
        except (urllib.error.URLError, OSError):
            return False

    def wait(self) -> None:
        """Until it is ready. Raises RunError: it ended, or takes too long."""
        began = time.monotonic()
        while not self.is_ready():
            if self.process.poll() is not None:
                raise RunError("the service ended before it was ready", f"read {self.place / 'serving.log'}")
            if time.monotonic() - began > _READY_S:
                raise RunError("the service is not ready", f"read {self.place / 'serving.log'}")
            time.sleep(0.05)
        self.start_s = time.monotonic() - began


def start_server(run: Path, place: Path, port: int = 0, more: Sequence[str] = ()) -> Server:
    """Start it, without waiting; its log goes to the service's folder."""
    place.mkdir(parents=True, exist_ok=True)
    port = port or free_ports(1)[0]
    command = [sys.executable, "-m", "fedrec_sim.serving_bench.server", str(run), str(place), str(port), *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "FEDREC_LOG_LEVEL": "WARNING"}
    with (place / "serving.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment)
    return Server(run, place, port, process)


@contextmanager
def running(run: Path, place: Path, more: Sequence[str] = ()) -> Iterator[Server]:
    """A service that is ready; stopped at the end."""
    server = start_server(run, place, more=more)
    try:
        server.wait()
        yield server
    finally:
        stop_process(server.process)


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    return {"cpu": model, "cores": os.cpu_count()}
