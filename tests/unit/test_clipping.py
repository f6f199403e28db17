"""Bounded sums against the slow oracle: one user at a time, in float64."""

import math

import pytest
import torch
from torch import Tensor

from fedrec.errors import PrivacyError
from fedrec.privacy import clipping
from fedrec.privacy.clipping import BoundedSum, clip_and_add, clip_and_sum, clip_factors


def oracle(rows: Tensor, l2_clip_norm: float) -> Tensor:
    """Abadi et al. 2016, Algorithm 1, a user at a time."""
    total = torch.zeros(rows.shape[1], dtype=torch.float64)
    for row in rows.double():
        if bool(torch.isfinite(row).all()):
            total += row / max(1.0, float(row.norm()) / l2_clip_norm)
    return total


def made_rows(users: int, params: int) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(users, params, generator=generator) * torch.logspace(-3, 3, users).unsqueeze(1)


def test_equals_one_user_at_a_time() -> None:
    rows = made_rows(50, 7)
    found = clip_and_sum(rows, 0.5)
    assert found.l2_norm_bound == 0.5
    torch.testing.assert_close(found.value.double(), oracle(rows, 0.5), rtol=1e-5, atol=1e-5)


def test_no_row_exceeds_the_bound_by_rounding() -> None:
    """10,000 rows just around the bound: the exact norm of every scaled row stays below it."""
    generator = torch.Generator().manual_seed(4)
    rows = torch.randn(10_000, 11, generator=generator)
    rows *= (0.3 * (1 + 1e-6 * torch.randn(10_000, generator=generator)) / rows.norm(dim=1)).unsqueeze(1)
    assert float((rows.double().norm(dim=1) > 0.3).float().mean()) > 0.2
    scaled = rows * clip_factors([rows], 0.3).unsqueeze(1)
    assert float(scaled.double().norm(dim=1).max()) <= 0.3
    assert float(scaled.double().norm(dim=1).min()) > 0.3 * (1 - 1e-5)


def test_norm_of_a_long_row_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """A float32 norm of a million equal numbers may be off by more than the margin; no block is lost."""
    monkeypatch.setattr(clipping, "_BLOCK", 1000)
    rows = torch.full((2, 10**6 + 1), 0.1)
    exact = rows[0].double().norm()
    assert float(clip_factors([rows], 1.0)[1] * exact) == pytest.approx(1.0, abs=2e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_non_finite_row_counts_as_zero(bad: float) -> None:
    rows = made_rows(5, 3)
    expected = oracle(rows[[0, 1, 2, 4]], 1.0)
    rows[3, 1] = bad
    torch.testing.assert_close(clip_and_sum(rows, 1.0).value.double(), expected, rtol=1e-5, atol=1e-6)
    assert float(rows[3, 0]) != 0.0  # the caller's rows stay as they were


def test_a_giant_row_is_clipped_not_dropped() -> None:
    """Its norm overflows float32 but not float64."""
    found = clip_and_sum(torch.full((1, 4), 1e30), 1.0)
    torch.testing.assert_close(found.value, torch.full((4,), 0.5))


def test_a_factor_too_small_for_float32_cannot_round_up() -> None:
    rows = torch.linspace(1e38, 3e38, 100).unsqueeze(1)
    for row in rows:
        assert float(clip_and_sum(row.unsqueeze(0), 1e-5).value) <= 1e-5


def test_list_of_parameters_is_clipped_over_all_of_them() -> None:
    generator = torch.Generator().manual_seed(5)
    pieces = [torch.randn(6, *shape, generator=generator) for shape in [(2, 3), (), (4,)]]
    whole = torch.cat([piece.reshape(6, -1) for piece in pieces], dim=1)
    torch.testing.assert_close(clip_and_sum(pieces, 0.7).value, clip_and_sum(whole, 0.7).value)


def test_zero_users_give_zero() -> None:
    found = clip_and_sum([torch.zeros(0, 2, 3), torch.zeros(0, 1)], 1.0)
    torch.testing.assert_close(found.value, torch.zeros(7))


def test_microbatches_add_up() -> None:
    rows = made_rows(20, 4)
    total = clip_and_sum(rows[:0], 0.5)
    for part in torch.split(rows, 7):
        total = clip_and_add(total, part)
    assert total.l2_norm_bound == 0.5
    torch.testing.assert_close(total.value.double(), oracle(rows, 0.5), rtol=1e-5, atol=1e-5)


def test_sums_with_other_bounds_or_shapes_are_not_added() -> None:
    for other in (clip_and_sum(torch.ones(2, 3), 0.6), clip_and_sum(torch.ones(2, 4), 0.5)):
        with pytest.raises(PrivacyError, match="bounds or shapes"):
            clip_and_sum(torch.ones(2, 3), 0.5).plus(other)


def test_a_sum_that_was_added_is_used_up() -> None:
    first, second = clip_and_sum(torch.ones(1, 3), 1.0), clip_and_sum(torch.ones(1, 3), 1.0)
    first.plus(second)
    for used in (first, second):
        with pytest.raises(PrivacyError, match="twice"):
            used.consume()
    third = clip_and_sum(torch.ones(1, 3), 1.0)
    with pytest.raises(PrivacyError, match="twice"):
        third.plus(third)


def test_a_sum_says_its_bound_and_hides_its_value() -> None:
    assert repr(clip_and_sum(torch.full((1, 2), 7.0), 1.5)) == "BoundedSum(l2_norm_bound=1.5)"


@pytest.mark.parametrize("norm", [0.0, -1.0, math.nan, math.inf])
def test_a_norm_out_of_range_is_refused(norm: float) -> None:
    with pytest.raises(ValueError, match="l2_clip_norm"):
        clip_and_sum(torch.ones(1, 1), norm)


@pytest.mark.parametrize(
    "grads",
    [torch.ones(3), torch.ones(3, 2, 2), [], [torch.ones(3, 2), torch.ones(2, 2)], [torch.tensor(1.0)]],
    ids=["one dimension", "three dimensions", "nothing", "two counts of users", "a number"],
)
def test_wrong_shapes_are_refused(grads: Tensor | list[Tensor]) -> None:
    with pytest.raises(ValueError, match="per_user_grads"):
        clip_and_sum(grads, 1.0)


@pytest.mark.parametrize("value", [torch.ones(2, 2), torch.ones(2, dtype=torch.float64)])
def test_a_bounded_sum_is_float32_and_flat(value: Tensor) -> None:
    with pytest.raises(ValueError, match="float32"):
        BoundedSum(value, 1.0)


def test_half_precision_gradients_are_summed_in_float32() -> None:
    rows = torch.full((300, 1), 0.01, dtype=torch.bfloat16)
    expected = 300 * float(rows[0, 0])
    assert float(clip_and_sum(rows, 1.0).value) == pytest.approx(expected, rel=1e-5)
