"""The catalogue: what it refuses, how titles are found, and that it comes back as it was."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedrec.data.catalog import (
    CatalogColumns,
    ItemCatalog,
    item_text,
    read_catalog,
    read_stored_catalog,
    write_catalog,
)
from fedrec.errors import DataError

FILMS = ItemCatalog(
    ids=("7", "9", "8", "10"),
    titles=("Toy Story (1995)", "Heat (1995)", "HEAT (1995)", "Heat (1995)"),
    texts=("Toys.", "A heist.", "A fan.", "A cop."),
    categories=(("Animation", "Children's"), (), (), ("Crime",)),
    years=(1995, None, 1995, 1995),
)


def test_what_no_item_may_be_is_told_at_once() -> None:
    with pytest.raises(DataError) as caught:
        replace(FILMS, ids=("7", "", "7", " 8"), titles=("T", " ", "T", "T"), texts=("t", "t", "", "\ud800"))
    assert str(caught.value).startswith("catalogue: 4 problems")
    for expected in (
        "id is empty or not printable text: items 2, 4",
        "id stands in an earlier place too: item 3",
        "title is empty or not UTF-8: item 2",
        "text is empty or not UTF-8: items 3, 4",
    ):
        assert expected in str(caught.value)


def test_no_items_and_unequal_lengths_are_refused() -> None:
    with pytest.raises(DataError, match="has no items"):
        ItemCatalog((), (), (), (), ())
    with pytest.raises(DataError, match="differ in length"):
        replace(FILMS, years=(1995,))


@pytest.mark.parametrize(
    "change",
    [
        {"ids": ("7", "9", "8", "11")},
        {"titles": ("Toy Story (1995)", "Heat (1995)", "HEAT (1995)", "Heat")},
        {"texts": ("Toys.", "A heist.", "A fan.", "A cat.")},
        {"categories": (("Animation, Children's",), (), (), ("Crime",))},
        {"years": (1995, None, 1995, None)},
    ],
)
def test_the_hash_sees_every_column(change: dict[str, Any]) -> None:
    assert replace(FILMS).hash == FILMS.hash
    assert len(FILMS.hash) == 64
    assert replace(FILMS, **change).hash != FILMS.hash


def test_titles_are_found_in_the_right_case_first_and_the_first_of_equals() -> None:
    assert FILMS.find_title("Toy Story (1995)") == 0
    assert FILMS.find_title(" toy story (1995) ") == 0
    assert FILMS.find_title("Heat (1995)") == 1
    assert FILMS.find_title("HEAT (1995)") == 2
    assert FILMS.find_title(" HEAT (1995) ") == 2
    assert FILMS.find_title("heat (1995)") == 1
    with pytest.raises(DataError, match=r"no title 'Toy Storie' .* near it: 'Toy Story \(1995\)'"):
        FILMS.find_title("Toy Storie")


def test_an_unknown_id_is_not_repeated() -> None:
    assert FILMS.index_of("10") == len(FILMS) - 1
    with pytest.raises(DataError, match="ids near it: '10'") as caught:
        FILMS.index_of("100")
    assert "'100'" not in str(caught.value)


COLUMNS = CatalogColumns("sku", "name", "about", "kinds", "year")


def test_csv_json_and_parquet_give_the_same_catalogue(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(
        "year,sku,name,about,kinds\n1995, 7 ,Toy  Story,Toys.,Animation| Children's|Animation|\n,9,Heat,A heist.,\n"
    )
    (tmp_path / "x.jsonl").write_text(
        '{"sku": 7, "name": "Toy Story", "about": "Toys.", '
        '"kinds": ["Animation", "Children\'s"], "year": "1995.0"}\n'
        '{"sku": 9, "name": "Heat", "about": "A heist."}\n'
    )
    rows = {
        "sku": [7, 9],
        "name": ["Toy Story", "Heat"],
        "about": ["Toys.", "A heist."],
        "kinds": [["Animation", "Children's"], None],
        "year": [1995.0, None],
    }
    pq.write_table(pa.table(rows), tmp_path / "x.parquet")
    expected = ItemCatalog(
        ("7", "9"),
        ("Toy Story", "Heat"),
        ("Toys.", "A heist."),
        (("Animation", "Children's"), ()),
        (1995, None),
    )
    for name in ("x.csv", "x.jsonl", "x.parquet"):
        assert read_catalog(tmp_path / name, COLUMNS) == expected


def test_without_a_text_column_title_and_categories_make_it(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_text("id\ttitle\tkinds\n1\tUp\tAnimation Comedy\n2\tHeat\t\n")
    found = read_catalog(path, CatalogColumns("id", "title", categories="kinds", category_separator=" "))
    assert found.texts == ("Up. Animation, Comedy.", "Heat.") == (item_text("Up", ["Animation", "Comedy"]), "Heat.")
    assert read_catalog(path, CatalogColumns("id", "title")).texts == ("Up.", "Heat.")


def test_bad_lines_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("sku,name,about,kinds,year\n1,A,a,,soon\n1,B,,,2000.5\n2,C,c\n3,,d,,99999\n")
    with pytest.raises(DataError) as caught:
        read_catalog(path, COLUMNS)
    for expected in (
        "'year' is no year: lines 2, 3, 5",
        "id stands in an earlier place too: line 3",
        "text is empty or not UTF-8: line 3",
        "has more or fewer columns than the header: line 4",
        "title is empty or not UTF-8: line 5",
    ):
        assert expected in str(caught.value)
    with pytest.raises(DataError, match="no column 'plot'"):
        read_catalog(path, replace(COLUMNS, text="plot"))


def test_a_stored_catalogue_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "catalog.parquet"
    spaced = replace(FILMS, texts=(" Toys. ", "A\nheist.", "é", "\U0001f600"))
    write_catalog(spaced, path)
    assert read_stored_catalog(path) == spaced
    stored = pq.read_table(path)
    pq.write_table(stored.slice(0, 2), path)
    with pytest.raises(DataError, match="damaged"):
        read_stored_catalog(path)
    path.write_bytes(b"PAR1")
    with pytest.raises(DataError, match="no catalog written by fedrec"):
        read_stored_catalog(path)
