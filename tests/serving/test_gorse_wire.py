"""What Gorse's clients write: items, moments and durations, read and told again."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedrec_client.serving.api.gorse.moments import read_duration, read_moment, tell_moment
from fedrec_client.serving.api.gorse.wire import ItemPatch, ItemSent, changes_of, item_of, tell_item
from tests.serving.test_gorse import ITEM

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("labels"), inner),
    max_leaves=8,
)


@given(labels=JSON, comment=st.text(), categories=st.lists(st.text()))
def test_every_item_comes_back_and_an_empty_patch_changes_nothing(
    labels: Any, comment: str, categories: list[str]
) -> None:
    sent = {**ITEM, "Labels": labels, "Comment": comment, "Categories": categories}
    item = item_of(ItemSent.model_validate(sent))
    assert tell_item(item) == sent
    assert changes_of(item, ItemPatch()) == {}


@given(st.integers(-(10**9), 4 * 10**9).filter(bool), st.integers(0, 999_999))
def test_moments_come_back_to_the_microsecond(seconds: int, micros: int) -> None:
    moment = seconds + micros / 1e6
    assert abs(read_moment(tell_moment(moment)) - moment) < 2e-6


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2020-02-02 20:20:02.02 +0000 UTC", "2020-02-02T20:20:02.02Z"),
        ("Mon, 02 Jan 2006 15:04:05 -0700", "2006-01-02T22:04:05Z"),
        ("Mon Jan  2 15:04:05 2006", "2006-01-02T15:04:05Z"),
        ("3/31/2014", "2014-03-31T00:00:00Z"),
        ("20140722105203", "2014-07-22T10:52:03Z"),
        ("1384216367111222333", "2013-11-12T00:32:47.111222Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        (None, "0001-01-01T00:00:00Z"),
        (1384216367, "2013-11-12T00:32:47Z"),
    ],
)
def test_moments_are_read_in_many_formats(text: object, moment: str) -> None:
    assert tell_moment(read_moment(text)) == moment


@pytest.mark.parametrize(
    "text", ["now", "10", "20:00", "2020-13-01", "2020-02-02T20:20:02+25:00", "x" * 99, [], "9" * 30]
)
def test_what_is_no_moment_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match=r"is|names"):
        read_moment(text)


@pytest.mark.parametrize("text", ["10", "m", "10m ago", "1h 3m", "9" * 40 + "h", "-", "1.m.", "٣m"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is"):
        read_duration(text)
