"""A small trained module over frozen inputs, and its tensors as the adapter part `task`."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from fedrec.errors import ModelError
from fedrec.model.adapter import AdapterSpec, AdapterState

PART = "task"


@dataclass(frozen=True)
class HeadShape:
    """Of a head. Public.

    Attributes:
        width: numbers of an input.
        outputs: numbers of a score: one for click and rating, the number of classes otherwise.
        hidden: width between two layers; 0 for one linear layer. Under privacy few numbers carry more.
        activation: between them; `none` makes the head a matrix of rank `hidden`.
    Raises: ModelError: naming every field out of range.
    """

    width: int
    outputs: int
    hidden: int = 0
    activation: Literal["tanh", "none"] = "tanh"

    def __post_init__(self) -> None:
        problems = [f"{name} must be at least 1" for name in ("width", "outputs") if getattr(self, name) < 1]
        problems += ["hidden must not be negative"] if self.hidden < 0 else []
        problems += [] if self.activation in ("tanh", "none") else ["activation must be tanh or none"]
        if problems:
            raise ModelError.of_all(problems, "mend the head's shape", "task head")


class TaskHead(nn.Module):
    """One linear layer, or two with a narrow place between them. Starts at a score of zero for every input.

    Args:
        shape: see there.
        seed: of the first of two layers, public.
    """

    def __init__(self, shape: HeadShape, seed: int = 0) -> None:
        super().__init__()
        self.shape = shape
        self.inner = nn.Linear(shape.width, shape.hidden, bias=shape.activation != "none") if shape.hidden else None
        self.outer = nn.Linear(shape.hidden or shape.width, shape.outputs)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.zero_()
            if self.inner is not None:
                weight = self.inner.weight
                weight.copy_(torch.randn(weight.shape, generator=generator) / math.sqrt(shape.width))

    def forward(self, inputs: Tensor) -> Tensor:
        """Float32 `[..., width]` -> scores `[..., outputs]`."""
        if self.inner is not None:
            inputs = self.inner(inputs)
            inputs = torch.tanh(inputs) if self.shape.activation == "tanh" else inputs
        scores: Tensor = self.outer(inputs)
        return scores


def head_spec(shape: HeadShape, inputs: str, inputs_hash: str, catalog_hash: str = "") -> AdapterSpec:
    """What a coordinator checks answers against.

    Args:
        inputs: in words, what reads the inputs: `click/smollm2-135m`, say.
        inputs_hash: identity of the recipe and of the frozen models and public data behind the inputs.
        catalog_hash: of the items, where there are any.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in head_state(TaskHead(shape)).tensors.items()}
    form = hashlib.sha256(json.dumps(asdict(shape), sort_keys=True).encode()).hexdigest()
    return AdapterSpec(inputs, form, catalog_hash, inputs_hash, {PART: shapes})


def head_state(head: TaskHead) -> AdapterState:
    """The head's weights as an adapter."""
    return AdapterState(
        {f"{PART}.{name}": np.array(p.detach().cpu().numpy(), np.float32) for name, p in head.named_parameters()}
    )


def write_head(head: TaskHead, state: AdapterState) -> None:
    """Give the head an adapter's weights. Raises ModelError: they are another head's, or not finite."""
    state.check(head_spec(head.shape, "head", ""))
    with torch.no_grad():
        for name, parameter in head.named_parameters():
            parameter.copy_(torch.from_numpy(state.tensors[f"{PART}.{name}"].copy()))


def score_rows(head: TaskHead, inputs: np.ndarray) -> np.ndarray:
    """Scores of rows, float32 `[rows, width]` -> float64 `[rows, outputs]`."""
    head.eval()
    with torch.no_grad():
        scores: np.ndarray = head(torch.from_numpy(np.ascontiguousarray(inputs, np.float32))).double().numpy()
    return scores
