"""What cannot be trained privately here, found before a row is read and refused with the reason."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from fedrec.errors import PrivacyError

_REMEDY = "train a plain LoRA adapter with a loss per user, or without privacy (mode none)"
# First weights that PEFT computes from training data.
_DATA_INITS = {"eva", "corda", "lora_ga"}


def refuse_unprivate(model: nn.Module, trained: Iterable[Tensor]) -> None:
    """Refuse a model whose training could not be bounded per user, or would tell more than its noised sum.

    Args:
        model: PEFT's, or any module.
        trained: those of its parameters that the plan trains.
    Raises: PrivacyError: every reason at once.
    """
    problems = [*_adapter_problems(model), *_layer_problems(model, {id(parameter) for parameter in trained})]
    if problems:
        raise PrivacyError.of_all(problems, _REMEDY, "this model cannot be trained privately")


def refuse_mixing(losses_of: Callable[[Tensor], Tensor], rows: Tensor) -> None:
    """Refuse a loss in which one user's number depends on another user: no clipping would bound that user's say.

    Tries it: with the last user's row changed, nobody else's loss may change.

    Args:
        losses_of: `[users, ...]` -> one loss a user, `[users]`, in training mode and without dropout.
        rows: public rows of at least two users, say random items; the last two must differ.
    Raises: PrivacyError: not one number a user, or a batch norm, in-batch negatives, a batch mean and the like.
    """
    with torch.no_grad():
        before = losses_of(rows)
        changed = torch.cat([rows[:-1], rows[-2:-1]])
        after = losses_of(changed)
    if before.shape != rows.shape[:1]:
        raise PrivacyError(
            f"the loss has shape {list(before.shape)}, not one number for each of {len(rows)} users", _REMEDY
        )
    if not torch.allclose(before[:-1], after[:-1], rtol=1e-5, atol=1e-6):
        raise PrivacyError("the loss of one user depends on another user's rows", _REMEDY)


def _adapter_problems(model: nn.Module) -> Iterator[str]:
    """What PEFT's own configuration says; it is compared in words, so that this file needs no PEFT."""
    configs: dict[str, Any] = getattr(model, "peft_config", {})
    for config in configs.values():
        kind = str(getattr(config.peft_type, "value", config.peft_type))
        if kind == "ADALORA":
            yield "AdaLoRA moves rank between layers by looking at gradients of all users, which is not noised"
        elif kind != "LORA":
            yield f"PEFT method {kind} has no per-user gradient here"
        if getattr(config, "use_dora", False):
            yield "DoRA divides by the norm of the whole weight, through which users' gradients mix"
        init = getattr(config, "init_lora_weights", True)
        if isinstance(init, str) and init in _DATA_INITS:
            yield f"init_lora_weights={init!r} computes the first weights from private data, unpaid"


def _layer_problems(model: nn.Module, trained: set[int]) -> Iterator[str]:
    for name, layer in model.named_modules():
        own = [parameter for parameter in layer.parameters(recurse=False) if id(parameter) in trained]
        if isinstance(layer, nn.modules.batchnorm._NormBase) and _uses_batch_statistics(layer):
            yield f"{name}: {type(layer).__name__} mixes the users of a batch"
        if getattr(layer, "gradient_checkpointing", False):
            yield f"{name}: gradient checkpointing runs a layer twice, so its users' gradients would be counted twice"
        if own and isinstance(layer, nn.Embedding):
            yield f"{name}: a trained embedding moves row by row: sparse, it tells what occurred"
        if own and isinstance(layer, nn.ParameterDict) and "embedding" in name:
            yield f"{name}: an adapter on an embedding moves row by row: sparse, it tells what occurred"


def _uses_batch_statistics(layer: nn.Module) -> bool:
    """Instance norm is of this class as well and looks at one user only, unless it keeps running statistics."""
    is_instance = isinstance(layer, nn.modules.instancenorm._InstanceNorm)
    return not is_instance or bool(getattr(layer, "track_running_stats", False))
