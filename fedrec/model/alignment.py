"""What an item's text says of public behaviour: a vector for items that no public person ever had. Costs no epsilon.

A linear map from text features into the space of behaviour vectors, learnt on the items that both know, so that an
item's text finds its own behaviour among those of all other public items, and a behaviour its text.
References: van den Oord et al. 2018, arXiv:1807.03748 (InfoNCE); Radford et al. 2021, arXiv:2103.00020 (both ways);
Wei et al. 2021, arXiv:2107.05315 (for items without behaviour).
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from fedrec.errors import ModelError
from fedrec.model.new_items import TextRegression

Floats = NDArray[np.float32]
_LEAST_ITEMS = 20
# Of the public items, held out to say when to stop.
_HELD_OUT = 0.1
# Norms below this are items that the public does not know.
_KNOWN = 1e-6


@dataclass(frozen=True)
class ContrastSettings:
    """Of the training; chosen on held-out public items.

    Attributes:
        temperature: of the likenesses, which are cosines.
        steps: of Adam over all public items at once; the best by the held-out loss is kept.
    """

    temperature: float = 0.8
    learning_rate: float = 0.01
    weight_decay: float = 0.01
    steps: int = 150


@dataclass(frozen=True)
class Alignment:
    """Text features to behaviour vectors.

    Attributes:
        weight: `[feature_dim, public_dim]`; bias: `[public_dim]`.
        scale: of the predicted directions; least squares, so that a direction of which texts say little stays short.
        held_out: share of held-out items whose own behaviour is among the ten likest of all held-out ones.
    """

    weight: Floats = field(repr=False)
    bias: Floats = field(repr=False)
    scale: float
    held_out: float

    def predict(self, texts: Floats) -> Floats:
        """Float32 `[items, feature_dim]` -> `[items, public_dim]`."""
        found = _unit(texts @ self.weight + self.bias) * self.scale
        return np.asarray(found, np.float32)


def align_contrastively(
    texts: Floats, behaviour: Floats, seed: int = 0, settings: ContrastSettings | None = None
) -> Alignment:
    """Learn the map by InfoNCE, with all other public items as negatives.

    Args:
        texts: float32 `[items, feature_dim]`; behaviour: float32 `[items, public_dim]`, zero where the public knows
            nothing: such items are left out.
        seed: of what is held out; public.
    Raises: ModelError: fewer than 20 items that the public knows.
    Privacy: reads public texts and published behaviour alone; costs no epsilon.
    """
    known, settings = _known(behaviour), settings or ContrastSettings()
    order = np.random.default_rng(seed).permutation(known)
    held = order[: max(2, round(_HELD_OUT * len(order)))]
    fitted = np.setdiff1d(known, held)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = nn.Linear(texts.shape[1], behaviour.shape[1])
    _train(layer, texts, behaviour, fitted, held, settings)
    weight, bias = layer.weight.detach().numpy().T.copy(), layer.bias.detach().numpy().copy()
    directions = _unit(texts[held] @ weight + bias)
    scale = float((directions * behaviour[held]).sum() / len(held))
    return Alignment(weight, bias, max(scale, 0.0), found_share(directions, behaviour[held]))


def align_by_regression(texts: Floats, behaviour: Floats) -> TextRegression:
    """The plain alternative: ridge regression, as new items get everything else. Raises: as above."""
    known = _known(behaviour)
    return TextRegression.fit(behaviour[known].astype(np.float64), np.ones(len(known)), texts[known])


def found_share(predicted: NDArray[np.floating], behaviour: Floats, k: int = 10) -> float:
    """Share of items whose own behaviour is among the k likest of all to what their text predicts."""
    alike = _unit(predicted) @ _unit(behaviour).T
    ranks = (alike > np.diag(alike)[:, None]).sum(1)
    return float((ranks < k).mean())


def _train(
    layer: nn.Linear,
    texts: Floats,
    behaviour: Floats,
    fitted: NDArray[np.int64],
    held: NDArray[np.int64],
    settings: ContrastSettings,
) -> None:
    """Leaves the layer as it was best on the held-out items."""
    inputs, wanted = torch.from_numpy(texts), torch.from_numpy(np.asarray(_unit(behaviour), np.float32))
    optimizer = torch.optim.AdamW(layer.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    best, kept = float("inf"), {name: value.clone() for name, value in layer.state_dict().items()}
    for _ in range(settings.steps):
        optimizer.zero_grad()
        _info_nce(layer(inputs[fitted]), wanted[fitted], settings.temperature).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        with torch.no_grad():
            loss = float(_info_nce(layer(inputs[held]), wanted[held], settings.temperature))
        if loss < best:
            best, kept = loss, {name: value.clone() for name, value in layer.state_dict().items()}
    layer.load_state_dict(kept)


def _info_nce(predicted: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    """Both ways; `wanted` of unit length."""
    logits = F.normalize(predicted, dim=1) @ wanted.T / temperature
    own = torch.arange(len(logits))
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def _known(behaviour: Floats) -> NDArray[np.int64]:
    known = np.flatnonzero(np.linalg.norm(behaviour, axis=1) > _KNOWN)
    if len(known) < _LEAST_ITEMS:
        raise ModelError(
            f"the public data know {len(known)} of the items, too few to learn from",
            "name larger public data in model.public_data",
        )
    return known


def _unit(rows: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9))
