"""One step of LoRA, four ways, on the same users: plain, ours, Opacus's hooks, Opacus's ghost clipping."""

import ctypes
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from opacus.grad_sample import GradSampleHooksFastGradientClipping
from opacus.grad_sample.grad_sample_module import GradSampleHooks
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPTensorFastGradientClipping
from peft import PeftModel
from torch import nn

from fedrec.model.recommender import adapter_parameters, part_names, train_only, user_losses
from fedrec.privacy.gradients import UserDPOptimizer, per_user_gradients
from fedrec.privacy.noise import NoiseSource
from fedrec.training.batches import UserBatch, user_batches
from fedrec.training.local import MAX_TOKENS

WAYS = ("plain", "ours", "opacus_hooks", "opacus_ghost")
_CLIP, _NOISE, _RATE = 0.05, 1.0, 1e-9  # a rate so small that the model stands still over a run


@dataclass(frozen=True)
class StepBench:
    """A model off its silent start, and users in microbatches; each way steps over all of them.

    Attributes:
        model: in training mode; only `parameters` are trained.
        batches: every user once.
    """

    model: PeftModel
    parameters: tuple[nn.Parameter, ...]
    batches: tuple[UserBatch, ...]

    @classmethod
    def of(cls, model: PeftModel, histories: Sequence[np.ndarray], max_history: int) -> "StepBench":
        """The adapter is moved off its silent start first: its gradients are zero there, and any error hidden."""
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in adapter_parameters(model).values():
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator).to(parameter.device))
        parameters = tuple(train_only(model, part_names(model, ["lora"])).values())
        device = parameters[0].device
        batches = user_batches(histories, np.arange(len(histories)), max_history, MAX_TOKENS, device)
        model.train()
        return cls(model, parameters, tuple(batches))

    def step(self, way: str) -> None:
        """One whole step: forward, backward, clipping and noise where the way has them, update."""
        {"plain": self._plain, "ours": self._ours, "opacus_hooks": self._hooks, "opacus_ghost": self._ghost}[way]()
        for parameter in self.parameters:
            parameter.grad = None

    def oracle_errors(self) -> dict[str, float]:
        """How far our per-user gradients are from the oracle's, as the largest relative L2 error over all users.

        `alone`: of a user's whole gradient, which is what is clipped, against a pass with that user alone, unpadded.
        `same_pass`: of the worst single tensor, against autograd of that user's loss in the same padded pass; what is
        left is the capture's own error, without that of differently shaped matrix products.
        """
        alone, same_pass = [], []
        for found, batch in self._per_user():
            losses = self._losses(batch)
            for row in range(len(batch.users)):
                mine = [gradient[row] for gradient in found]
                same = torch.autograd.grad(losses[row], self.parameters, retain_graph=True)
                same_pass += [_relative_error(a, b) for a, b in zip(mine, same, strict=True)]
                alone.append(_relative_error(_flat(mine), _flat(self._alone(batch, row))))
        return {"alone": _largest(alone), "same_pass": _largest(same_pass)}

    def _alone(self, batch: UserBatch, row: int) -> tuple[torch.Tensor, ...]:
        length = int((batch.targets[row] >= 0).sum())
        items, targets = batch.items[row : row + 1, :length], batch.targets[row : row + 1, :length]
        return torch.autograd.grad(user_losses(self.model(items), targets).sum(), self.parameters)

    def _per_user(self) -> Iterator[tuple[list[torch.Tensor], UserBatch]]:
        for batch in self.batches:
            with per_user_gradients(self.model):
                self._losses(batch).sum().backward()  # type: ignore[no-untyped-call]  # torch's own
                found = [parameter.grad_sample for parameter in self.parameters]  # type: ignore[attr-defined]
            yield found, batch

    def _losses(self, batch: UserBatch) -> torch.Tensor:
        return user_losses(self.model(batch.items), batch.targets)

    def _plain(self) -> None:
        optimizer = torch.optim.SGD(self.parameters, lr=_RATE)
        for batch in self.batches:
            self._losses(batch).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def _ours(self) -> None:
        optimizer = UserDPOptimizer(
            self.parameters,
            learning_rate=_RATE,
            l2_clip_norm=_CLIP,
            noise_std=_NOISE * _CLIP,
            source=NoiseSource.fresh(b"bench"),
        )
        with per_user_gradients(self.model):
            for batch in self.batches:
                self._losses(batch).sum().backward()  # type: ignore[no-untyped-call]
                optimizer.clip_and_accumulate()
            optimizer.step()

    def _hooks(self) -> None:
        optimizer = DPOptimizer(torch.optim.SGD(self.parameters, lr=_RATE), **_OPACUS)
        hooks = GradSampleHooks(self.model, loss_reduction="sum")
        for batch in self.batches:
            optimizer.signal_skip_step(do_skip=batch is not self.batches[-1])
            self._losses(batch).sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
        hooks.cleanup()

    def _ghost(self) -> None:
        optimizer = DPOptimizerFastGradientClipping(torch.optim.SGD(self.parameters, lr=_RATE), **_OPACUS)
        hooks = GradSampleHooksFastGradientClipping(self.model, loss_reduction="sum", max_grad_norm=_CLIP)
        for batch in self.batches:
            optimizer.signal_skip_step(do_skip=batch is not self.batches[-1])
            hooks.enable_hooks()
            DPTensorFastGradientClipping(hooks, optimizer, self._losses(batch), "sum").backward()
            optimizer.step()
            optimizer.zero_grad()
        hooks.cleanup()


_OPACUS = {
    "noise_multiplier": _NOISE,
    "max_grad_norm": _CLIP,
    "expected_batch_size": None,
    "loss_reduction": "sum",
}


def _relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Zero where both are: attention over a single position has no gradient in its queries."""
    error, size = float((found - expected).norm()), float(expected.norm())
    if size == 0:
        return math.inf if error else 0.0
    return error / size


def _flat(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def _largest(errors: Sequence[float]) -> float:
    """Where `max` would pass over a NaN."""
    return float(np.max(errors))


def interleaved(step: Callable[[str], None], rounds: int, seed: int = 0) -> list[dict[str, float]]:
    """Seconds of each way, once a round, in a new order each round; the first round warms up and is dropped."""
    rng = np.random.default_rng(seed)
    return [{way: _seconds(step, way) for way in rng.permutation(WAYS)} for _ in range(rounds + 1)][1:]


def ratios(rounds: Sequence[dict[str, float]], over: str, way: str = "ours") -> dict[str, float]:
    """Median and quartiles of the paired ratios of a way over another."""
    paired = sorted(seconds[way] / seconds[over] for seconds in rounds)
    low, middle, high = statistics.quantiles(paired, n=4)
    return {"median": middle, "lower_quartile": low, "upper_quartile": high}


def peak_bytes(step: Callable[[str], None], way: str, device: torch.device) -> int | None:
    """How far memory rises above where it stood while a step runs; None where the system does not say.

    On the CPU: Linux's high-water mark of the process, reset before the step.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step(way)
        return int(torch.cuda.max_memory_allocated(device) - before)
    if not Path("/proc/self/clear_refs").exists():
        return None
    _give_back_freed_memory()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _status_bytes("VmRSS")
    step(way)
    return _status_bytes("VmHWM") - before


def _status_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(f"{name}:")))


def _give_back_freed_memory() -> None:
    """What glibc keeps of freed memory would be used again and hide the rise."""
    if os.uname().sysname == "Linux":
        ctypes.CDLL(None).malloc_trim(0)


def _seconds(step: Callable[[str], None], way: str) -> float:
    started = time.perf_counter()
    step(way)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started
