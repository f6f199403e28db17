"""A rehearsal from the first command to the last check."""

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from fedrec.errors import RunError
from fedrec.rows import Mode
from fedrec.secagg.graph import two_thirds
from fedrec_server.state.round_book import RoundBook
from fedrec_sim.rehearsal import checks
from fedrec_sim.rehearsal.faults import DISK_FULL_S, Fault
from fedrec_sim.rehearsal.federations import deal_rows, sums_federation, trained_federation
from fedrec_sim.rehearsal.outsider import outsider_gets
from fedrec_sim.rehearsal.stage import Stage, listens, set_stage, wait_until

_RESTART_S = 1.0
_STEP_TIMEOUT_S = 10.0
_DISK_BYTES = 4096
_ROUND_TIMEOUT_S, _TRAINING_TIMEOUT_S = 20.0, 240.0
Say = Callable[[str], None]


@dataclass
class Timeline:
    """What happened when, told as it happens.

    Attributes:
        say: takes each line.
    """

    say: Say
    started: float = field(default_factory=time.monotonic)
    lines: list[dict[str, Any]] = field(default_factory=list)

    def note(self, what: str) -> None:
        """Now."""
        at = time.monotonic() - self.started
        self.lines.append({"s": round(at, 2), "what": what})
        self.say(f"{at:7.1f} s  {what}")


def rehearse_training(folder: Path, *, partners: int, rounds: int, say: Say, mode: Mode = "inspect") -> dict[str, Any]:
    """The demo's model and privacy plan over the network; what came of it, in figures."""
    timeline, names = Timeline(say), _names(partners)
    catalog, rows = deal_rows(folder, names)
    made = trained_federation(catalog, partners=partners, rounds=rounds, mode=mode)
    made.write(folder / "federation")
    timeline.note(f"federation of {rounds} rounds, epsilon {made.statement['epsilon']:.2f}")
    stage = set_stage(folder, folder / "federation", rows, say=timeline.note, mode=mode)
    try:
        settle(stage, timeout_s=_TRAINING_TIMEOUT_S)
        seconds = run_the_rounds(stage, rounds, (), timeline)
        wait_until(lambda: checks.adapters_are_verified(stage), "every partner to hold the newest adapter", 90.0)
    finally:
        stage.close()
    found = checked(stage, rounds)
    return {"rounds_committed": len(checks.committed_rounds(stage)), "s_per_round": round(seconds / rounds, 3), **found}


def rehearse_sums(
    folder: Path, *, partners: int, rounds: int, faults: Sequence[Fault], say: Say, mode: Mode = "inspect"
) -> dict[str, Any]:
    """Powers of two in place of training, with faults; what came of it, in figures."""
    timeline, names = Timeline(say), _names(partners)
    spoilers = {fault.whom for fault in faults if fault.kind == "garbage"}
    quorum = max(1, min(2, partners - len(spoilers))) if mode == "inspect" else two_thirds(partners)
    catalog, rows = deal_rows(folder, names)
    sums_federation(catalog, rounds=rounds, quorum=quorum, mode=mode).write(folder / "federation")
    stage = set_stage(folder, folder / "federation", rows, say=timeline.note, mode=mode)
    powers = {name: number for number, name in enumerate(names)}
    try:
        settle(stage, timeout_s=_ROUND_TIMEOUT_S, powers=powers, spoilers=spoilers)
        seconds = run_the_rounds(stage, rounds, faults, timeline)
        tried = outsider_gets(stage)
        wait_until(lambda: checks.adapters_are_verified(stage), "every partner to hold the newest adapter", 90.0)
        timeline.note("every partner holds the newest adapter")
    finally:
        stage.close()
    committed, found = checks.committed_rounds(stage), checked(stage, rounds)
    found["checks"] |= {
        "garbage_never_counted": not any(spoilers & set(told["partners"]) for told in committed.values()),
        "outsider_gets_nothing": all(400 <= status < 500 for status in tried.values()),
        "tls_and_node_auth": tried["activate an own node"] == 401,
    }
    return {
        "rounds_committed": len(committed),
        "exact_sum": checks.sums_are_exact(stage, powers, mode),
        "overhead_s_per_round": round(seconds / rounds, 3),
        **found,
        "outsider": tried,
        "timeline": timeline.lines,
    }


def checked(stage: Stage, rounds: int) -> dict[str, Any]:
    """What must hold after every rehearsal, and its attempts."""
    attempts = RoundBook(stage.coordinator.database).latest(1000)
    return {
        "checks": {
            "every_round_committed": sorted(checks.committed_rounds(stage)) == list(range(1, rounds + 1)),
            "adapters_verified": checks.adapters_are_verified(stage),
            "ledgers_whole": checks.ledgers_are_whole(stage),
            "budgets_kept": checks.budgets_are_kept(stage),
        },
        "attempts": [_attempt(told) for told in reversed(attempts)],
    }


def _names(partners: int) -> list[str]:
    return [f"client-{number}" for number in range(1, partners + 1)]


def settle(
    stage: Stage, *, timeout_s: float, powers: dict[str, int] | None = None, spoilers: Collection[str] = ()
) -> None:
    """What a rehearsal sets otherwise than `init` wrote it."""
    settings = stage.server.folder / "server.toml"
    text = settings.read_text().replace("timeout_s = 600.0", f"timeout_s = {timeout_s}")
    text = text.replace("step_timeout_s = 30.0", f"step_timeout_s = {_STEP_TIMEOUT_S}")
    settings.write_text(text.replace("pause_s = 30.0", "pause_s = 1.0"))
    for name in stage.clients:
        path = stage.node(name).folder / "client.toml"
        text = path.read_text().replace("min_users = 100", "min_users = 1")
        if powers is not None:
            text = text.replace("power = -1", f"power = {powers[name]}")
        path.write_text(text.replace("garbage = false", f"garbage = {str(name in spoilers).lower()}"))
    stage.server.stop()  # so that the settings above are read
    stage.server.start()
    ports = (stage.coordinator.settings.local.superlink_port, stage.coordinator.settings.gateway.port)
    wait_until(lambda: all(map(listens, ports)), "the coordinator to listen")  # Flower's nodes back off for long


def run_the_rounds(stage: Stage, rounds: int, faults: Sequence[Fault], timeline: Timeline) -> float:
    """From the first question to the last commit, in seconds, by the coordinator's own records."""
    for client in stage.clients.values():
        client.start()
    wait_until(lambda: all_are_connected(stage), "every partner to connect")
    timeline.note("every partner is connected")
    threads = [threading.Thread(target=_inflict, args=(stage, fault, timeline), daemon=True) for fault in faults]
    for thread in threads:
        thread.start()
    stage.server_says("resume")
    _follow(stage, rounds, timeline)
    for thread in threads:
        thread.join(60.0)
    attempts = RoundBook(stage.coordinator.database).latest(1_000_000)
    begun = [datetime.fromisoformat(one["started_at"]) for one in attempts]
    return (begun[0] - begun[-1]).total_seconds() + float(attempts[0]["seconds"])  # newest first


def all_are_connected(stage: Stage) -> bool:
    """Flower's node begins once the worker listens, and says its number when the SuperLink knows it."""
    logs = [stage.node(name).logs / "supernode.log" for name in stage.clients]
    return all(log.is_file() and b"SuperNode ID" in log.read_bytes() for log in logs)


def _follow(stage: Stage, rounds: int, timeline: Timeline, timeout_s: float = 600.0) -> None:
    """Until all rounds are committed; each is told as it comes."""
    told, deadline = 0, time.monotonic() + timeout_s
    while told < rounds:
        for number, found in sorted(checks.committed_rounds(stage).items()):
            if number == told + 1:
                told = number
                lost = "".join(f"; {name}: {reason}" for name, reason in found["reasons"].items())
                timeline.note(f"round {number} committed in attempt {found['attempt']}: {len(found['partners'])}{lost}")
        if time.monotonic() > deadline:
            raise RunError(f"{told} of {rounds} rounds in {timeout_s:g} s", f"read the logs in {stage.folder}")
        time.sleep(0.05)


def _inflict(stage: Stage, fault: Fault, timeline: Timeline) -> None:
    """Wait for the fault's round to be under way, then do it."""
    if fault.kind == "garbage":
        return
    book = RoundBook(stage.coordinator.database)
    while not book.attempts_of_round(fault.round):
        time.sleep(0.02)
    timeline.note(str(fault))
    actor = stage.actor(fault.whom)
    if fault.kind == "kill":
        actor.kill()
        time.sleep(_RESTART_S)
        actor.start()
        timeline.note(f"{fault.whom} started again")
    elif fault.kind == "partition":
        stage.relays[fault.whom].cut(fault.seconds)
        time.sleep(fault.seconds)
        timeline.note(f"{fault.whom} is reachable again")
    else:
        actor.limit_files(_DISK_BYTES)
        time.sleep(DISK_FULL_S)
        with contextlib.suppress(OSError):
            actor.limit_files(-1)
        timeline.note("the disk has room again")


def _attempt(told: dict[str, Any]) -> dict[str, Any]:
    kept = ("round", "attempt", "status", "seconds", "partners", "reasons", "bytes_up", "bytes_down")
    return {name: told[name] for name in kept}
