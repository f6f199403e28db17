"""Per-user gradients taken inside the trained layers, in the backward pass that computes them anyway.

Opacus's hooks keep every layer's input and output gradient and take the per-user products afterwards, while autograd
still computes the sum that nobody needs. Here the layer's own backward makes the per-user product instead of the sum:
the same multiplications as a plain step.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from opacus.grad_sample.grad_sample_module import GradSampleHooks, promote_current_grad_sample
from torch import Tensor, nn
from torch.nn import functional as F

from fedrec.errors import PrivacyError

_Sink = Callable[[Tensor, Tensor], None]


class UserGradSampleHooks(GradSampleHooks):  # type: ignore[misc]  # Opacus ships no types
    """Opacus's hooks with a faster capture: `grad_sample` `[users, ...]` on every tensor of the trained layers.

    What Opacus reads (`grad_sample`, its list after several backward passes, `cleanup`) is there, so that its
    DPOptimizer and its accountants work unchanged. Where a user has several rows, call `users_of_rows` before backward.

    Args:
        model: every trainable tensor of it must belong to an `nn.Linear` or a dense `nn.Embedding`. A user's gradient
            of an embedding is the whole table, so that noise covers every row, whatever was looked up.
    Raises: PrivacyError: a trained layer of another type.
    Reference: Goodfellow 2015, arXiv:1510.01799; Yousefpour et al. 2021, arXiv:2109.12298, section 2.
    """

    def __init__(self, model: nn.Module) -> None:
        self._rows: tuple[Tensor, int] | None = None
        # "sum": the loss is one number a user, so that nothing is multiplied by the batch size.
        super().__init__(model, loss_reduction="sum", strict=True)

    def users_of_rows(self, user_of_row: Tensor, n_users: int) -> None:
        """From now on row `i` belongs to user `user_of_row[i]`, int64 `[rows]`, each below `n_users`.

        All rows of a user must be in one backward pass: two passes would give the user two clipped contributions.
        """
        self._rows = (user_of_row, n_users)

    def add_hooks(self, **_options: Any) -> None:
        """Let every trained layer run through `_PerUserLinear` or `_PerUserEmbedding`."""
        trained = list(self.iterate_submodules(self._module))
        if wrong := sorted({type(layer).__name__ for layer in trained if type(layer) not in (nn.Linear, nn.Embedding)}):
            reason = f"layers of type {', '.join(wrong)} have no per-user gradient here"
            raise PrivacyError(reason, "train the LoRA or head part, or others without privacy")
        for layer in trained:
            if isinstance(layer, nn.Linear):
                layer.forward = partial(_forward, layer, partial(self._take, layer))  # type: ignore[method-assign]
            elif isinstance(layer, nn.Embedding):
                layer.forward = partial(_embed, layer, partial(self._take_rows, layer))  # type: ignore[method-assign]
        self._captured = trained

    def remove_hooks(self) -> None:
        """Give the layers their own forward back."""
        for layer in self._captured:
            del layer.forward

    def iterate_submodules(self, module: nn.Module) -> Iterable[nn.Module]:
        """Every module that has a trainable tensor of its own."""
        return (m for m in module.modules() if any(p.requires_grad for p in m.parameters(recurse=False)))

    def _take(self, layer: nn.Linear, inputs: Tensor, grads: Tensor) -> None:
        """Called once for each use of a layer, in backward."""
        if layer.weight.requires_grad:
            self._add(layer.weight, _row_products(grads, inputs))
        if layer.bias is not None and layer.bias.requires_grad:
            self._add(layer.bias, grads.flatten(1, -2).sum(1) if grads.dim() > 2 else grads)

    def _take_rows(self, layer: nn.Embedding, indices: Tensor, grads: Tensor) -> None:
        of_rows = grads.new_zeros(len(grads), *layer.weight.shape)
        places = indices.flatten(1).unsqueeze(2).expand(-1, -1, grads.shape[-1])
        self._add(layer.weight, of_rows.scatter_add_(1, places, grads.flatten(1, -2)))

    def _add(self, parameter: Tensor, of_rows: Tensor) -> None:
        if self._rows is not None:
            user_of_row, n_users = self._rows
            of_users = of_rows.new_zeros(n_users, *of_rows.shape[1:])
            of_rows = of_users.index_add_(0, user_of_row, of_rows)
        known = getattr(parameter, "_current_grad_sample", None)
        parameter._current_grad_sample = of_rows if known is None else known + of_rows  # type: ignore[attr-defined]
        parameter._forward_counter -= 1  # type: ignore[attr-defined]
        if parameter._forward_counter == 0:  # type: ignore[attr-defined]  # a layer used twice has one gradient
            promote_current_grad_sample(parameter)


class _PerUserLinear(torch.autograd.Function):
    """A linear layer whose backward gives input and output gradient to a sink instead of summing over users."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None, sink: _Sink) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.sink = sink
        return F.linear(inputs, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None, None]:
        inputs, weight = ctx.saved_tensors
        ctx.sink(inputs, grads[0])
        return grads[0] @ weight if ctx.needs_input_grad[0] else None, None, None, None


class _PerUserEmbedding(torch.autograd.Function):
    """An embedding whose backward gives indices and output gradient to a sink instead of summing over users."""

    @staticmethod
    def forward(ctx: Any, indices: Tensor, weight: Tensor, sink: _Sink) -> Tensor:
        ctx.save_for_backward(indices)
        ctx.sink = sink
        return F.embedding(indices, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, None]:
        (indices,) = ctx.saved_tensors
        ctx.sink(indices, grads[0])
        return None, None, None


def _embed(layer: nn.Embedding, sink: _Sink, indices: Tensor) -> Tensor:
    if not (layer.training and torch.is_grad_enabled()):
        return F.embedding(indices, layer.weight)
    layer.weight._forward_counter += 1  # type: ignore[attr-defined]  # Opacus's own count
    return _PerUserEmbedding.apply(indices, layer.weight, sink)  # type: ignore[no-any-return,no-untyped-call]


def _forward(layer: nn.Linear, sink: _Sink, inputs: Tensor) -> Tensor:
    if not (layer.training and torch.is_grad_enabled()):
        return F.linear(inputs, layer.weight, layer.bias)
    for parameter in layer.parameters():
        if parameter.requires_grad:
            parameter._forward_counter += 1  # type: ignore[attr-defined]  # Opacus's own count
    return _PerUserLinear.apply(inputs, layer.weight, layer.bias, sink)  # type: ignore[no-any-return,no-untyped-call]


def _row_products(grads: Tensor, inputs: Tensor) -> Tensor:
    """`[rows, ..., out]` and `[rows, ..., in]` -> `[rows, out, in]`, summed over what lies between."""
    if grads.dim() == 2:
        return grads.unsqueeze(2) * inputs.unsqueeze(1)
    grads, inputs = grads.flatten(1, -2), inputs.flatten(1, -2)
    # The CPU's batched product is ten times slower with LoRA's rank as its last dimension than as its first.
    if grads.shape[2] <= inputs.shape[2]:
        return grads.transpose(1, 2) @ inputs
    return (inputs.transpose(1, 2) @ grads).transpose(1, 2)
