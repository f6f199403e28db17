"""What a coordinator's processes take of a machine, as Linux tells it."""

import os
from dataclasses import dataclass
from pathlib import Path

from fedrec.errors import RunError

# By a word of the command line.
_WORDS = {"superlink": "--database", "gateway": "gateway", "driver": "drive", "admin": "admin"}
PROCESSES = tuple(_WORDS)
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


@dataclass(frozen=True)
class Taken:
    """Of one process, since it began.

    Attributes:
        peak_rss_bytes: most memory that was resident at once.
        cpu_s: user and system.
    """

    peak_rss_bytes: int
    cpu_s: float


def children_of(pid: int) -> dict[str, int]:
    """The coordinator's processes by name, as `flower-server start` started them.

    Raises: RunError: one is missing.
    """
    found = {}
    for child in (_PROC / str(pid) / "task" / str(pid) / "children").read_text().split():
        words = (_PROC / child / "cmdline").read_text().split("\0")
        for name, word in _WORDS.items():
            if word in words:
                found[name] = int(child)
    if missing := set(PROCESSES) - found.keys():
        raise RunError(f"the coordinator has no {', '.join(sorted(missing))}", "read the logs in its folder")
    return found


def taken(pid: int) -> Taken:
    """Raises OSError: it is gone."""
    status = dict(line.split(":", 1) for line in (_PROC / str(pid) / "status").read_text().splitlines())
    # The name in brackets may hold spaces; user and system time are the 12th and 13th words behind it.
    words = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    ticks = int(words[11]) + int(words[12])
    return Taken(1024 * int(status["VmHWM"].split()[0]), ticks / _TICKS_PER_S)
