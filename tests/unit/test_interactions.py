"""Reading interactions: all formats agree, every bad line is named, and nothing private is said."""

import errno
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedrec.data.catalog import ItemCatalog
from fedrec.data.interactions import (
    ColumnMapping,
    Interaction,
    InteractionTable,
    read_interactions,
    read_stored_interactions,
    write_interactions,
)
from fedrec.errors import DataError, StorageError

ITEMS = ItemCatalog(
    ids=("a", "b", "c"),
    titles=("A", "B", "C"),
    texts=("A.", "B.", "C."),
    categories=((), (), ()),
    years=(None, None, None),
)
COLUMNS = ColumnMapping("user", "item", "rating", "timestamp")
HEADER = "user,item,rating,timestamp\n"
ROWS = [("u2", "b", 4.0, 1704067200.0), ("u1", "a", 3.5, 1704067200.0), ("u2", "a", 1.0, 1704070800.5)]


def interactions(rows: Sequence[tuple[str, str, float | None, float]] = ROWS) -> list[Interaction]:
    return [Interaction(*row, line=number) for number, row in enumerate(rows, 1)]


def table() -> InteractionTable:
    return InteractionTable.from_rows(interactions(), ITEMS)


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refused(path: Path, columns: ColumnMapping = COLUMNS) -> str:
    """The message of a refusal, which nothing private stands behind."""
    with pytest.raises(DataError) as caught:
        read_interactions(path, columns, ITEMS)
    assert caught.value.__context__ is None
    return str(caught.value)


def as_csv(path: Path) -> None:
    write(path, HEADER + "".join(f"{u}, {i} ,{r},{t}\r\n" for u, i, r, t in ROWS))


def as_tsv(path: Path) -> None:
    write(path, b"\xef\xbb\xbf" + HEADER.replace(",", "\t").encode() + b"u2\tb\t4\t2024-01-01\n\n"
          b"u1\ta\t3.5\t2024-01-01T01:00:00+01:00\nu2\ta\t1\t2024-01-01 01:00:00.5\n")  # fmt: skip


def as_jsonl(path: Path) -> None:
    lines = [json.dumps({"timestamp": t, "extra": [1], "user": u, "item": i, "rating": r}) for u, i, r, t in ROWS]
    write(path, "\n".join(lines))


def as_parquet(path: Path, kind: Any = None) -> None:
    times = pa.array([round(t * 1e6) for *_, t in ROWS], pa.timestamp("us", tz="Asia/Tokyo"))
    pq.write_table(pa.table({
        "user": pa.array([row[0] for row in ROWS]).dictionary_encode(),
        "item": [row[1] for row in ROWS],
        "rating": [row[2] for row in ROWS],
        "timestamp": times,
    }), path)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("x.csv", as_csv),
        ("x.TSV", as_tsv),
        ("x.jsonl", as_jsonl),
        ("x.ndjson", as_jsonl),
        ("x.parquet", as_parquet),
    ],
)
def test_every_format_gives_the_same_table(tmp_path: Path, name: str, make: Callable[[Path], None]) -> None:
    make(tmp_path / name)
    found = read_interactions(tmp_path / name, COLUMNS, ITEMS)
    assert found.user_ids == ("u1", "u2")
    assert found.user_codes.tolist() == [1, 0, 1]
    assert found.item_codes.tolist() == [1, 0, 0]
    assert found.rating.tolist() == [4.0, 3.5, 1.0]
    assert found.timestamp.tolist() == [row[3] for row in ROWS]
    assert (found.n_users, found.n_items, found.n_rows) == (2, 3, 3)
    assert found.hash == table().hash


def test_whole_numbers_are_ids_and_dates_are_midnight_utc(tmp_path: Path) -> None:
    catalog = replace(ITEMS, ids=("1", "2", "3"))
    day = pa.array([0, 1], pa.date32())
    pq.write_table(pa.table({"user": [7, 7], "item": [3, 1], "when": day}), tmp_path / "x.parquet")
    found = read_interactions(tmp_path / "x.parquet", ColumnMapping("user", "item", None, "when"), catalog)
    assert found.user_ids == ("7",)
    assert found.item_codes.tolist() == [2, 0]
    assert found.timestamp.tolist() == [0.0, 86400.0]
    assert np.isnan(found.rating).all()


def test_dates_without_a_zone_are_utc_wherever_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    request.addfinalizer(time.tzset)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    as_tsv(tmp_path / "x.tsv")
    assert read_interactions(tmp_path / "x.tsv", COLUMNS, ITEMS).hash == table().hash


def test_rows_that_cannot_be_repeat_nothing(tmp_path: Path) -> None:
    message = refused(write(tmp_path / "x.csv", HEADER + "u,x,1,5\nu,y,1,5\n,a,1,5\n ,a,1,5\n"))
    assert "(add it there): lines 2, 3\n" in message
    assert "earlier row" not in message


def test_every_bad_line_is_named_with_its_reason_at_once(tmp_path: Path) -> None:
    rows = [
        "u1,a,3,100",  # 2: right
        " ,a,3,100",  # 3
        '"u\n1",,3,100',  # 4 to 5
        "u1,SECRET-ITEM,3,100",  # 6
        "",  # 7: blank lines are no rows
        "u1,b,SECRET-RATING,100",  # 8
        "u1,b,nan,200",  # 9
        "u1,b,1e999,300",  # 10
        "u1,b,3,SECRET-TIME",  # 11
        "u1,b,3,",  # 12
        "u1,b,3,1704067200000",  # 13
        "u1,b,3",  # 14
        "SECRET-USER,b,3,100,SECRET-REST",  # 15
        "u1,a,1,1970-01-01T00:01:40Z",  # 16: line 2 again
        "u1,a,3,101",  # 17: the same item later is right
        "u1,b,1e39,400",  # 18: no float32
    ]
    message = refused(write(tmp_path / "x.csv", HEADER + "\n".join(rows) + "\n"))
    for expected in (
        "8 problems",
        "'user' is empty or not printable text: lines 3, 5\n",
        "'item' is empty or not printable text: line 5\n",
        "'item' is not in the catalogue (add it there): line 6\n",
        "'rating' is missing or not a number: lines 8, 9, 10, 18\n",
        "'timestamp' is neither Unix seconds nor an ISO 8601 date: lines 11, 12\n",
        "'timestamp' is beyond the year 5138 (in milliseconds?): line 13\n",
        "has more or fewer columns than the header: lines 14, 15\n",
        "same user, item and time as an earlier row: line 16\n",
    ):
        assert expected in message
    assert "SECRET" not in message


def test_many_bad_lines_are_counted(tmp_path: Path) -> None:
    message = refused(write(tmp_path / "x.csv", HEADER + "u1,a,x,1\n" * 1000))
    assert "lines 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21 and 980 more" in message


def test_json_lines_and_parquet_rows_that_are_wrong_are_named(tmp_path: Path) -> None:
    lines = [
        '{"user": "u1", "item": "a", "rating": 1, "timestamp": 5}',
        '{"user": SECRET}',
        '["SECRET"]',
        '{"user": "u1", "item": "a", "timestamp": 6}',
        '{"user": {"SECRET": 1}, "item": true, "rating": [1], "timestamp": [7]}',
        "[" * 100_000,
        '{"user": "u\\ud800", "item": "a", "rating": NaN, "timestamp": ' + "9" * 400 + "}",
    ]
    message = refused(write(tmp_path / "x.jsonl", "\n".join(lines)))
    assert "is not a JSON object: lines 2, 3, 6\n" in message
    assert "'rating' is missing or not a number: lines 4, 5, 7\n" in message
    assert "'user' is empty or not printable text: lines 5, 7\n" in message
    assert "'item' is empty or not printable text: line 5\n" in message
    assert "ISO 8601 date: lines 5, 7\n" in message
    assert "SECRET" not in message
    one = '{"user": "u1", "item": "a", "rating": [1], "timestamp": [7]}'
    assert refused(write(tmp_path / "x.jsonl", one)).startswith(f"{tmp_path / 'x.jsonl'}: 2 problems")
    rows = {"user": ["u1", None], "item": ["a", "b"], "rating": [None, 1.5], "timestamp": [1, None]}
    pq.write_table(pa.table(rows), tmp_path / "x.parquet")
    message = refused(tmp_path / "x.parquet")
    assert "'user' is empty or not printable text: row 2\n" in message
    assert "'rating' is missing or not a number: row 1\n" in message
    assert "ISO 8601 date: row 2\n" in message


def test_bytes_that_are_not_utf8_and_quotes_that_do_not_end_name_their_line(tmp_path: Path) -> None:
    message = refused(write(tmp_path / "x.csv", HEADER.encode() + b"u1,a,1,1\nu\xe9,a,1,2\nu2,a,1,3\n"))
    assert "'user' is empty or not printable text: line 3\n" in message
    message = refused(write(tmp_path / "x.csv", HEADER + 'u1,a,1,1\n"SECRET,a,1,2\nu2,a,1,3\n'))
    assert "unbalanced quotes" in message
    assert "SECRET" not in message


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        (
            "x.csv",
            "SECRET,item,5\nu,a,1\n",
            "3 problems\n  - no column 'user'\n  - no column 'rating'\n  - no column",
        ),
        ("x.csv", "user,user,item,rating,timestamp\n", "2 columns 'user'"),
        ("x.csv", "", "is empty"),
        ("x.csv", HEADER, "no rows"),
        ("x.jsonl", "\n \n", "no rows"),
        ("x.xlsx", "SECRET", "unknown suffix '.xlsx'"),
        ("x.parquet", "SECRET", "no Parquet file"),
    ],
)
def test_files_that_hold_no_rows_are_refused(tmp_path: Path, name: str, content: str, expected: str) -> None:
    message = refused(write(tmp_path / name, content))
    assert expected in message
    assert "SECRET" not in message


def test_a_file_that_is_missing_or_cut_off_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.csv: cannot be read: No such file"):
        read_interactions(tmp_path / "x.csv", COLUMNS, ITEMS)
    path = tmp_path / "x.parquet"
    as_parquet(path)
    path.write_bytes(path.read_bytes()[:-20])
    refused(path)


def test_rows_have_ratings_all_or_none() -> None:
    unrated = [(user, item, None, time) for user, item, _, time in ROWS]
    assert np.isnan(InteractionTable.from_rows(interactions(unrated), ITEMS).rating).all()
    with pytest.raises(DataError, match=r"'rating' is missing or not a number: line 3"):
        InteractionTable.from_rows(interactions([*ROWS[:2], unrated[2]]), ITEMS)
    with pytest.raises(DataError, match="no rows"):
        InteractionTable.from_rows([], ITEMS)


def test_batches_of_rows_are_one_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("fedrec.data.interactions._BATCH_ROWS", 2)
    monkeypatch.setattr("fedrec.data.columns._BATCH_ROWS", 2)
    assert table().n_rows == 3
    for name, make in (("x.csv", as_csv), ("x.parquet", as_parquet)):
        make(tmp_path / name)
        assert read_interactions(tmp_path / name, COLUMNS, ITEMS).hash == table().hash
    rows = {"user": ["u"] * 3, "item": ["a", "b", "zzz"], "rating": [1.0] * 3, "timestamp": [1.0] * 3}
    pq.write_table(pa.table(rows), tmp_path / "y.parquet")
    assert "row 3" in refused(tmp_path / "y.parquet")


@pytest.mark.parametrize(
    "wrong", [{"user": ""}, {"item": ""}, {"rating": np.inf}, {"rating": np.nan}, {"timestamp": np.nan}]
)
def test_an_interaction_names_only_its_line(wrong: dict[str, Any]) -> None:
    right = {"user": "SECRET", "item": "SECRET", "rating": 1.0, "timestamp": 1.0, "line": 7}
    assert repr(Interaction(**right)) == "Interaction(<private>)"  # type: ignore[arg-type]
    with pytest.raises(DataError, match="line 7") as caught:
        Interaction(**{**right, **wrong})
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"user_codes": np.array([1, 0, 2], np.int32)},
        {"user_codes": np.array([1, 1, 1], np.int32)},
        {"user_codes": np.array([1, 0, 1], np.int64)},
        {"item_codes": np.array([1, 0, 3], np.int32)},
        {"item_codes": np.array([1, 0, -1], np.int32)},
        {"item_codes": np.array([1, 0], np.int32)},
        {"rating": np.array([1, np.nan, 2], np.float32)},
        {"rating": np.array([1, np.inf, 2], np.float32)},
        {"timestamp": np.array([1, 2, np.nan])},
        {"timestamp": np.array([1, 2, 1e11])},
        {"item_codes": np.array([1, 1, 1], np.int32), "timestamp": np.array([5.0, 5.0, 5.0])},
        {"user_ids": ("u2", "u1")},
        {"user_ids": ("u", "u ")},
        {"user_ids": ("", "u")},
        {"user_ids": ("u",)},
    ],
)
def test_a_table_refuses_what_does_not_fit(wrong: dict[str, Any]) -> None:
    right = table()
    assert repr(right) == "InteractionTable(<private>)"
    with pytest.raises(DataError):
        replace(right, **wrong)


def test_the_hash_sees_every_value_and_no_order() -> None:
    first = table()
    assert InteractionTable.from_rows(interactions(ROWS[::-1]), ITEMS).hash == first.hash
    for place, value in enumerate(("u9", "c", 2.0, 9.0)):
        changed = [*ROWS[:2], (*ROWS[2][:place], value, *ROWS[2][place + 1 :])]
        assert InteractionTable.from_rows(interactions(changed), ITEMS).hash != first.hash  # type: ignore[arg-type]
    assert replace(first, item_ids=("a", "b", "d")).hash != first.hash
    assert replace(first, user_ids=("u1", "u3")).hash != first.hash
    zeros = [InteractionTable.from_rows(interactions([("u", "a", zero, zero)]), ITEMS) for zero in (0.0, -0.0)]
    assert zeros[0].hash == zeros[1].hash


def test_a_stored_table_comes_back_and_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.parquet"
    for stored in (table(), InteractionTable.from_rows(interactions([("u", "a", None, 0.1)]), ITEMS)):
        write_interactions(stored, path)
        assert read_stored_interactions(path, ITEMS).hash == stored.hash
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["rows.parquet"]


def test_stored_tables_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    write_interactions(table(), path)
    with pytest.raises(DataError, match="another catalogue"):
        read_stored_interactions(path, replace(ITEMS, ids=("a", "b", "d")))
    stored = pq.read_table(path)
    facts = {key: fact for key, fact in pq.read_metadata(path).metadata.items() if key.startswith(b"fedrec.")}
    for change, reason in (
        ({b"fedrec.format": b"2"}, "has format 2, this fedrec reads 1"),
        ({b"fedrec.hash": b"0"}, "damaged"),
        ({b"fedrec.content": b"catalog"}, "no interactions written by fedrec"),
    ):
        pq.write_table(stored.replace_schema_metadata({**facts, **change}), path)
        with pytest.raises(DataError, match=reason):
            read_stored_interactions(path, ITEMS)
    as_parquet(path)
    with pytest.raises(DataError, match="no interactions written by fedrec"):
        read_stored_interactions(path, ITEMS)


def test_a_full_disk_leaves_the_older_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.parquet"
    write_interactions(table(), path)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        write_interactions(InteractionTable.from_rows(interactions(ROWS[:1]), ITEMS), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["rows.parquet"]
