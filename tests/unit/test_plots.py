"""Plots alone: colours left to the page, names as text, any number of rounds."""

import re

import pytest

from fedrec_sim.plots import Bar, Line, plot_ladder, plot_popularity, plot_rounds


def test_colours_are_left_to_the_page() -> None:
    svg = plot_ladder([Bar("a", 0, 0.1, 0.0, [0.1])], name="x", alt="a 0.1")
    assert "var(--plot-0, #2563eb)" in svg
    assert not re.search(r"(?:fill|stroke): #(?!000000|ffffff)", svg)
    assert svg.startswith("<svg viewBox=")
    assert "<metadata" not in svg


def test_names_are_text_not_mathematics() -> None:
    svg = plot_ladder([Bar("$x^2$ <i>", 0, 0.1, 0.0, [0.1])], name="x", alt='a "quoted" <i>')
    assert ">$x^2$ &lt;i&gt;</text>" in svg
    assert 'aria-label="a &quot;quoted&quot; &lt;i&gt;"' in svg


@pytest.mark.parametrize("rounds", [[1], [1, 2], list(range(1, 200))])
def test_rounds_of_any_number_are_drawn(rounds: list[int]) -> None:
    values = [1000.0 * n for n in rounds]
    line = Line("a", 9, rounds, values, [v / 2 for v in values], [v * 2 for v in values])
    svg = plot_rounds([line], name="x", alt="a", ceiling=10.0, part_starts=[2])
    assert ">a</text>" in svg
    assert "promised" in svg


def test_popularity_ends_at_all_items() -> None:
    svg = plot_popularity([1.0], [("a", 0, [1.0])], name="x", alt="a")
    assert "100%" in svg
