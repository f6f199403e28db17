"""One gradient per user: captured in the layers, then clipped, noised and stepped by Opacus's DPOptimizer."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.optimizers import DPOptimizer
from torch import nn

from fedrec.errors import PrivacyError
from fedrec.privacy.capture import UserGradSampleHooks
from fedrec.privacy.clipping import BoundedSum, clip_and_sum
from fedrec.privacy.integer_code import IntegerCode
from fedrec.privacy.integers import noised_integers
from fedrec.privacy.noise import NoiseSource, add_noise


@contextmanager
def per_user_gradients(model: nn.Module) -> Iterator[UserGradSampleHooks]:
    """Inside, `loss_vector.sum().backward()` leaves `grad_sample` `[users, ...]` on every trainable parameter.

    The first dimension of every trainable layer's input must be the rows: one a user, unless `users_of_rows` of what
    is yielded says whose they are. The model must be in training mode.
    Raises: PrivacyError: a layer whose users cannot be told apart (batch norm, say).
    """
    try:
        hooks = UserGradSampleHooks(model)
    except NotImplementedError as error:
        raise PrivacyError(
            "the model has layers that mix users, so no per-user gradient exists",
            "remove batch norm or buffers",
        ) from error
    try:
        yield hooks
    finally:
        hooks.cleanup()


class UserDPOptimizer(DPOptimizer):  # type: ignore[misc]  # Opacus ships no types
    """Opacus's DPOptimizer with our bounded sum and keyed noise; many microbatches make one private step.

    Args:
        parameters: the trained tensors, in a fixed order.
        learning_rate: multiplies the noised SUM over users: public, never divided by the (private) user count.
        l2_clip_norm: of each user's whole gradient; gradient units.
        noise_std: of each coordinate of the sum; a partner's own share under secure aggregation.
        source: keyed noise.
    Privacy: one `step` releases one Gaussian mechanism of sensitivity `l2_clip_norm`; an empty sample too.
    Reference: Abadi et al. 2016, arXiv:1607.00133, Algorithm 1.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        *,
        learning_rate: float,
        l2_clip_norm: float,
        noise_std: float,
        source: NoiseSource,
    ) -> None:
        super().__init__(
            torch.optim.SGD(parameters, lr=learning_rate),
            noise_multiplier=noise_std / l2_clip_norm,
            max_grad_norm=l2_clip_norm,
            expected_batch_size=None,
            loss_reduction="sum",
        )
        self._noise_std = noise_std
        self._source = source
        self._sum = self._empty_sum()

    def _empty_sum(self) -> BoundedSum:
        total = sum(p.numel() for p in self.params)
        return BoundedSum(torch.zeros(total, device=self.params[0].device), self.max_grad_norm)

    def clip_and_accumulate(self) -> None:
        """Clip the users of the last backward pass and add them to the step's sum. Users must not come twice."""
        if any(getattr(parameter, "_forward_counter", 0) for parameter in self.params):
            raise PrivacyError("a layer ran without its backward pass", "run backward after every forward pass")
        self._sum = self._sum.plus(clip_and_sum(self.grad_samples, self.max_grad_norm))
        for parameter in self.params:
            parameter.grad_sample = None

    def add_noise(self) -> None:
        """Noise the whole sum once; the parameters' `grad` is all that remains of the users."""
        noised = add_noise(self._sum, self._noise_std, self._source)
        self._sum = self._empty_sum()
        pieces = torch.split(noised, [p.numel() for p in self.params])
        for parameter, piece in zip(self.params, pieces, strict=True):
            parameter.grad = piece.view_as(parameter).to(parameter.dtype)

    def noised_integers(self, code: IntegerCode) -> NDArray[np.int64]:
        """The step's sum as noised integers, int64 `[params]` in the order of the parameters, in place of a step."""
        integers = noised_integers(self._sum, self._noise_std, code, self._source)
        self._sum = self._empty_sum()
        return integers

    def pre_step(self, closure: None = None) -> bool:  # noqa: ARG002  # Opacus's signature
        """Noise what was accumulated; true for an empty sample too, which still costs its step."""
        self.add_noise()
        return True
