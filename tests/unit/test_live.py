"""The live view from made events: states, plain lines, a drawn panel, silence, and the tables at the end."""

import io
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console

from fedrec_sim.live import LiveView, RowState, ladder_table, recommendations_panel

Json = dict[str, Any]
PLACE = {"row": "federated_dp", "seed": 1}
STARTED = {"event": "row_started", **PLACE}


def round_events(number: int, part: str = "head", epsilon: float | None = 1.25) -> Iterator[Json]:
    place = {**PLACE, "round": number, "attempt": 1, "part": part, "rounds": 39}
    partners = ["partner-1", "partner-2"]
    yield {"event": "round_started", **place, "partners": 3}
    for partner in partners:
        yield {"event": "partner_done", **place, "partner": partner, "seconds": 1.0}
    yield {"event": "partner_refused", **place, "partner": "partner-3", "reason": "[red]too\x1b[2J late\n"}
    yield {
        "event": "round_committed",
        **place,
        "partners": partners,
        "seconds": 2.0,
        "epsilon": epsilon,
        "epsilon_allowed": 8.0,
        "validation": {"hr@10": 0.1234, "ndcg@10": 0.0567},
    }


def drawn(thing: object) -> str:
    out = io.StringIO()
    Console(file=out, width=120).print(thing)
    return out.getvalue()


def plain_view(**settings: Any) -> tuple[LiveView, io.StringIO]:
    out = io.StringIO()
    ticks = itertools.count()
    return LiveView(console=Console(file=out), clock=lambda: float(next(ticks)), **settings), out


def test_state_follows_a_round() -> None:
    state = RowState().after(STARTED, 0.0)
    events = list(round_events(7))
    for event in events[:3]:
        state = state.after(event, 10.0)
    assert (state.answered, state.asked, state.part, state.total, state.done) == (2, 3, "head", 39, 0)
    for event in events[3:]:
        state = state.after(event, 14.0)
    assert (state.done, state.epsilon, state.pace) == (7, 1.25, (4.0,))
    assert state.refusals == ("round 7: partner-3: [red]too[2J late",)


def test_time_left_is_the_mean_of_the_latest_rounds_of_this_part() -> None:
    state, now = RowState().after(STARTED, 0.0), 0.0
    seconds = [100.0, 1.0, 1.0, 2.0, 2.0, 4.0]
    for number, took in enumerate(seconds, start=1):
        now += took
        for event in round_events(number):
            state = state.after(event, now if event["event"] == "round_committed" else now - took)
    assert state.seconds_left(now) == pytest.approx(2.0 * 33)
    assert state.seconds_left(now + 5) == pytest.approx(2.0 * 33 - 5)
    assert state.seconds_left(now + 1000) == 0.0
    state = state.after(next(round_events(7, part="lora")), now)
    assert state.seconds_left(now) is None


def test_only_the_last_refusals_are_kept() -> None:
    state = RowState()
    for number in range(9):
        state = state.after(list(round_events(number))[3], 0.0)
    assert [words.split(":")[0] for words in state.refusals] == ["round 6", "round 7", "round 8"]


def test_last_validation_stays_when_a_round_was_not_looked_at() -> None:
    state = RowState()
    for event in round_events(1):
        state = state.after(event, 1.0)
    state = state.after({**list(round_events(2))[-1], "validation": None}, 2.0)
    assert state.validation == {"hr@10": 0.1234, "ndcg@10": 0.0567}


def test_a_row_that_is_not_federated_has_a_pace_too() -> None:
    state = RowState().after({"event": "row_started", "row": "centralised", "seed": 1}, 0.0)
    for done in (1, 2, 4):
        event = {"event": "row_progress", "row": "centralised", "seed": 1, "done": done, "total": 10}
        state = state.after(event, 3.0 * done)
    assert state.seconds_left(12.0) == pytest.approx(18.0)


def test_a_new_row_forgets_the_one_before() -> None:
    state = RowState()
    for event in (*round_events(3), {"event": "row_started", "row": "ease", "seed": 2}):
        state = state.after(event, 5.0)
    assert state == RowState("ease", 2, started=5.0, mark=5.0)


def test_without_a_terminal_each_round_is_one_line() -> None:
    view, out = plain_view()
    with view:
        for event in (
            STARTED,
            *round_events(7),
            {"event": "row_done", **PLACE, "test": {"hr@10": 0.13, "ndcg@10": 0.06}},
        ):
            view.update(event)
    lines = out.getvalue().splitlines()
    assert len(lines) == 4
    assert "begins" in lines[0]
    assert "lost turn, round 7: partner-3: [red]too" in lines[1]
    assert "round 7 of 39, head, 2 of 3 partners, epsilon 1.25 of 8.00, validation HR@10 0.1234" in lines[2]
    assert "(protocol B), 2.0 s, about" in lines[2]
    assert "test HR@10 0.1300, NDCG@10 0.0600 (protocol B)" in lines[3]
    assert "\x1b" not in out.getvalue()


def test_many_steps_are_told_a_tenth_at_a_time() -> None:
    view, out = plain_view()
    with view:
        for done in range(1, 97):
            view.update({"event": "row_progress", "row": "local_only", "seed": 1, "done": done, "total": 96})
    assert len(out.getvalue().splitlines()) == 10


def test_failed_attempts_and_stops_are_told() -> None:
    view, out = plain_view()
    with view:
        view.update(STARTED)
        view.update(
            {
                "event": "round_failed",
                **PLACE,
                "round": 2,
                "attempt": 1,
                "part": "head",
                "good": 1,
                "reasons": {},
            }
        )
        view.update({"event": "stopped", **PLACE, "round": 2, "part": "head"})
    assert "round 2 has 1 good answers in attempt 1" in out.getvalue()
    assert "stopped before round 2" in out.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_quiet_prints_nothing(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    out = io.StringIO()
    with LiveView(quiet=True, console=Console(file=out, force_terminal=terminal)) as view:
        for event in (STARTED, *round_events(1), {"event": "row_done", **PLACE}, {"event": "unheard_of"}):
            view.update(event)
    assert out.getvalue() == ""


def test_in_a_terminal_a_panel_is_drawn_and_ended_rows_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, height=40)
    with LiveView(console=console) as view:
        for event in (STARTED, *round_events(7)):
            view.update(event)
        panel = drawn(view)
        view.update({"event": "row_done", **PLACE, "test": {"hr@10": 0.13, "ndcg@10": 0.06}})
    for text in (
        "federated_dp, seed 1",
        "7 of 39, training head",
        "2 of 3 have answered",
        "1.25 of 8.00 spent",
    ):
        assert text in panel
    for text in ("HR@10 0.1234, NDCG@10 0.0567 (protocol B)", "left for this row", "partner-3: [red]too"):
        assert text in panel
    assert "\x1b[2J late" not in out.getvalue()
    assert "done in" in out.getvalue()
    assert "\x1b[?25h" in out.getvalue()  # the cursor is back


def test_cursor_comes_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    out = io.StringIO()
    with pytest.raises(ValueError, match="boom"), LiveView(console=Console(file=out, force_terminal=True)):
        raise ValueError("boom")
    assert out.getvalue().rstrip().endswith("\x1b[?25h")


def summary() -> Json:
    row = {
        "hr@10": 0.12,
        "ndcg@10": 0.06,
        "hr@10_std": 0.01,
        "ndcg@10_std": 0.02,
        "coverage@10": 0.25,
        "seconds": 90.0,
    }
    return {
        "name": "demo",
        "protocol": "B",
        "seeds": [1, 2, 3],
        "rows": {
            "popularity": {**row, "seeds": 3, "epsilon": None, "bytes_up_per_partner": None},
            "federated_dp": {**row, "seeds": 3, "epsilon": 7.99, "bytes_up_per_partner": 1_500_000},
        },
        "recommendations": [
            {
                "user": "42",
                "watched": ["Heat (1995)", "[bold]Fargo\x1b[31m (1996)"],
                "recommended": [{"title": "Casino (1995)", "score": 2.5, "reason": "because of Heat (1995)"}],
            }
        ],
    }


def test_ladder_table_tells_spread_epsilon_and_bytes() -> None:
    text = drawn(ladder_table(summary()))
    for words in (
        "protocol B, seeds 1, 2, 3",
        "0.1200 ± 0.0100",
        "25.0%",
        "not private",
        "7.99",
        "1.5 MB",
        "1 min 30 s",
    ):
        assert words in text, words


def test_recommendations_panel_shows_titles_as_they_are() -> None:
    text = drawn(recommendations_panel(summary()))
    for words in ("user 42", "Heat (1995) · [bold]Fargo", "Casino (1995)", "2.50", "because of Heat (1995)"):
        assert words in text, words
    assert "\x1b" not in text


@pytest.mark.parametrize("change", [{}, {"recommendations": []}])
def test_recommendations_panel_without_an_adapter(change: Json) -> None:
    bare = {key: value for key, value in summary().items() if key != "recommendations"} | change
    assert "no adapter was handed on" in drawn(recommendations_panel(bare))


def test_rows_side_by_side_are_told_apart() -> None:
    """Events of two rows come in turn; each line names its own, and the panel shows both until one is done."""
    other = {"row": "centralised", "seed": 1}
    steps = [{"event": "row_progress", **other, "done": done, "total": 2} for done in (1, 2)]
    rounds = list(round_events(1))
    view, out = plain_view()
    for event in (STARTED, {"event": "row_started", **other}, *rounds[:-1], steps[0], rounds[-1], steps[1]):
        view.update(event)
    assert "federated_dp, seed 1: round 1 of 39, head, 2 of 3 partners" in out.getvalue()
    assert "centralised, seed 1: 2 of 2" in out.getvalue()
    assert "federated_dp" in drawn(view)
    assert "centralised" in drawn(view)
    view.update({"event": "row_done", **other})
    assert "federated_dp" in drawn(view)
    assert "centralised" not in drawn(view)
