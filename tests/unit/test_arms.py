"""Arms: shares, stability, and a comparison with published figures."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2_contingency

from fedrec.errors import ConfigError, DataError
from fedrec.recommend.arms import arm_of, compare_arms, wilson

SHARES = (("a", 0.2), ("b", 0.5), ("c", 0.3))


def test_shares_are_kept_and_another_salt_shuffles() -> None:
    arms = [arm_of(f"u{i}", SHARES, "one") for i in range(20_000)]
    others = [arm_of(f"u{i}", SHARES, "two") for i in range(20_000)]
    for name, share in SHARES:
        assert arms.count(name) / 20_000 == pytest.approx(share, abs=0.015)
    same = np.mean([a == b for a, b in zip(arms, others, strict=True)])
    assert same == pytest.approx(sum(share**2 for _, share in SHARES), abs=0.015)


def test_the_arm_of_a_user_never_changes() -> None:
    assert [arm_of(user, SHARES, "s") for user in ("ann", "bob", "cid", "dan")] == ["a", "b", "c", "c"]
    assert arm_of("ann", (), "s") == "default"
    assert arm_of("ann", (("only", 1.0),), "s") == "only"


@pytest.mark.parametrize("shares", [(("a", 0.5),), (("a", 1.5), ("b", -0.5)), (("a", float("nan")),)])
def test_shares_that_are_none_are_refused(shares: tuple[tuple[str, float], ...]) -> None:
    with pytest.raises(ConfigError):
        arm_of("ann", shares, "s")


def test_wilson_is_the_published_interval() -> None:
    low, high = wilson(29, 1)  # Newcombe 1998, table I, 1 of 29
    assert (low, high) == (pytest.approx(0.0061, abs=1e-4), pytest.approx(0.1718, abs=1e-4))
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(10, 0)[0] == 0
    assert wilson(10, 10)[1] == 1


@given(st.integers(1, 2000), st.integers(1, 2000), st.floats(0, 1), st.floats(0, 1))
def test_the_test_is_chi_squared(shown: int, other: int, rate: float, other_rate: float) -> None:
    clicked, other_clicked = int(rate * shown), int(other_rate * other)
    second = compare_arms({"a": (shown, clicked), "b": (other, other_clicked)}).arms[1]
    assert second.low <= second.rate <= second.high
    table = [[clicked, shown - clicked], [other_clicked, other - other_clicked]]
    if 0 < clicked + other_clicked < shown + other:
        assert second.p_value == pytest.approx(chi2_contingency(table, correction=False).pvalue, abs=1e-9)
    else:
        assert second.p_value == 1


def test_nothing_shown_tells_nothing() -> None:
    found = compare_arms({"a": (0, 0), "b": (10, 2)}).to_dict()["arms"]
    assert [arm["p_value"] for arm in found] == [1.0, 1.0]
    assert compare_arms({}).arms == ()
    with pytest.raises(DataError, match="arm a"):
        compare_arms({"a": (1, 2)})
