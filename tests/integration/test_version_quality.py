"""Versions of a coordinator are measured on published rows, by the evaluation that everything else goes through."""

from pathlib import Path

import numpy as np
import pytest

from fedrec.data.catalog import ItemCatalog
from fedrec.data.datasets import load_data
from fedrec.data.splits import split_by
from fedrec.errors import ConfigError
from fedrec_sim.version_quality import published_sequences, quality_of

OURS = ItemCatalog(
    ("a", "b", "c"),
    ("Toy Story (1995)", "Heat (1995)", "No Such Film (1901)"),
    ("Toy Story", "Heat", "None"),
    ((), (), ()),
    (1995, 1995, 1901),
)


class Knows:
    """Scores one item above all others."""

    def __init__(self, item: int, n_items: int) -> None:
        self.scores = np.arange(n_items, dtype=np.float32)
        self.scores[item] = 1e6

    def score(self, histories: list[np.ndarray]) -> np.ndarray:
        return np.tile(self.scores, (len(histories), 1))


@pytest.mark.real
def test_published_histories_speak_our_codes() -> None:
    catalog, _ = load_data("ml-100k", lambda _: None)
    theirs, table = load_data("movielens-small", lambda _: None)
    sequences = published_sequences(catalog, "movielens-small", lambda _: None)
    first = sequences[0]
    rows = next(piece for piece in table.tables() if first.user in piece.user_ids)
    mine = rows.item_codes[rows.user_codes == rows.user_ids.index(first.user)]
    titles = {theirs.titles[code].partition(" (")[0] for code in mine}
    assert {catalog.titles[code].partition(" (")[0] for code in first.items[:3]} <= titles
    assert min(len(one) for one in sequences) >= 3
    target = int(split_by("B", sequences, 11)[0].test[0])
    found = quality_of(Knows(target, len(catalog)), split_by("B", [first], 11), len(catalog), adapter="x", data="small")
    assert (found.users, found.hit_ratio, found.ndcg, found.protocol) == (1, 1.0, 1.0, "B")


@pytest.mark.real
def test_data_without_an_item_in_common_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="shares no item"):
        published_sequences(OURS, "movielens-small", lambda _: None)
