"""How nodes end: told to, interrupted, or without their first process; and what of them is left."""

import subprocess
import time
from collections.abc import Callable
from contextlib import suppress

from fedrec_sim.rehearsal.rehearse import Timeline
from fedrec_sim.rehearsal.stage import Actor, Stage

_PATIENCE_S = 60.0


def endings(stage: Stage, timeline: Timeline) -> dict[str, bool]:
    """One node by SIGTERM, one by Ctrl-C, one whose first process alone is killed; then the coordinator."""
    first, second, third = stage.clients.values()
    ways: tuple[tuple[str, Actor, Callable[[Actor], None], int | None], ...] = (
        ("sigterm", first, _terminate, 0),
        ("ctrl_c", second, Actor.interrupt, 0),
        ("kill_of_the_first_process", third, Actor.kill_first, None),
        ("sigterm_of_the_coordinator", stage.server, _terminate, 0),
    )
    found = {}
    for name, actor, end, code in ways:
        began = time.monotonic()
        end(actor)
        left = _left_over(actor)
        ended = _code_of(actor)
        found[f"nothing_is_left_after_{name}"] = not left and code in (None, ended)
        timeline.note(f"{name}: {left} processes left after {time.monotonic() - began:.1f} s, code {ended}")
    return found


def _terminate(actor: Actor) -> None:
    if actor.process is not None:
        actor.process.terminate()


def _code_of(actor: Actor) -> int | None:
    """Its exit code; None: it has not ended. One that has just ended is asked for first, or it would seem to run."""
    with suppress(subprocess.TimeoutExpired):
        return actor.process.wait(1.0) if actor.process is not None else None
    return None


def _left_over(actor: Actor) -> int:
    """Once none is left, or patience has ended."""
    deadline = time.monotonic() + _PATIENCE_S
    while (left := actor.left_over()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left
