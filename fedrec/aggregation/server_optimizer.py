"""The coordinator's step: the mean difference as pseudo-gradient. Post-processing, so it costs no privacy."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import ConfigError, ModelError
from fedrec.model.adapter import AdapterDelta

# "step" (int64), and a float32 array for each tensor and moment; empty before the first step. To be saved.
OptimizerState = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True)
class ServerOptimizer:
    """How far a round moves the adapter; a pure function from (mean, state) to (difference, state).

    Attributes:
        kind: `sgd` is FedAvgM, m = momentum * m + mean; x += rate * m. Rate 1 and momentum 0 make it FedAvg.
            `nesterov` looks one step ahead, x += rate * (mean + momentum * m): the outer step of DiLoCo, for
            partners that train an epoch a round with AdamW.
            `adam` is FedAdam, x += rate * m / (sqrt(v) + tau), with Adam's bias correction. The paper omits
            it, but a private run has tens of rounds: too few for moments to forget that they began at zero.
        server_learning_rate: > 0.
        momentum: also Adam's beta1, in [0, 1).
        beta2: in [0, 1).
        tau: > 0; bounds the step where the second moment is small.
    Raises: ConfigError: naming every value out of range.
    Reference: Hsu et al. 2019, arXiv:1909.06335; Reddi et al. 2021, arXiv:2003.00295, Algorithm 2;
        Douillard et al. 2023, arXiv:2311.08105, Algorithm 1.

    >>> mean = AdapterDelta({"w": np.array([2.0, -8.0], np.float32)})
    >>> moved, state = ServerOptimizer("adam", server_learning_rate=0.5).step(mean, {})
    >>> moved.tensors["w"].round(3).tolist(), int(state["step"])
    ([0.5, -0.5], 1)
    """

    kind: Literal["sgd", "nesterov", "adam"]
    server_learning_rate: float
    momentum: float = 0.9
    beta2: float = 0.98
    tau: float = 1e-6

    def __post_init__(self) -> None:
        problems = [] if self.kind in ("sgd", "nesterov", "adam") else ["kind must be sgd, nesterov or adam"]
        positive = ("server_learning_rate", "tau")
        problems += [f"{n} must be finite and > 0" for n in positive if not 0 < getattr(self, n) < math.inf]
        problems += [f"{n} must be in [0, 1)" for n in ("momentum", "beta2") if not 0 <= getattr(self, n) < 1]
        if problems:
            raise ConfigError.of_all(problems, "mend the part's optimizer settings", "server optimizer")

    def step(self, mean: AdapterDelta, state: OptimizerState) -> tuple[AdapterDelta, OptimizerState]:
        """What to add to the adapter, and the state to hand to the next step.

        Args:
            mean: of the round's adapter differences, public to partners.
            state: what the last step of this part returned; empty before the first. Left as it is.
        Raises: ModelError: the state was made for tensors of other shapes.
        """
        step = int(state.get("step", 0)) + 1
        after: dict[str, NDArray[np.generic]] = {"step": np.array(step, np.int64)}
        moved = {}
        for name, gradient in mean.tensors.items():
            direction, moments = self._direction(name, gradient, state, step)
            moved[name] = np.float32(self.server_learning_rate) * direction
            after |= moments
        return AdapterDelta(moved), after

    def _direction(
        self, name: str, gradient: NDArray[np.float32], state: OptimizerState, step: int
    ) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float32]]]:
        """Where one tensor goes, and its moments afterwards."""
        beta1, beta2 = np.float32(self.momentum), np.float32(self.beta2)
        first_key, second_key = f"first.{name}", f"second.{name}"
        if self.kind != "adam":
            first = beta1 * _moment(state, first_key, gradient) + gradient
            ahead = gradient + beta1 * first if self.kind == "nesterov" else first
            return ahead, {first_key: first} if self.momentum else {}
        first = beta1 * _moment(state, first_key, gradient) + (1 - beta1) * gradient
        second = beta2 * _moment(state, second_key, gradient) + (1 - beta2) * np.square(gradient)
        unbiased = first / np.float32(1 - self.momentum**step)
        scale = np.sqrt(second / np.float32(1 - self.beta2**step)) + np.float32(self.tau)
        return unbiased / scale, {first_key: first, second_key: second}


def _moment(state: OptimizerState, key: str, gradient: NDArray[np.float32]) -> NDArray[np.float32]:
    """A moment so far; zero before the first step."""
    moment = state.get(key, np.zeros_like(gradient))
    if moment.shape != gradient.shape or moment.dtype != np.float32:
        raise ModelError(f"optimizer state {key!r} is another tensor's", "resume with the run's own state")
    return moment  # type: ignore[return-value]  # float32, just checked
