"""A run's events as trackers take them: what the report shows of each row, and no more."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fedrec.sections.tracking import TrackerName
from fedrec.tracking.tracker import Facts, Setting, Status
from fedrec.tracking.trackers import Trackers, Warn, open_tracker
from fedrec_sim.figures import count_partners
from fedrec_sim.rows import Stopped
from fedrec_sim.run import Json, Run, write_json

_OF_A_ROUND = ("epsilon", "step_norm", "seconds", "bytes_up", "bytes_down")
# What a row is not trained by.
_LEFT_OUT = ("format", "name", "seeds", "rows", "jobs", "attack", "cold_start", "baselines", "tracking")


class TrackedRows:
    """Takes the events of a run; every row, with its seed, is an own run of each tracker.

    Args:
        names: of the trackers; none is legal.
        warn: takes a warning of a tracker that failed, once each.
    Privacy: trackers keep what report.html shows: exact figures of quality, which are as private as the data. They
        write into the run's folder and call no network. A partner's answers, users and items are in no event.
    """

    def __init__(self, run: Run, names: Sequence[TrackerName], warn: Warn) -> None:
        self._run, self._names, self._warn = run, names, warn
        self._broken: set[str] = set()
        self._open: dict[tuple[str, int], Trackers] = {}
        self._steps: dict[tuple[str, int], int] = {}

    def update(self, event: Json) -> None:
        """Take one event; unknown ones are ignored."""
        if not self._names:
            return
        key = (event.get("row", ""), event.get("seed", 0))
        match event["event"]:
            case "row_started":
                self._begin(key)
            case "round_committed" if key in self._open:
                self._steps[key] = event["round"]
                self._open[key].log(event["round"], _round_figures(event))
            case "row_done" if key in self._open:
                self._end(key, event)

    def close(self, status: Status) -> None:
        """End rows that have not ended by themselves."""
        for trackers in self._open.values():
            trackers.end(status)
        self._open.clear()

    def _begin(self, key: tuple[str, int]) -> None:
        row, seed = key
        config = self._run.config
        facts = Facts(
            experiment=config.name,
            name=f"{row}-{seed}",
            key=f"{config.name}/{row}-{seed}/{self._run.created_at}",
            settings={
                "row": row,
                "seed": seed,
                "commit": self._run.commit,
                "command": self._run.command,
                **flat_settings(config.for_row(row).model_dump(mode="json", exclude=set(_LEFT_OUT))),
            },
        )
        folder = self._run.folder / "tracking"
        self._open[key] = Trackers(self._names, lambda name: open_tracker(name, folder), self._broken, self._warn)
        self._open[key].begin(facts)

    def _end(self, key: tuple[str, int], event: Json) -> None:
        trackers = self._open.pop(key)
        trackers.log(self._steps.get(key, 0), _test_figures(event["test"]))
        if event.get("privacy"):
            path = self._run.folder / "tracking" / f"{key[0]}-{key[1]}.privacy.json"
            write_json(path, event["privacy"])
            trackers.artifact(path)
        trackers.end("finished")


@contextmanager
def tracked(run: Run, names: Sequence[TrackerName], warn: Warn) -> Iterator[TrackedRows]:
    """Trackers for as long as a run goes on; what is open at its end is closed, however it ends."""
    rows = TrackedRows(run, names, warn)
    status: Status = "failed"
    try:
        yield rows
        status = "finished"
    except (Stopped, KeyboardInterrupt):
        status = "stopped"
        raise
    finally:
        rows.close(status)


def flat_settings(values: Json, prefix: str = "") -> dict[str, Setting]:
    """A configuration by dotted names; parts of a list by their own name, other lists as JSON.

    >>> flat_settings({"a": {"b": 1}, "parts": [{"part": "head", "rounds": 3}], "seeds": [1, 2], "c": None})
    {'a.b': 1, 'parts.head.part': 'head', 'parts.head.rounds': 3, 'seeds': '[1, 2]'}
    """
    found: dict[str, Setting] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= flat_settings(value, f"{prefix}{name}.")
        elif isinstance(value, list) and all(isinstance(one, dict) and "part" in one for one in value):
            for one in value:
                found |= flat_settings(one, f"{prefix}{name}.{one['part']}.")
        elif isinstance(value, list):
            found[f"{prefix}{name}"] = json.dumps(value)
        elif value is not None:
            found[f"{prefix}{name}"] = value
    return found


def _round_figures(event: Json) -> dict[str, float]:
    figures = {name: event[name] for name in _OF_A_ROUND if event.get(name) is not None}
    figures["partners"] = count_partners(event["partners"])
    watched = event.get("validation") or {}
    return figures | {f"validation/{name}": watched[name] for name in ("hr@10", "ndcg@10") if name in watched}


def _test_figures(test: dict[str, Any]) -> dict[str, float]:
    return {f"test/{name}": value for name, value in test.items() if "@" in name and isinstance(value, float)}
