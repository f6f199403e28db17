"""Where Flower's SuperLink runs, and the command that starts it. Loads nothing of Flower's."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from fedrec.processes import start_process

_SUPERLINK = """
from fedrec.processes import end_with_parent
end_with_parent()
from flwr.superlink.cli import flower_superlink
flower_superlink()
"""


@dataclass(frozen=True)
class SuperLinkPlace:
    """Where the SuperLink listens and what it needs.

    Attributes:
        port: on 127.0.0.1.
        certificates: folder with `ca.pem`, `server.pem`, `server.key` for the loopback alone.
        executor_secret: file that only this machine's driver may read; without it nobody takes a run's task.
        database: Flower's own state; nodes and messages outlive a crash there.
    """

    port: int
    certificates: Path
    executor_secret: Path
    database: Path

    @property
    def address(self) -> str:
        """As Flower's clients want it."""
        return f"127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        """The subprocess. Its ServerApp runs in another process, ours; it reports nothing to anybody."""
        options = {
            "--ssl-certfile": self.certificates / "server.pem",
            "--ssl-keyfile": self.certificates / "server.key",
            "--ssl-ca-certfile": self.certificates / "ca.pem",
            "--isolation": "process",
            "--superexec-auth-secret-file": self.executor_secret,
            "--database": self.database,
            "--host": "127.0.0.1",
            "--port": self.port,
        }
        flags = ["--enable-supernode-auth", "--disable-runtime-dependency-installation"]
        start = [sys.executable, "-c", _SUPERLINK]
        return [*start, *flags, *(str(word) for option in options.items() for word in option)]

    def start(self, log: Path) -> subprocess.Popen[bytes]:
        """Start it, its output appended to a file."""
        return start_process(self.command(), log)
