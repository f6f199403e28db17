"""The next genre: what is known before an item, chances of what was not had, and what is asked for."""

import numpy as np
import pytest

from fedrec.data.catalog import ItemCatalog
from fedrec.errors import DataError
from fedrec.model.features import ItemFeatures
from fedrec.tasks.genre import GenreReader, GenreRows

GENRES = (("Drama",), ("Drama", "War"), ("Comedy",), ("Drama", "Comedy"), (), ("Drama", "Comedy"))


def catalog_of(genres: tuple[tuple[str, ...], ...]) -> ItemCatalog:
    ids = tuple(str(place) for place in range(len(genres)))
    return ItemCatalog(ids, ids, ids, genres, (None,) * len(ids))


@pytest.fixture(scope="module")
def reader() -> GenreReader:
    rng = np.random.default_rng(0)
    features = ItemFeatures.of_text(rng.normal(size=(6, 8)).astype(np.float32), np.zeros((6, 2), np.float32), "made")
    features = features.with_behaviour(rng.normal(size=(6, 3)).astype(np.float32), "made")
    return GenreReader.of(catalog_of(GENRES), features, np.array([5, 0, 3, 1, 9, 2]), "public")


def slow_chances(reader: GenreReader, items: list[int]) -> np.ndarray:
    """Item by item, from the words of the docstring."""
    weights = [0.8 ** (len(items) - 1 - place) for place in range(len(items))]
    late = sum(w * reader.vectors[item] for w, item in zip(weights, items, strict=True)) / sum(weights)
    chances = np.zeros(len(reader.labels))
    total = 0.0
    for item in range(6):
        if item not in items:
            power = float(np.exp(8.0 * late @ reader.vectors[item] + reader.log_prior[item]))
            total += power
            if reader.genre[item] >= 0:
                chances[reader.genre[item]] += power
    return chances / total


def test_an_item_is_of_its_rarest_genre(reader: GenreReader) -> None:
    assert reader.labels == ("War", "Comedy", "Drama")
    assert reader.genre.tolist() == [2, 0, 1, 1, -1, 1]
    with pytest.raises(DataError, match="fewer than two genres"):
        GenreReader.of(
            catalog_of((("Drama",),) * 2),
            ItemFeatures.of_text(*[np.eye(2, dtype=np.float32)] * 2, "x"),
            np.zeros(2, np.int64),
            "",
        )


def test_inputs_are_those_of_the_slow_way_and_know_nothing_of_what_is_asked(reader: GenreReader) -> None:
    items = np.array([0, 3, 1], np.int32)
    found = reader.inputs(items)
    assert found.shape == (3, reader.width)
    for place in range(3):
        slow = np.log(slow_chances(reader, items[: place + 1].tolist()) + 0.002)
        np.testing.assert_allclose(found[place, :3], slow, rtol=1e-4)
    np.testing.assert_allclose(found[2, 6:9], reader.shares[items].mean(0), rtol=1e-6)
    np.testing.assert_allclose(found[2, 9:12], reader.shares[1], rtol=1e-6)
    np.testing.assert_allclose(reader.inputs(items, 2), found[2:], rtol=1e-6)
    other = reader.examples([GenreRows(np.array([0, 3, 2], np.int32), 1)])
    this = reader.examples([GenreRows(items, 1)])
    np.testing.assert_array_equal(this.inputs, other.inputs)
    assert (this.targets.tolist(), other.targets.tolist()) == ([0.0], [1.0])


def test_items_without_a_genre_are_not_asked_for(reader: GenreReader) -> None:
    found = reader.examples([GenreRows(np.array([0, 4, 2], np.int32), 2), GenreRows(np.array([1], np.int32), 0)])
    assert found.targets.tolist() == [1.0]
    assert found.n_users == 1
    with pytest.raises(DataError, match="nothing before it"):
        GenreRows(np.array([1, 2], np.int32), 2)
    assert reader.examples([]).n_rows == 0
