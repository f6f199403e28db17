"""What holds an item back: blocklist, words, likeness to themes; and that nothing slips through by its spelling."""

import time
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from fedrec.errors import ConfigError
from fedrec.recommend.shelf import Item, Shelf
from fedrec.safety.screen import Flag, Screen
from fedrec.safety.wordlist import FILE, Safety, default_safety, matcher, plain, read_safety

SAFETY = Safety.model_validate(
    {
        "format": 1,
        "block": {"ids": ["7"], "titles": ["acme *gun"], "fields": {"brand": ["evil*"]}},
        "words": [{"name": "fraud", "patterns": ["fake id", "fake ids", "cloned card"]}],
        "themes": [{"name": "drugs", "descriptions": ["x", "y"]}, {"name": "hate", "descriptions": ["z"]}],
    }
)


def kinds(item: Item, screen: Screen | None = None) -> list[tuple[str, str, str]]:
    return [(flag.kind, flag.name, flag.evidence) for flag in (screen or Screen(SAFETY)).flags([item])[0]]


@pytest.mark.parametrize(
    "text",
    ["Fake ID", "buy FAKE-IDs now", "fáke  id", "\uff46\uff41\uff4b\uff45 \uff49\uff44", "fake_id"],
)
def test_spelling_does_not_hide_a_word(text: str) -> None:
    assert kinds(Item("1", text))[0][:2] == ("word", "fraud")
    assert kinds(Item("1", "", text))[0][:2] == ("word", "fraud")
    assert kinds(Item("1", categories=(text,)))[0][:2] == ("word", "fraud")
    assert kinds(Item("1", fields={"blurb": text}))[0][:2] == ("word", "fraud")


@pytest.mark.parametrize("text", ["a fake idea", "cloned cards", "", "fake. Solid idol"])
def test_parts_of_words_are_not_meant(text: str) -> None:
    assert kinds(Item("1", text)) == []


def test_the_blocklist_holds_whatever_is_screened_for() -> None:
    idle = Screen(SAFETY, by_words=False)
    assert not idle.is_idle
    assert Screen(Safety(format=1), by_words=False).is_idle
    assert kinds(Item("7"), idle) == [("block", "ids", "7")]
    assert kinds(Item("1", "ACME Super-Gun"), idle) == []
    assert kinds(Item("1", "The ACME Supergun"), idle) == [("block", "titles", "acme *gun")]
    assert kinds(Item("1", fields={"brand": "Evilcorp"}), idle) == [("block", "brand", "evil*")]
    assert kinds(Item("1", "fake id", fields={"brand": 3}), idle) == []


def test_no_text_makes_a_pattern_slow() -> None:
    search = matcher(["a*a*", "b *c* d"])
    began = time.perf_counter()
    for text in ("a" * 100_000, "a " * 50_000, "b " + "c" * 100_000, "b c " * 25_000):
        search.search(plain(text))
    assert time.perf_counter() - began < 2


def sentences(texts: list[str]) -> np.ndarray:
    """Made vectors: descriptions are axes, "like:x" lies at .8 to x."""
    axes = {"x": 0, "y": 1, "z": 2}
    rows = np.zeros((len(texts), 4), np.float32)
    for row, text in zip(rows, texts, strict=True):
        if text in axes:
            row[axes[text]] = 2.0
        elif text.startswith("like:"):
            row[axes[text[-1]]], row[3] = 0.8, 0.6
        else:
            row[3] = 1.0
    return rows


def test_a_text_that_is_like_a_theme_waits_and_says_which() -> None:
    screen = Screen(SAFETY, by_themes=True, sentences=sentences, like=0.8 - 1e-6)  # type: ignore[arg-type]
    assert screen.flags([Item("1", "like:y")])[0] == [Flag("theme", "drugs", "y", 0.8)]
    assert [kinds(Item("1", text), screen) for text in ("like:z", "else", "")] == [[("theme", "hate", "z")], [], []]
    strict = Screen(SAFETY, by_themes=True, sentences=sentences, like=0.81)  # type: ignore[arg-type]
    assert kinds(Item("1", "like:z"), strict) == []
    with pytest.raises(ValueError, match="encoder"):
        Screen(SAFETY, by_themes=True)


def test_the_file_that_comes_with_it_is_read_and_a_faulty_one_named(tmp_path: Path) -> None:
    assert read_safety(tmp_path / FILE) == default_safety()
    assert {one.name for one in default_safety().words} == {one.name for one in default_safety().themes}
    (tmp_path / FILE).write_text(
        'format = 1\n[block]\nids = ["1"]\n[[words]]\nname = "w"\npatterns = ["*", "a*b*c*"]\n'
    )
    with pytest.raises(ConfigError, match="no letter") as found:
        read_safety(tmp_path / FILE)
    assert "words.0.patterns.1" in str(found.value)
    with pytest.raises(ValidationError, match="twice"):
        Safety.model_validate({"format": 1, "words": [{"name": "a", "patterns": ["b"]}] * 2})


def test_what_is_held_is_not_recommendable_before_or_after_it_comes() -> None:
    shelf = Shelf([Item("a"), Item("b")])
    shelf.hold("b")
    shelf.hold("later")
    shelf.put(Item("later"))
    assert shelf.recommendable().tolist() == [True, False, False]
    shelf.let_go("b")
    assert shelf.recommendable().tolist() == [True, True, False]
    assert (shelf.is_held("later"), shelf.is_held("b")) == (True, False)
