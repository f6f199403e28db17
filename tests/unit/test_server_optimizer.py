"""The coordinator's step against torch's own optimizers, and its state through the registry's file format."""

from typing import Literal

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save

from fedrec.aggregation.server_optimizer import OptimizerState, ServerOptimizer
from fedrec.errors import ConfigError, ModelError
from fedrec.model.adapter import AdapterDelta, AdapterState

SHAPES: dict[str, tuple[int, ...]] = {"a": (3, 2), "b": (4,)}


def means(steps: int) -> list[AdapterDelta]:
    rng = np.random.default_rng(5)
    return [
        AdapterDelta({k: rng.standard_normal(s).astype(np.float32) for k, s in SHAPES.items()}) for _ in range(steps)
    ]


def start() -> AdapterState:
    return AdapterState({name: np.ones(shape, np.float32) for name, shape in SHAPES.items()})


def follow(optimizer: ServerOptimizer, steps: list[AdapterDelta]) -> tuple[AdapterState, OptimizerState]:
    adapter = start()
    state: OptimizerState = {}
    for mean in steps:
        moved, state = optimizer.step(mean, state)
        adapter = adapter.plus(moved)
    return adapter, state


def with_torch(optimizer: ServerOptimizer, steps: list[AdapterDelta]) -> dict[str, np.ndarray]:
    """The oracle: minus the mean difference is the gradient."""
    parameters = {k: torch.nn.Parameter(torch.from_numpy(v.copy())) for k, v in start().tensors.items()}
    rate = optimizer.server_learning_rate
    if optimizer.kind != "adam":
        ahead, momentum = optimizer.kind == "nesterov", optimizer.momentum
        oracle: torch.optim.Optimizer = torch.optim.SGD(parameters.values(), rate, momentum, nesterov=ahead)
    else:
        betas = (optimizer.momentum, optimizer.beta2)
        oracle = torch.optim.Adam(parameters.values(), lr=rate, betas=betas, eps=optimizer.tau)
    for mean in steps:
        for name, parameter in parameters.items():
            parameter.grad = -torch.from_numpy(mean.tensors[name].copy())
        oracle.step()
    return {name: parameter.detach().numpy() for name, parameter in parameters.items()}


@pytest.mark.parametrize(
    "optimizer",
    [
        ServerOptimizer("sgd", 0.3, momentum=0.0),
        ServerOptimizer("sgd", 0.3, momentum=0.9),
        ServerOptimizer("nesterov", 0.3, momentum=0.9),
        ServerOptimizer("adam", 0.03),
        ServerOptimizer("adam", 0.03, momentum=0.0, beta2=0.999, tau=1e-3),
    ],
    ids=str,
)
def test_it_steps_as_torch_does(optimizer: ServerOptimizer) -> None:
    adapter, _ = follow(optimizer, means(7))
    for name, expected in with_torch(optimizer, means(7)).items():
        np.testing.assert_allclose(adapter.tensors[name], expected, rtol=2e-5, atol=1e-6)


def test_rate_one_without_momentum_is_federated_averaging() -> None:
    (mean,) = means(1)
    moved, state = ServerOptimizer("sgd", 1.0, momentum=0.0).step(mean, {})
    assert moved.hash == mean.hash
    assert list(state) == ["step"]


@pytest.mark.parametrize("kind", ["sgd", "nesterov", "adam"])
def test_a_state_that_was_saved_goes_on_in_the_same_bits(kind: Literal["sgd", "nesterov", "adam"]) -> None:
    optimizer = ServerOptimizer(kind, 0.1)
    whole, state = follow(optimizer, means(4))
    _, half = follow(optimizer, means(4)[:3])
    moved, saved = optimizer.step(means(4)[3], load(save(dict(half))))
    unbroken, _ = optimizer.step(means(4)[3], half)
    assert moved.hash == unbroken.hash
    assert save(dict(saved)) == save(dict(state))
    assert int(saved["step"]) == 4
    assert whole.hash == follow(optimizer, means(4))[0].hash


def test_a_step_changes_neither_its_state_nor_its_mean() -> None:
    optimizer = ServerOptimizer("adam", 0.1)
    _, state = follow(optimizer, means(2))
    before, mean = save(dict(state)), means(1)[0]
    optimizer.step(mean, state)
    assert save(dict(state)) == before
    assert mean.hash == means(1)[0].hash


@pytest.mark.parametrize("kind", ["sgd", "nesterov", "adam"])
def test_a_zero_mean_moves_nothing_at_first(kind: Literal["sgd", "nesterov", "adam"]) -> None:
    zero = AdapterDelta({"a": np.zeros(2, np.float32)})
    moved, _ = ServerOptimizer(kind, 0.1).step(zero, {})
    assert moved.tensors["a"].tolist() == [0.0, 0.0]


def test_state_of_another_tensor_is_refused() -> None:
    _, state = ServerOptimizer("adam", 0.1).step(means(1)[0], {})
    with pytest.raises(ModelError, match=r"first\.a"):
        ServerOptimizer("adam", 0.1).step(AdapterDelta({"a": np.zeros(6, np.float32)}), state)


def test_every_setting_out_of_range_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        ServerOptimizer("lamb", 0.0, momentum=1.0, beta2=-0.1, tau=float("inf"))  # type: ignore[arg-type]  # refused
    for name in ("kind", "server_learning_rate", "momentum", "beta2", "tau"):
        assert f"- {name} must be" in str(caught.value)
