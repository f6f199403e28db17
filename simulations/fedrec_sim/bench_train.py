"""How fast plain training is, beside what this machine's matrix products could do."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from torch.utils.flop_counter import FlopCounterMode

from fedrec.model.recommender import item_token_model, part_names
from fedrec.training.local import ContextCache, PlainSettings, train_plain

Json = dict[str, Any]
PHASES = {"everything": ("head", "lora", "projection"), "head": ("head",)}
_LONG_S = 0.05
_LARGEST = 8192


def measure(model: PeftModel, histories: Sequence[np.ndarray], settings: PlainSettings, *, repeats: int) -> Json:
    """Time an epoch of each phase and a large matrix product in turn; medians over the repeats, the first dropped.

    Args:
        model: with the shape of rows without privacy.
        histories: of the users of an epoch; private, nothing of them but their number and length is told.
    Returns: for each phase users and tokens a second, and `matmul_share`: useful operations (products and attention of
        forward and backward, none on padding) over what the machine's own products in the frozen weights' dtype
        would have done in that time. `head` has each user read already, as in all its epochs but the first.
    """
    dtype = next(item_token_model(model).backbone.parameters()).dtype
    device = item_token_model(model).features.device
    cache = ContextCache()
    _epoch(model, histories, settings, PHASES["head"], cache, 0)  # reads them
    useful = {phase: _useful_operations(model, histories, settings, parts, cache) for phase, parts in PHASES.items()}
    seconds: dict[str, list[float]] = {phase: [] for phase in PHASES}
    rates: dict[str, list[float]] = {name: [] for name in ("float32", "bfloat16")}
    for number in range(repeats + 1):
        for phase, parts in PHASES.items():
            started = time.perf_counter()
            _epoch(model, histories, settings, parts, cache, number)
            seconds[phase].append(time.perf_counter() - started)
        for name, found in rates.items():
            found.append(_matmul_rate(getattr(torch, name), device))
    rate = {name: statistics.median(found[1:]) for name, found in rates.items()}
    tokens = sum(min(len(history) - 1, settings.max_history) for history in histories if len(history) > 1)
    held = str(dtype).removeprefix("torch.")
    phases = {}
    for phase, found in seconds.items():
        typical = statistics.median(found[1:])
        phases[phase] = {
            "users_per_s": len(histories) / typical,
            "tokens_per_s": tokens / typical,
            "useful_operations": useful[phase],
            "matmul_share": useful[phase] / typical / rate[held],
            "seconds": [round(one, 4) for one in found[1:]],
        }
    return {
        "users": len(histories),
        "tokens": tokens,
        "repeats": repeats,
        "dtype": held,
        "threads": torch.get_num_threads(),
        "matmul_operations_per_s": rate,
        **{name: phases["everything"][name] for name in ("users_per_s", "tokens_per_s", "matmul_share")},
        "phases": phases,
    }


def _epoch(
    model: PeftModel,
    histories: Sequence[np.ndarray],
    settings: PlainSettings,
    parts: Sequence[str],
    cache: ContextCache,
    seed: int,
) -> None:
    names = part_names(model, parts)
    train_plain(model, names, histories, settings, epochs=1, rng=np.random.default_rng(seed), cache=cache)


def _useful_operations(
    model: PeftModel,
    histories: Sequence[np.ndarray],
    settings: PlainSettings,
    parts: Sequence[str],
    cache: ContextCache,
) -> float:
    """Operations of an epoch, two for each multiplication; one user a batch, so that nothing is padded."""
    with FlopCounterMode(display=False) as counter:
        _epoch(model, histories, replace(settings, batch_users=1), parts, cache, 0)
    return float(counter.get_total_flops())


def _matmul_rate(dtype: torch.dtype, device: torch.device) -> float:
    """Operations a second of a product so large that it takes `_LONG_S`: a processor without bf16 units is slow."""
    side, seconds = 128, 0.0
    while seconds < _LONG_S and side < _LARGEST:
        side *= 2
        left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        left @ right
        started = time.perf_counter()
        left @ right
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - started
    return 2 * side**3 / seconds
