"""Made users: repeatable, marked, like the crowd and like nobody in it; stored tables read user by user."""

import hashlib
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from fedrec.data import generator
from fedrec.data.catalog import ItemCatalog
from fedrec.data.columns import write_parquet
from fedrec.data.interactions import (
    BY_USER,
    Interaction,
    InteractionTable,
    read_stored_interactions,
    write_interactions,
)
from fedrec.data.sequences import build_sequences
from fedrec.data.stored import Derived, StoredInteractions
from fedrec.data.taste import fit_tastes
from fedrec.errors import DataError


@pytest.fixture(scope="module")
def real(catalog: ItemCatalog) -> InteractionTable:
    """80 users of two tastes, even and odd items, 5 to 14 each; several at a time share a second."""
    rng = np.random.default_rng(3)
    rows = []
    for user in range(80):
        liked = np.arange(user % 2, len(catalog), 2)
        weights = 1.0 / (1 + np.arange(len(liked)))
        for place, item in enumerate(rng.choice(liked, 5 + user % 10, replace=False, p=weights / weights.sum())):
            rows.append(Interaction(f"u{user}", catalog.ids[item], float(1 + item % 5), 1e9 + place // 3, line=0))
    return InteractionTable.from_rows(rows, catalog)


@pytest.fixture(scope="module")
def crowd(real: InteractionTable, catalog: ItemCatalog) -> generator.Crowd:
    return generator.fit(real, catalog, source="test")


def write(
    crowd: generator.Crowd, catalog: ItemCatalog, path: Path, users: int = 300, seed: int = 1
) -> StoredInteractions:
    generator.write_generated(crowd, path, catalog, users=users, seed=seed)
    return StoredInteractions.open(path, catalog)


def test_a_seed_makes_the_same_file_and_another_seed_another(
    crowd: generator.Crowd, catalog: ItemCatalog, tmp_path: Path
) -> None:
    one, same, other = (write(crowd, catalog, tmp_path / f"{n}.parquet", seed=seed) for n, seed in enumerate((1, 1, 2)))
    digests = [hashlib.sha256(table.path.read_bytes()).hexdigest() for table in (one, same, other)]
    assert digests[0] == digests[1] != digests[2]
    assert one.hash == same.hash != other.hash
    assert one.generated == {"fitted_to": "test", "scheme": generator.SCHEME, "users": 300, "seed": 1}


def test_the_first_users_are_the_same_however_many_are_made(crowd: generator.Crowd, catalog: ItemCatalog) -> None:
    few, many = (list(generator.made_users(crowd, catalog, users=n, seed=1)) for n in (10, 300))
    assert few[0].user_ids == many[0].user_ids[:10]
    np.testing.assert_array_equal(few[0].item_codes, many[0].item_codes[: few[0].n_rows])
    assert sum(table.n_users for table in many) == 300


def test_no_made_user_has_a_real_users_items(
    crowd: generator.Crowd, real: InteractionTable, catalog: ItemCatalog
) -> None:
    known = {frozenset(sequence.items.tolist()) for sequence in build_sequences(real, 0)}
    for table in generator.made_users(crowd, catalog, users=300, seed=1):
        for sequence in build_sequences(table, 0):
            assert len(set(sequence.items.tolist())) == len(sequence), "nobody has an item twice"
            assert frozenset(sequence.items.tolist()) not in known


def test_the_crowd_is_kept(crowd: generator.Crowd, real: InteractionTable, catalog: ItemCatalog) -> None:
    made = list(generator.made_users(crowd, catalog, users=2000, seed=1))
    lengths = np.concatenate([np.bincount(table.user_codes) for table in made])
    np.testing.assert_allclose(np.quantile(lengths, [0, 0.5, 1]), [5, 9, 14], atol=1)
    counts = sum(np.bincount(table.item_codes, minlength=len(catalog)) for table in made)
    wanted = np.bincount(real.item_codes, minlength=len(catalog)) / real.n_rows
    assert np.corrcoef(counts / counts.sum(), wanted)[0, 1] > 0.95


def test_tastes_are_found(real: InteractionTable, catalog: ItemCatalog) -> None:
    """Each of the two is that of the even items or of the odd ones."""
    counts = sparse.csr_array((np.ones(real.n_rows), (real.user_codes, real.item_codes)))
    tastes = fit_tastes(counts, np.arange(real.n_users), tastes=2, steps=60, seed=0)
    assert sorted(tastes.items[:, 1::2].sum(1).round()) == [0, 1]
    np.testing.assert_allclose(tastes.items[:, 1::2].sum(1).round(), tastes.items[:, 1::2].sum(1), atol=0.1)
    np.testing.assert_allclose(tastes.mean, 0.5, atol=0.1)


def test_stored_tables_give_the_same_hash_and_sequences_as_whole_ones(
    real: InteractionTable, catalog: ItemCatalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedrec.data.columns._BATCH_ROWS", 17)  # users are cut by batches
    write_interactions(real, tmp_path / "x.parquet")
    stored = StoredInteractions.open(tmp_path / "x.parquet", catalog)
    assert (stored.hash, stored.n_users, stored.n_rows) == (real.hash, real.n_users, real.n_rows)
    assert stored.generated is None
    assert read_stored_interactions(tmp_path / "x.parquet", catalog).hash == real.hash
    for seed in (1, 2):
        lazy, whole = stored.sequences(seed), build_sequences(real, seed)
        assert len(lazy) == len(whole)
        for one, other in zip(lazy, whole, strict=True):
            assert one.user == other.user
            np.testing.assert_array_equal(one.items, other.items)
            np.testing.assert_array_equal(one.timestamps, other.timestamps)
        assert [s.user for s in lazy[3:5]] == [s.user for s in whole[3:5]]
        assert lazy[-1].user == whole[-1].user
        assert Derived(lazy, len)[2] == len(whole[2])


def test_stored_tables_that_are_not_what_was_written_are_refused(
    real: InteractionTable, catalog: ItemCatalog, tmp_path: Path
) -> None:
    path = tmp_path / "x.parquet"
    write_interactions(real, path)
    ids = ("new", *catalog.ids[1:])
    with pytest.raises(DataError, match="not in the catalogue"):
        StoredInteractions.open(path, replace(catalog, ids=ids))
    columns = {"user": ["b", "a"], "item": ["i1", "i2"], "timestamp": [1.0, 2.0], "rating": [1.0, 1.0]}
    write_parquet(path, columns, {**BY_USER, "content": "interactions", "hash": "0"})
    with pytest.raises(DataError, match="order of users"):
        StoredInteractions.open(path, catalog)
    write_parquet(path, {**columns, "user": ["a", "b"]}, {**BY_USER, "content": "interactions", "hash": "0"})
    with pytest.raises(DataError, match="damaged"):
        StoredInteractions.open(path, catalog)


def test_memory_does_not_grow_with_the_users(
    crowd: generator.Crowd, catalog: ItemCatalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Peaks of making, checking and reading, in Python's and numpy's own count. What may grow: ids and places."""
    monkeypatch.setattr("fedrec.data.columns._BATCH_ROWS", 2048)  # so that both files have several batches
    peaks = []
    for users in (1000, 8000):
        tracemalloc.start()
        sequences = write(crowd, catalog, tmp_path / f"{users}.parquet", users=users).sequences(1)
        assert sum(1 for _ in sequences) == users
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 7000 * 150
