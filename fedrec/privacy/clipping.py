"""Each user's say is bounded: scale, add up, and carry the bound along."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedrec.errors import PrivacyError

# Users are scaled to a millionth below the norm: the float32 roundings of factor and product stay below that.
_MARGIN = 1 - 2**-20
# Below, float32 has fewer digits than the margin needs: such a giant's direction is dropped.
_LEAST_FACTOR = 2.0**-126
# Numbers held in float64 at a time while norms are taken: 1 MB, whatever the size of a layer.
_BLOCK = 2**17


@dataclass(frozen=True, eq=False)
class BoundedSum:
    """A sum over users that one user can move by at most `l2_norm_bound`. Private until noised; usable once.

    Args:
        value: float32 `[params]`, private.
        l2_norm_bound: sensitivity for adding or removing one user; gradient units, finite and > 0, public.
    Raises: ValueError: another shape or dtype, or a bound out of range.
    """

    value: Tensor = field(repr=False)
    l2_norm_bound: float
    # Popping is atomic: of two threads only one gets the sum.
    _uses_left: list[None] = field(default_factory=lambda: [None], init=False, repr=False)

    def __post_init__(self) -> None:
        _check_norm(self.l2_norm_bound)
        if self.value.dim() != 1 or self.value.dtype != torch.float32:
            raise ValueError(f"value must be float32 [params], is {self.value.dtype} {list(self.value.shape)}")

    def consume(self) -> Tensor:
        """The value, once. For `noise.add_noise` and `plus` alone.

        Raises: PrivacyError: it was used before: noise on one sum twice would be paid once and averaged away.
        """
        try:
            self._uses_left.pop()
        except IndexError:
            raise PrivacyError("a bounded sum was used twice", "clip and sum again; it costs again") from None
        return self.value

    def plus(self, other: "BoundedSum") -> "BoundedSum":
        """The sum over the users of both; uses both up.

        The caller guarantees that no user is in both: one who is could move the result by twice the bound.

        Raises: PrivacyError: the bounds or shapes differ, or one was used before.
        """
        if self.l2_norm_bound != other.l2_norm_bound or self.value.shape != other.value.shape:
            raise PrivacyError("the bounds or shapes of two bounded sums differ", "clip all users alike")
        return BoundedSum(self.consume() + other.consume(), self.l2_norm_bound)


@torch.no_grad()
def clip_and_sum(per_user_grads: Tensor | Sequence[Tensor], l2_clip_norm: float) -> BoundedSum:
    """Scale each user's gradient to L2 norm at most `l2_clip_norm`, then add them.

    Args:
        per_user_grads: `[users, params]`, or one tensor `[users, ...]` per parameter (the norm is over all of
            them, without a copy). Private; zero users is legal; non-finite rows count as zero.
        l2_clip_norm: gradient units, finite and > 0, public.
    Returns: float32 sum `[params]` (parameters flattened, in order) with `l2_norm_bound == l2_clip_norm`.
    Raises: ValueError: no tensor, not two-dimensional, different numbers of users, or a norm out of range.
    Privacy: sensitivity `l2_clip_norm` for adding or removing one user. Not private until noised. Each user's
        row stays below it exactly; the float32 rounding of the sum itself is not accounted for.
    Reference: Abadi et al. 2016, arXiv:1607.00133, Algorithm 1.
    """
    pieces = _pieces(per_user_grads)
    factors = clip_factors(pieces, l2_clip_norm)
    taken = torch.isfinite(factors)
    if not bool(taken.all()):  # zero times NaN is NaN: such rows are left out, not multiplied
        pieces, factors = [piece[taken] for piece in pieces], factors[taken]
    return BoundedSum(torch.cat([factors @ piece for piece in pieces]), l2_clip_norm)


def clip_and_add(total: BoundedSum, per_user_grads: Tensor | Sequence[Tensor]) -> BoundedSum:
    """`total` and one more microbatch, clipped alike; uses `total` up. No user may be in both: see `plus`."""
    return total.plus(clip_and_sum(per_user_grads, total.l2_norm_bound))


@torch.no_grad()
def clip_factors(pieces: Sequence[Tensor], l2_clip_norm: float) -> Tensor:
    """What each user's row is multiplied by: `min(1, l2_clip_norm / norm)`, a hair less; NaN if not finite.

    Args:
        pieces: float32 `[users, n]` each, private.
    Returns: float32 `[users]`, private.
    """
    _check_norm(l2_clip_norm)
    # Float64, since a float32 norm of many numbers errs by more than the margin, and overflows.
    norms = torch.stack([_squared_norms(piece) for piece in pieces]).sum(0).sqrt()
    factors = (l2_clip_norm * _MARGIN / norms).clamp(max=1.0)
    factors[factors < _LEAST_FACTOR] = 0.0
    return torch.where(torch.isfinite(norms), factors, math.nan).to(pieces[0].device, torch.float32)


def _squared_norms(piece: Tensor) -> Tensor:
    """float64 `[users]`, in blocks that stay in cache."""
    total = torch.zeros(len(piece), dtype=torch.float64)
    rows_at_a_time = max(1, _BLOCK // max(1, piece.shape[1]))
    for start in range(0, len(piece), rows_at_a_time):
        rows = piece[start : start + rows_at_a_time]
        for block in torch.split(rows, _BLOCK, dim=1):
            # On the CPU: Apple's GPU has no float64, and only one number a user comes back from others.
            total[start : start + rows_at_a_time] += _on_float64(block).square().sum(1).cpu()
    return total


def _on_float64(block: Tensor) -> Tensor:
    return block.cpu().double() if block.device.type == "mps" else block.double()


def _pieces(per_user_grads: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """Float32 `[users, n]` each; views where they were float32 already."""
    if isinstance(per_user_grads, Tensor):
        if per_user_grads.dim() != 2:
            raise ValueError(f"per_user_grads must be [users, params], has {per_user_grads.dim()} dimensions")
        per_user_grads = [per_user_grads]
    if not per_user_grads or any(piece.dim() == 0 for piece in per_user_grads):
        raise ValueError("per_user_grads needs at least one tensor [users, ...]")
    if len({len(piece) for piece in per_user_grads}) != 1:
        raise ValueError("per_user_grads have different numbers of users")
    # reshape(users, -1) would be ambiguous for zero users.
    return [p.detach().reshape(len(p), math.prod(p.shape[1:])).float() for p in per_user_grads]


def _check_norm(l2_clip_norm: float) -> None:
    if not 1e-30 <= l2_clip_norm <= 1e30:
        raise ValueError(f"l2_clip_norm must be > 0, finite and within float32, is {l2_clip_norm!r}")
