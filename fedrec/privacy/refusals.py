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

    Tries it: each user's loss must be the same alone, beside the others, and beside others who are changed.

    Args:
        losses_of: `[users, ...]` -> one loss a user, `[users]`, in training mode and without dropout.
        rows: public rows of at least two users, say random items, no two alike.
    Raises: PrivacyError: not one number a user, or a batch norm, in-batch negatives, a batch mean and the like.
    """
    with torch.no_grad():
        together = losses_of(rows)
        if together.shape != rows.shape[:1]:
            found = f"the loss has shape {list(together.shape)}, not one number for each of {len(rows)} users"
            raise PrivacyError(found, _REMEDY)
        for user, row in enumerate(rows):
            others = torch.cat([rows[:user], rows[user + 1 :]]).flip(0)
            changed, shuffled = torch.cat([row[None], others[:1], others[:1]]), torch.cat([row[None], others])
            for beside in (changed, shuffled, row[None]):
                if not torch.allclose(losses_of(beside)[0], together[user], rtol=1e-4, atol=1e-5):
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
            yield "DoRA trains magnitudes beside LoRA, and no per-user gradient is captured for them"
        init = getattr(config, "init_lora_weights", True)
        if isinstance(init, str) and init in _DATA_INITS:
            yield f"init_lora_weights={init!r} computes the first weights from private data, unpaid"


def _layer_problems(model: nn.Module, trained: set[int]) -> Iterator[str]:
    for name, layer in model.named_modules():
        own = [parameter for parameter in layer.parameters(recurse=False) if id(parameter) in trained]
        if isinstance(layer, nn.modules.batchnorm._NormBase) and _uses_batch_statistics(layer):
            yield f"{name}: {type(layer).__name__} mixes the users of a batch"
        if getattr(layer, "gradient_checkpointing", False):
            yield f"{name}: gradient checkpointing runs layers anew in backward, where the capture may be missed"
        if own and isinstance(layer, nn.Embedding) and (layer.sparse or layer.scale_grad_by_freq or layer.max_norm):
            yield f"{name}: an embedding that is sparse, weighted by frequency or renormalised tells what occurred"
        if own and isinstance(layer, nn.ParameterDict) and "embedding" in name:
            yield f"{name}: an adapter on an embedding moves row by row: sparse, it tells what occurred"


def _uses_batch_statistics(layer: nn.Module) -> bool:
    """Instance norm is of this class as well and looks at one user only, unless it keeps running statistics."""
    is_instance = isinstance(layer, nn.modules.instancenorm._InstanceNorm)
    return not is_instance or bool(getattr(layer, "track_running_stats", False))
