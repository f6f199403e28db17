"""Run every row for every seed, skip what is done, and write what a person reads afterwards."""

import resource
import time
from collections.abc import Callable

from fedrec_sim.report import write_report
from fedrec_sim.rows import RowContext, run_row
from fedrec_sim.run import Json, Run, write_json
from fedrec_sim.serving import example_recommendations, hand_on
from fedrec_sim.summary import summarise
from fedrec_sim.world import World


def run_ladder(
    run: Run,
    world: World,
    on_event: Callable[[Json], None],
    stop: Callable[[], bool],
    before_answer: Callable[[int], None] = lambda _: None,
) -> Json:
    """Run what is missing and write `summary.json`, `adapter/` and `report.html`.

    Args:
        on_event: live view; the events of committed rounds are also kept in events.jsonl.
        stop: true once a person pressed Ctrl-C.
        before_answer: fault injection, by node id.
    Returns: the summary.
    Raises: Stopped: with everything committed so far in place.
    """
    started = time.monotonic()
    recorder = _recorder(run, on_event)
    for seed in run.config.seeds:
        corpus = world.corpus(seed)
        for row in run.config.rows:
            if run.row_path(row, seed).is_file():
                continue
            result = run_row(RowContext(world, corpus, run, row, seed, recorder, stop, before_answer))
            write_json(run.row_path(row, seed), result)
    adapter = hand_on(run, world)
    run.add_seconds(time.monotonic() - started)
    summary = summarise(run, world)
    if adapter is not None:
        summary["recommendations"] = example_recommendations(adapter, world, run)
    summary["peak_rss_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    write_json(run.folder / "summary.json", summary)
    write_report(run.folder)
    return summary


def _recorder(run: Run, on_event: Callable[[Json], None]) -> Callable[[Json], None]:
    kept = ("row_started", "row_done", "round_committed", "partner_refused", "round_failed")

    def record(event: Json) -> None:
        if event["event"] in kept:
            run.append_event(event)
        on_event(event)

    return record
