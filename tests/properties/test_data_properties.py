"""What holds for all interactions: row order does not matter, users do not touch each other, parts add up."""

import csv
import io
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrec.data.catalog import ItemCatalog
from fedrec.data.interactions import ColumnMapping, Interaction, InteractionTable, read_interactions
from fedrec.data.partition import deal_users
from fedrec.data.sequences import build_sequences
from fedrec.data.splits import EvaluationSplit, leave_one_out, split_7_2_1, split_by
from fedrec.errors import DataError
from fedrec.evaluation.protocol import PROTOCOLS

IDS = tuple("abcdef")
ITEMS = ItemCatalog(IDS, IDS, IDS, ((),) * 6, (None,) * 6)
COLUMNS = ColumnMapping("user", "item", "rating", "timestamp")
Row = tuple[str, str, float, float]

ids = st.text(min_size=1, max_size=4).filter(lambda text: text == text.strip() and text.isprintable())
# Few users and times, so that ties are common; distinct rows.
rows = st.lists(
    st.tuples(
        st.sampled_from(["u1", "u2", "U2", "é", "10"]),
        st.sampled_from(IDS),
        st.floats(0, 5, width=32),
        st.sampled_from([0.0, 1.5, 1e9]),
    ),
    min_size=1,
    max_size=30,
    unique_by=lambda row: (row[0], row[1], row[3]),
)


def table(of: list[Row]) -> InteractionTable:
    return InteractionTable.from_rows([Interaction(*row, line=n) for n, row in enumerate(of, 1)], ITEMS)


def histories(of: list[Row], seed: int) -> dict[str, list[int]]:
    return {s.user: s.items.tolist() for s in build_sequences(table(of), seed)}


@settings(max_examples=50)
@given(rows, st.randoms(), st.integers())
def test_the_order_of_rows_changes_neither_hash_nor_sequences(of: list[Row], random: object, seed: int) -> None:
    shuffled = list(of)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert table(shuffled).hash == table(of).hash
    assert histories(shuffled, seed) == histories(of, seed)


@settings(max_examples=50)
@given(rows, st.integers(0, 3))
def test_a_user_more_or_fewer_changes_nobody_else(of: list[Row], seed: int) -> None:
    whole = histories(of, seed)
    for gone in whole:
        rest = [row for row in of if row[0] != gone]
        if rest:
            assert histories(rest, seed) == {user: items for user, items in whole.items() if user != gone}


@given(rows, st.integers(0, 3))
def test_sequences_are_the_rows_sorted_in_time(of: list[Row], seed: int) -> None:
    for sequence in build_sequences(table(of), seed):
        own = sorted((time, item) for user, item, _, time in of if user == sequence.user)
        found = [(time, IDS[item]) for time, item in zip(sequence.timestamps, sequence.items, strict=True)]
        assert sorted(found) == own
        assert [time for time, _ in found] == [time for time, _ in own]


@given(rows, st.sampled_from([leave_one_out, split_7_2_1]))
def test_the_parts_of_a_split_are_the_sequence(of: list[Row], split: object) -> None:
    sequences = build_sequences(table(of), 0)
    for sequence, parts in zip(sequences, split(sequences), strict=True):  # type: ignore[operator]
        assert np.concatenate([parts.history("test"), parts.test]).tolist() == sequence.items.tolist()
        assert len(parts.train) >= 1
        assert (len(parts.validation) > 0) == (len(parts.test) > 0) == (len(sequence) >= 3)


protocols = st.sampled_from(PROTOCOLS)


def split(of: list[Row], protocol: str, seed: int) -> dict[str, EvaluationSplit]:
    return {s.user: s for s in split_by(protocol, build_sequences(table(of), seed), seed)}  # type: ignore[arg-type]


def parts(of: EvaluationSplit) -> tuple[list[int], ...]:
    return of.train.tolist(), of.validation.tolist(), of.test.tolist(), of.history("test").tolist()


def is_in_order(part: list[int], whole: list[int]) -> bool:
    rest = iter(whole)
    return all(item in rest for item in part)


@given(rows, protocols, st.integers(0, 3))
def test_no_protocol_loses_an_item_or_its_place_in_time(of: list[Row], protocol: str, seed: int) -> None:
    whole = histories(of, seed)
    for user, found in split(of, protocol, seed).items():
        train, validation, test, known = parts(found)
        assert sorted(known + test) == sorted(train + validation + test) == sorted(whole[user])
        assert is_in_order(train, known)
        if protocol not in "AD":
            assert all(is_in_order(part, whole[user]) for part in (train, validation, test, known))
        else:  # elsewhere a later part may repeat an item, which then is not asked for
            assert not set(train) & set(validation) | (set(train) | set(validation)) & set(test)


@settings(max_examples=50)
@given(rows, st.sampled_from(["A", "B", "split721"]), st.integers(0, 3))
def test_a_user_more_or_fewer_changes_nobody_elses_split(of: list[Row], protocol: str, seed: int) -> None:
    whole = split(of, protocol, seed)
    for gone in whole:
        if rest := [row for row in of if row[0] != gone]:
            left = split(rest, protocol, seed)
            assert {u: parts(s) for u, s in left.items()} == {u: parts(s) for u, s in whole.items() if u != gone}


@given(rows, st.integers(0, 3))
def test_by_item_a_user_touches_the_users_of_the_same_items_only(of: list[Row], seed: int) -> None:
    whole = split(of, "D", seed)
    for gone in whole:
        touched = {row[1] for row in of if row[0] == gone}
        if rest := [row for row in of if row[0] != gone]:
            for user, now in split(rest, "D", seed).items():
                for name in ("train", "validation", "test"):
                    before, after = ({IDS[i] for i in getattr(s, name)} - touched for s in (whole[user], now))
                    assert before == after


@given(rows, st.integers(0, 3))
def test_by_item_each_item_has_its_shares(of: list[Row], seed: int) -> None:
    found = split(of, "D", seed).values()
    for code, item in enumerate(IDS):
        n_users = len({row[0] for row in of if row[1] == item})
        known = round(0.75 * n_users)
        sizes = [sum(code in getattr(s, part) for s in found) for part in ("train", "validation", "test")]
        assert sizes == [known - round(0.1 * known), round(0.1 * known), n_users - known]


@given(rows, st.integers(0, 3))
def test_one_time_for_all_has_no_part_before_another(of: list[Row], seed: int) -> None:
    whole, times = split(of, "global-time", seed), {}
    for sequence in build_sequences(table(of), seed):
        cuts = np.cumsum([len(whole[sequence.user].train), len(whole[sequence.user].validation)])
        for name, part in zip(("train", "validation", "test"), np.split(sequence.timestamps, cuts), strict=True):
            times.setdefault(name, []).extend(part.tolist())
    assert max(times["train"]) < min(times["validation"], default=np.inf)
    assert max(times["train"] + times["validation"]) < min(times["test"], default=np.inf)
    assert len(times["train"]) >= 0.8 * len(of)
    assert len(times["test"]) <= 0.1 * len(of)


@given(st.integers(1, 200), st.data())
def test_every_user_is_dealt_once_and_evenly(n_users: int, data: st.DataObject) -> None:
    dealt = deal_users(n_users, data.draw(st.integers(1, n_users)), data.draw(st.integers(0, 9)))
    assert sorted(np.concatenate(dealt).tolist()) == list(range(n_users))
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


def written(of: list[tuple[object, ...]], suffix: str) -> str:
    names = ("user", "item", "rating", "timestamp")
    if suffix == ".jsonl":
        return "".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in of)
    text = io.StringIO()
    csv.writer(text, delimiter="," if suffix == ".csv" else "\t").writerows([names, *of])
    return text.getvalue()


@settings(max_examples=40)
@given(
    st.lists(st.tuples(ids, st.sampled_from(IDS)), min_size=1, max_size=8),
    st.sampled_from([".csv", ".tsv", ".jsonl"]),
)
def test_any_printable_user_comes_through_text_files(pairs: list[tuple[str, str]], suffix: str) -> None:
    of = [(user, item, 1.0, float(time)) for time, (user, item) in enumerate(pairs)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"x{suffix}"
        path.write_text(written(list(of), suffix), encoding="utf-8", newline="")
        assert read_interactions(path, COLUMNS, ITEMS).hash == table(of).hash


SECRETS = ("zq-user", "zq-item", "zq-rating", "zq-time")


@given(
    st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=6),
    st.sampled_from([".csv", ".jsonl"]),
)
def test_errors_tell_lines_and_never_values(marks: list[list[bool]], suffix: str) -> None:
    right = ("zq-user", "a", 1.0)
    of = [
        tuple(secret if bad else good for bad, secret, good in zip(mark, SECRETS, (*right, time), strict=True))
        for time, mark in enumerate(marks)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"x{suffix}"
        path.write_text(written(list(of), suffix), encoding="utf-8")
        if not any(any(mark[1:]) for mark in marks):
            assert read_interactions(path, COLUMNS, ITEMS).n_rows == len(of)
            return
        with pytest.raises(DataError) as caught:
            read_interactions(path, COLUMNS, ITEMS)
    assert "zq-" not in str(caught.value)
    assert caught.value.__context__ is None
    first_line = 2 if suffix == ".csv" else 1
    for column, reason in ((1, "not in the catalogue"), (2, "not a number"), (3, "ISO 8601")):
        bad = [str(n) for n, mark in enumerate(marks, first_line) if mark[column]]
        told = [line for line in str(caught.value).splitlines() if reason in line]
        assert [line.rpartition(": line")[2].lstrip("s ") for line in told] == ([", ".join(bad)] if bad else [])
