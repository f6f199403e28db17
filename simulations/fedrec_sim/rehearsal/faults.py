"""What can go wrong in a rehearsal, when, and to whom."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from fedrec.errors import ConfigError

Kind = Literal["kill", "partition", "garbage", "disk-full"]
_PLACE = re.compile(r"(server|client-\d+)(?:@(\d+))?(?::(\d+(?:\.\d+)?)s)?")
DISK_FULL_S = 6.0


@dataclass(frozen=True)
class Fault:
    """One of them.

    Attributes:
        whom: `server`, or a partner's name.
        round: during which it begins; 0: from the start.
        seconds: that it lasts, where it ends by itself.
    """

    kind: Kind
    whom: str
    round: int
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.kind} {self.whom}" + (f" in round {self.round}" if self.round else "")


def parse_faults(kind: Kind, texts: Iterable[str], names: Iterable[str], rounds: int) -> list[Fault]:
    """Faults of one kind from a command line. Raises ConfigError: naming every one that cannot be.

    >>> parse_faults("partition", ["client-2@1:20s"], ["client-1", "client-2"], 3)
    [Fault(kind='partition', whom='client-2', round=1, seconds=20.0)]
    """
    known, faults, problems = {"server", *names}, list[Fault](), list[str]()
    for text in texts:
        found = _PLACE.fullmatch(text)
        if not found or found[1] not in known:
            problems.append(f"--{kind} {text!r} names nobody of {', '.join(sorted(known))}")
            continue
        fault = Fault(kind, found[1], int(found[2] or 0), float(found[3] or 0))
        problem = _problem(fault, rounds)
        problems += [f"--{kind} {text!r} {problem}"] if problem else []
        faults.append(fault)
    if problems:
        raise ConfigError.of_all(problems, "write --kill server@2, --partition client-2@1:20s, --garbage client-3")
    return faults


def _problem(fault: Fault, rounds: int) -> str:
    if fault.kind == "garbage":
        return "is a partner's" if fault.whom == "server" else ""
    if not 1 <= fault.round <= rounds:
        return f"needs a round from 1 to {rounds}"
    if fault.kind == "partition" and (fault.whom == "server" or not fault.seconds):
        return "needs a partner and seconds"
    return "is the server's" if fault.kind == "disk-full" and fault.whom != "server" else ""
