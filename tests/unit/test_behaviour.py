"""Public behaviour: read safely, matched by title, and worth nothing where nobody public was."""

import lzma
import pickle
from pathlib import Path

import numpy as np
import pytest

from fedrec.data.catalog import ItemCatalog
from fedrec.data.interactions import Interaction, InteractionTable
from fedrec.data.matching import same_items
from fedrec.data.movielens_small import FILE, load_movielens_small
from fedrec.data.sources import fetch, load_ml100k
from fedrec.errors import DataError
from fedrec.model.behaviour import behaviour_vectors
from fedrec.model.features import ItemFeatures

SOLARIS = "\u0421\u043e\u043b\u044f\u0440\u0438\u0441 (1972)"


def _catalog(*titles: str) -> ItemCatalog:
    years = tuple(int(title[-5:-1]) if title.endswith(")") else None for title in titles)
    return ItemCatalog(tuple(map(str, range(len(titles)))), titles, titles, ((),) * len(titles), years)


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        ("Usual Suspects, The (1995)", "The Usual Suspects (1995)", True),
        ("Am\u00e9lie (2001)", "Amelie (Fabuleux destin, Le) (2001)", True),
        ("Heat (1995)", "Heat (1996)", True),
        ("Heat (1995)", "Heat (1986)", False),
        ("Heat", "Heat", True),
        (
            "\u0421\u043e\u043b\u044f\u0440\u0438\u0441 (1972)",
            "\u0421\u041e\u041b\u042f\u0420\u0418\u0421 (1972)",
            True,
        ),
        (
            "\u0421\u043e\u043b\u044f\u0440\u0438\u0441 (1972)",
            "\u0417\u0435\u0440\u043a\u0430\u043b\u043e (1972)",
            False,
        ),
        ("??? (1990)", "!!! (1990)", False),
        ("Heat", "Heat (1995)", False),
    ],
)
def test_items_are_the_same_by_title_and_nearby_year(ours: str, theirs: str, same: bool) -> None:
    assert same_items(_catalog("Other (1990)", ours), _catalog(theirs)).tolist() == [1 if same else -1]


def _public() -> tuple[ItemCatalog, InteractionTable]:
    catalog = _catalog("A (1990)", "B (1990)", "C (1990)", "D (1990)", "Elsewhere (1990)")
    pairs = [(f"u{n}", item) for n in range(12) for item in (("0", "1", "4") if n % 2 else ("2", "3"))]
    pairs += [(f"v{n}", item) for n in range(6) for item in ("0", "2")]
    return catalog, InteractionTable.from_rows(
        [Interaction(user, item, None, float(line), line) for line, (user, item) in enumerate(pairs, 1)], catalog
    )


def test_what_the_public_had_together_is_alike_and_what_it_did_not_know_is_zero() -> None:
    public_catalog, public = _public()
    ours = _catalog("Unknown (1990)", "D (1990)", "C (1990)", "B (1990)", "A (1990)")
    vectors = behaviour_vectors(ours, public_catalog, [public], dim=2)
    assert vectors.dtype == np.float32
    assert vectors.shape == (5, 2)
    assert not vectors[0].any()
    together, apart = vectors[1] @ vectors[2], vectors[1] @ vectors[3]
    assert together > 0 > apart
    assert np.linalg.norm(vectors, axis=1).max() <= 1
    assert np.linalg.norm(vectors[4]) > np.linalg.norm(vectors[3])  # more public users had it


def test_partners_who_start_from_other_public_data_notice_it() -> None:
    text = ItemFeatures.of_text(np.ones((2, 3), np.float32), np.ones((2, 4), np.float32), "text")
    some, other = (text.with_behaviour(np.ones((2, 1), np.float32), made_from) for made_from in ("some", "other"))
    assert len({text.hash, some.hash, other.hash}) == 3
    assert some.hash == text.with_behaviour(np.full((2, 1), 1 - 1e-7, np.float32), "some").hash  # of another machine


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("run",))


@pytest.mark.parametrize("content", [b"", b"no archive", lzma.compress(b"no pickle"), lzma.compress(pickle.dumps(3))])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(DataError, match="missing or damaged"):
        load_movielens_small(tmp_path)


def test_a_pickle_that_calls_something_is_not_obeyed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / FILE).write_bytes(lzma.compress(pickle.dumps(_Evil())))
    with pytest.raises(DataError, match="missing or damaged"):
        load_movielens_small(tmp_path)
    assert not capsys.readouterr().out


@pytest.mark.real
def test_movielens_small_without_those_who_might_be_in_movielens_100k() -> None:
    catalog, table = load_movielens_small(fetch("movielens-small"))
    assert table.n_users == 520
    assert table.timestamp.min() >= 893_980_800
    ours, _ = load_ml100k(fetch("ml-100k"))
    assert (same_items(ours, catalog) >= 0).sum() > 1300
