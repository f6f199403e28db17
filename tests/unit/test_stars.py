"""A user's ratings as a task reads them: the latest of each item, the latest of all, and nobody else's."""

import numpy as np
import pytest

from fedrec.data.catalog import ItemCatalog
from fedrec.data.interactions import Interaction, InteractionTable
from fedrec.data.ratings import refuse_unlabelled
from fedrec.errors import DataError
from fedrec.tasks.stars import rated_by


def table(catalog: ItemCatalog, *rows: tuple[str, int, float | None, float]) -> InteractionTable:
    made = [Interaction(user, catalog.ids[item], stars, at, n + 1) for n, (user, item, stars, at) in enumerate(rows)]
    return InteractionTable.from_rows(made, catalog)


def test_the_latest_rating_of_each_item_counts_once(catalog: ItemCatalog) -> None:
    of_a = (("a", 3, 1.0, 10.0), ("a", 5, 2.0, 20.0), ("a", 3, 5.0, 30.0), ("a", 7, 4.0, 40.0))
    rows = table(catalog, *of_a[:2], ("b", 3, 4.0, 5.0), *of_a[2:])
    found = rated_by(rows, "ratings", most_rows=10, seed=1)
    assert found["a"].items.tolist() == [5, 3, 7]
    assert found["a"].targets.tolist() == [2.0, 5.0, 4.0]
    assert found["b"].targets.tolist() == [4.0]
    assert rated_by(rows, "likes", most_rows=10, seed=1)["a"].targets.tolist() == [0.0, 1.0, 1.0]


def test_no_more_than_the_latest_are_read(catalog: ItemCatalog) -> None:
    rows = table(catalog, *[("a", item, 3.0, 100.0 - item) for item in range(9)])
    assert rated_by(rows, "ratings", most_rows=4, seed=1)["a"].items.tolist() == [3, 2, 1, 0]


def test_what_was_deleted_is_gone_and_moves_nobody_else(catalog: ItemCatalog) -> None:
    rows = table(catalog, *[(user, item, 2.0, 0.0) for user in "abc" for item in range(6)])
    there = {("a", catalog.ids[item]) for item in range(6)} | {("b", catalog.ids[2])}
    every = rated_by(rows, "ratings", most_rows=9, seed=1)
    found = rated_by(rows, "ratings", most_rows=9, seed=1, only=there)
    assert found.keys() == {"a", "b"}
    assert np.array_equal(found["a"].items, every["a"].items)
    assert found["b"].items.tolist() == [2]


@pytest.mark.parametrize(("stars", "words"), [(None, "no ratings"), (0.0, "scale, 1 to 5"), (5.5, "scale, 1 to 5")])
def test_rows_that_say_no_stars_are_refused(catalog: ItemCatalog, stars: float | None, words: str) -> None:
    rows = table(catalog, ("a", 1, stars, 0.0))
    with pytest.raises(DataError, match=words):
        refuse_unlabelled(rows, 1.0, 5.0)
    refuse_unlabelled(table(catalog, ("a", 1, 1.0, 0.0), ("b", 1, 5.0, 0.0)), 1.0, 5.0)
