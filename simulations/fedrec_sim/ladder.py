"""Run every row for every seed, skip what is done, and write what a person reads afterwards."""

import resource
from collections.abc import Callable

from fedrec_sim.apart import finish_apart
from fedrec_sim.report import write_report
from fedrec_sim.rows import finish_row
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
        before_answer: fault injection, by node id; needs `jobs = 1`.
    Returns: the summary.
    Raises: Stopped: with everything committed so far in place.
    """
    recorder = _recorder(run, on_event)
    with run.timed():
        _finish_rows(run, world, recorder, stop, before_answer)
        adapter = hand_on(run, world)
    summary = summarise(run, world)
    if adapter is not None:
        summary["recommendations"] = example_recommendations(adapter, world, run)
    summary["peak_rss_bytes"] = _peak_rss_bytes(run.config.jobs)
    write_json(run.folder / "summary.json", summary)
    write_report(run.folder)
    return summary


def _finish_rows(
    run: Run,
    world: World,
    on_event: Callable[[Json], None],
    stop: Callable[[], bool],
    before_answer: Callable[[int], None],
) -> None:
    everything = [(row, seed) for seed in run.config.seeds for row in run.config.rows]
    missing = [(row, seed) for row, seed in everything if not run.row_path(row, seed).is_file()]
    if run.config.jobs > 1 and len(missing) > 1:
        finish_apart(run, missing, run.config.jobs, on_event, stop)
        return
    for row, seed in missing:
        finish_row(run, world, row, seed, on_event, stop, before_answer)


def _peak_rss_bytes(jobs: int) -> int:
    """Most memory that this process and its rows' processes can have held together."""
    own, largest_child = (resource.getrusage(w).ru_maxrss for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return 1024 * (own + (jobs * largest_child if jobs > 1 else 0))


def _recorder(run: Run, on_event: Callable[[Json], None]) -> Callable[[Json], None]:
    kept = ("row_started", "row_done", "round_committed", "partner_refused", "round_failed")

    def record(event: Json) -> None:
        if event["event"] in kept:
            run.append_event(event)
        on_event(event)

    return record
