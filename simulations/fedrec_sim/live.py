"""What a person sees while a run goes on, and the tables at its end."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from statistics import fmean
from types import TracebackType
from typing import Self

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fedrec_sim.figures import count_partners, in_bytes, in_epsilon, in_time, printable, with_spread
from fedrec_sim.run import Json

_SHOWN_REFUSALS = 3
_AVERAGED = 5


@dataclass(frozen=True)
class RowState:
    """What is known of the row under way. `after` gives a new state: a redraw never sees half of an event.

    Attributes:
        done, total: rounds committed of all, or steps of a row that is not federated.
        part: trained in this round; empty for a row that is not federated.
        answered, asked: partners in this attempt.
        started, mark: clock at the row's start and at the last step, seconds.
        epsilon, epsilon_allowed: spent by the row, and what it may spend; None without privacy.
        pace: seconds of the latest steps of this part, whose mean tells the time left.
    """

    row: str = ""
    seed: int = 0
    done: int = 0
    total: int = 0
    part: str = ""
    answered: int = 0
    asked: int = 0
    epsilon: float | None = None
    epsilon_allowed: float | None = None
    validation: Mapping[str, float] | None = None
    refusals: tuple[str, ...] = ()
    started: float = 0.0
    mark: float = 0.0
    pace: tuple[float, ...] = ()

    def after(self, event: Json, now: float) -> "RowState":
        """The state once this event has happened; unknown events change nothing."""
        match event["event"]:
            case "row_started":
                return RowState(event["row"], event["seed"], started=now, mark=now)
            case "row_progress":
                return self._stepped(now, event["done"], event["total"])
            case "round_started":
                # Waiting for partners and failed attempts are no part of the pace: the mark moves.
                state = replace(self._in_part(event["part"]), answered=0, asked=event["partners"], mark=now)
                return replace(state, total=event.get("rounds", self.total))
            case "partner_done":
                return replace(self, answered=self.answered + 1)
            case "partner_refused":
                return replace(self, refusals=(*self.refusals, _refusal(event))[-_SHOWN_REFUSALS:])
            case "round_committed":
                state = self._in_part(event["part"])._stepped(now, event["round"], event.get("rounds", self.total))
                validation = event.get("validation") or self.validation
                partners = count_partners(event["partners"])
                state = replace(state, epsilon=event.get("epsilon"), epsilon_allowed=event.get("epsilon_allowed"))
                return replace(state, validation=validation, answered=partners)
        return self

    def seconds_left(self, now: float) -> float | None:
        """Seconds until the row ends at this part's pace, or None while there is none."""
        if not self.pace or self.total <= self.done:
            return None
        return max(0.0, fmean(self.pace) * (self.total - self.done) - (now - self.mark))

    def _in_part(self, part: str) -> "RowState":
        return self if part == self.part else replace(self, part=part, pace=())

    def _stepped(self, now: float, done: int, total: int) -> "RowState":
        # A resumed row goes on at a later round: its first step is one step, however large its number.
        steps = max(1, done - self.done) if self.done else 1
        pace = (*self.pace, (now - self.mark) / steps)[-_AVERAGED:]
        return replace(self, done=done, total=total, mark=now, pace=pace)


class LiveView:
    """Shows a run while it goes on: a panel in a terminal, else a line a round, nothing if quiet.

    Args:
        quiet: print nothing, as for `--json`.
        protocol: of the validation figures.
        console: where to; a new one on standard output by default.
        clock: seconds, ascending.
    Example: `with LiveView() as view: run_ladder(run, world, view.update, stop)`
    """

    def __init__(
        self,
        *,
        quiet: bool = False,
        protocol: str = "B",
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._quiet, self._protocol, self._clock = quiet, protocol, clock
        self._console = console or Console()
        self._states: dict[tuple[str, int], RowState] = {}  # of the rows under way
        drawn = not quiet and self._console.is_terminal and not self._console.is_dumb_terminal
        self._live = Live(self, console=self._console, refresh_per_second=4, transient=True) if drawn else None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def update(self, event: Json) -> None:
        """Take one event of the run; unknown ones are ignored."""
        if self._quiet:
            return
        now, key = self._clock(), (event.get("row", ""), event.get("seed", 0))
        before = self._states.get(key, RowState(*key))
        state = before.after(event, now)
        # A new dict: the panel is drawn by another thread.
        others = {k: s for k, s in self._states.items() if k != key}
        self._states = others if event["event"] == "row_done" else {**others, key: state}
        line = self._line(event, before, state, now)
        # What ends a row stays on the terminal above the panel.
        if line and (self._live is None or event["event"] in ("row_done", "stopped")):
            self._console.print(Text(line), soft_wrap=True)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The panel, drawn anew several times a second: the rows under way, one below the other."""
        tables = [self._table(state) for _, state in sorted(self._states.items()) if state.row]
        if tables:
            yield Panel(Group(*tables), title="fedrec", title_align="left", border_style="dim", expand=False)

    def _table(self, state: RowState) -> Table:
        now = self._clock()
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim")
        table.add_column()
        table.add_row("row", Text(f"{state.row}, seed {state.seed}", style="bold"))
        bar = ProgressBar(total=max(1, state.total), completed=state.done, width=30)
        table.add_row("rounds" if state.part else "steps", bar)
        table.add_row("", f"{state.done} of {state.total or '?'}" + (f", training {state.part}" if state.part else ""))
        if state.asked:
            table.add_row("partners", f"{state.answered} of {state.asked} have answered")
        if state.epsilon is not None:
            table.add_row("epsilon", f"{_epsilon(state.epsilon, state.epsilon_allowed)} spent")
        if state.validation:
            table.add_row("validation", self._quality(state.validation))
        left = state.seconds_left(now)
        about = f", about {in_time(left)} left for this row" if left is not None else ""
        table.add_row("time", f"{in_time(now - state.started)}{about}")
        for words in state.refusals:
            table.add_row("lost turn", Text(words, style="yellow"))
        return table

    def _line(self, event: Json, before: RowState, state: RowState, now: float) -> str | None:
        left = self._left(state, now)
        place = f"{state.row}, seed {state.seed}"
        match event["event"]:
            case "row_started":
                return f"{place}: begins"
            case "row_progress" if 10 * state.done // state.total > 10 * before.done // state.total:
                # A tenth at a time: a row may have hundreds of steps.
                return f"{place}: {state.done} of {state.total}{left}"
            case "round_committed":
                return f"{place}: {self._round(event, state)}{left}"
            case "partner_refused":
                return f"{place}: lost turn, {_refusal(event)}"
            case "round_failed":
                good, number = event["good"], event["round"]
                return f"{place}: round {number} has {good} good answers in attempt {event['attempt']}, too few"
            case "row_done":
                test = event.get("test")
                quality = f", test {self._quality(test)}" if test else ""
                return f"{place}: done in {in_time(now - state.started)}{quality}"
            case "stopped":
                return f"{place}: stopped before round {event['round']} was committed"
        return None

    def _round(self, event: Json, state: RowState) -> str:
        told = [
            f"round {event['round']} of {state.total or '?'}",
            event["part"],
            f"{count_partners(event['partners'])} of {state.asked or '?'} partners",
            f"epsilon {_epsilon(state.epsilon, state.epsilon_allowed)}" if state.epsilon is not None else "",
            f"validation {self._quality(event['validation'])}" if event.get("validation") else "",
            in_time(event["seconds"]),
        ]
        return ", ".join(filter(None, told))

    def _left(self, state: RowState, now: float) -> str:
        left = state.seconds_left(now)
        return f", about {in_time(left)} left" if left is not None else ""

    def _quality(self, means: Mapping[str, float]) -> str:
        return f"HR@10 {means['hr@10']:.4f}, NDCG@10 {means['ndcg@10']:.4f} (protocol {self._protocol})"


def _epsilon(spent: float, allowed: float | None) -> str:
    return f"{spent:.2f}" + (f" of {allowed:.2f}" if allowed is not None else "")


def ladder_table(summary: Json) -> Table:
    """The rows of a run side by side, for the terminal."""
    seeds = summary["seeds"]
    numbers = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    title = f"{summary['name']}: test, protocol {summary['protocol']}, {numbers}"
    if made := summary.get("data", {}).get("generated"):
        title += f", {made}"
    table = Table(title=Text(printable(title)), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("row", no_wrap=True)
    for heading in ("HR@10", "NDCG@10", "coverage", "epsilon", "sent up", "time"):
        table.add_column(heading, justify="right")
    for name, row in summary["rows"].items():
        sent = row.get("bytes_up_per_partner")
        table.add_row(
            Text(printable(name)),
            *(with_spread(row[m], row.get(f"{m}_std", 0.0), row["seeds"]) for m in ("hr@10", "ndcg@10")),
            f"{row['coverage@10']:.1%}",
            in_epsilon(row["epsilon"]),
            "" if sent is None else in_bytes(sent),
            in_time(row["seconds"]),
        )
    return table


def recommendations_panel(summary: Json) -> Panel:
    """What the run's adapter recommends to a few users, with reasons; says so if the run has none."""
    people = [_person(person) for person in summary.get("recommendations") or []]
    inside = Group(*people) if people else Text("no adapter was handed on, so there is nothing to recommend with")
    return Panel(inside, title="recommendations", title_align="left", border_style="dim", expand=False)


def _person(person: Json) -> Group:
    watched = " · ".join(printable(title) for title in person["watched"])
    table = Table.grid(padding=(0, 2))
    for place, item in enumerate(person["recommended"], start=1):
        reason = Text(printable(item["reason"]), style="dim")
        table.add_row(f"  {place}", Text(printable(item["title"])), f"{item['score']:.2f}", reason)
    head = Text(f"user {printable(person['user'])}", style="bold")
    return Group(head, Text(f"  last: {watched}", style="dim"), table)


def _refusal(event: Json) -> str:
    """Who lost a turn, when and why; the reason is a partner's words."""
    return printable(f"round {event['round']}: {event['partner']}: {event['reason']}")
