"""The best of all items, and what the graph in the process keeps; what it finds: tests/contracts."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedrec.recommend.index import GraphIndex, best

RNG = np.random.default_rng(0)
ROWS = (RNG.normal(size=(60, 12)) * np.linspace(1, 0.2, 12)).astype(np.float32)
ROWS[:, -1] = RNG.normal(-8, 2, 60)  # as a popularity prior: items are of very different length


@given(st.lists(st.sampled_from([-1.0, 0.0, 2.0]), min_size=1, max_size=30), st.integers(1, 30), st.data())
def test_best_is_a_stable_sort_of_what_is_open(scores: list[float], k: int, data: st.DataObject) -> None:
    is_open = np.array(data.draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores))))
    expected = sorted((code for code in range(len(scores)) if is_open[code]), key=lambda code: (-scores[code], code))
    assert best(np.array(scores, np.float32), is_open, k).tolist() == expected[:k]


def test_another_catalogue_is_another_file_in_place_of_the_old(tmp_path: Path) -> None:
    GraphIndex(ROWS[:50], tmp_path)
    (first,) = tmp_path.glob("*.usearch")
    GraphIndex(ROWS[:51], tmp_path)
    assert first not in list(tmp_path.glob("*.usearch"))


def test_an_item_longer_than_it_has_room_for_is_refused() -> None:
    index = GraphIndex(ROWS[:50])
    longer = ROWS[:1] * 100
    assert not index.fits(longer)
    with pytest.raises(ValueError, match="longer"):
        index.add(longer)
