"""How much each modality counts for an item: what turns a gate's logits into factors on the item's components."""

import torch
from torch import Tensor, nn

from fedrec.errors import ModelError
from fedrec.model.features import ItemFeatures


class Gating(nn.Module):
    """The public part of a gate between modalities; its few weights are a linear layer of the adapter's.

    A gate moves weight between the modalities that an item has and keeps the item's length: all logits alike give
    factors of 1, and an item with one modality alone has a factor of 1 there, whatever was learnt.

    Args:
        features: of the catalogue, with two modalities or more.
        gate_dim: leading components of each modality that the gate reads.
        public_dim: columns that come before the components and count as they are.
    Raises: ModelError: a modality has fewer components, or there is one alone.
    Reference: Arevalo et al. 2017, arXiv:1702.01992, with a softmax over the modalities that are there.
    """

    owner: Tensor
    columns: Tensor
    scale: Tensor

    def __init__(self, features: ItemFeatures, gate_dim: int, public_dim: int) -> None:
        super().__init__()
        names, owner = features.layout.names, torch.tensor(features.layout.columns, dtype=torch.int64)
        least = min((int((owner == number).sum()) for number in range(len(names))), default=0)
        if len(names) < 2 or gate_dim > least:
            raise ModelError(
                f"gate_dim {gate_dim} needs two modalities of as many components; there: {', '.join(names)}",
                "set model.modalities, or the shape's gate_dim to 0",
            )
        self.n_modalities, self.public_dim = len(names), public_dim
        columns = torch.cat([torch.nonzero(owner == number)[:gate_dim, 0] for number in range(len(names))])
        read = torch.from_numpy(features.vectors)[:, columns]
        self.register_buffer("owner", owner, persistent=False)
        self.register_buffer("columns", columns, persistent=False)
        # One scale whatever the features' own is, so that one learning rate and clip norm fit them.
        self.register_buffer("scale", 1 / read.square().mean().sqrt().clamp(min=1e-9), persistent=False)

    def fresh_gate(self) -> nn.Linear:
        """The trained part, under which every modality counts alike at first."""
        gate = nn.Linear(self.columns.numel(), self.n_modalities)
        nn.init.zeros_(gate.weight)
        nn.init.zeros_(gate.bias)
        return gate

    def inputs(self, features: Tensor) -> Tensor:
        """What the gate reads: `[..., dim]` -> `[..., modalities * gate_dim]`."""
        return features[..., self.columns] * self.scale

    def factors(self, logits: Tensor, features: Tensor, seen: Tensor | None = None) -> Tensor:
        """Logits `[..., modalities]` of items with these features `[..., dim]` -> factors on their components.

        Args:
            seen: bool `[rows, 1, modalities]`, as `draw_seen` gives it. Where an item has nothing of what is seen,
                it keeps what it has.
        """
        there = self._there(features)
        # Lengths are those of a vector that was put together from what is seen: the root of `there` undoes its scale.
        n_there = there.sum(-1, keepdim=True)
        if seen is not None:
            left = there & seen
            there = torch.where(left.any(-1, keepdim=True), left, there)
        weights = logits.masked_fill(~there, -torch.inf).softmax(-1)
        # The root has no slope at zero: what is absent must not reach it.
        kept = torch.where(there, weights * n_there, 1.0)
        return torch.where(there, kept.sqrt(), 0.0)

    def draw_seen(self, rows: int, masking: float) -> Tensor:
        """Which modalities a user's items are seen with in training: all, or with this chance all but a random one.

        Args:
            masking: chance of each row, 0 to 1.
        Returns: bool `[rows, 1, modalities]`, from torch's generator.
        Reference: Neverova et al. 2016, arXiv:1501.00102, ModDrop.
        """
        device = self.owner.device
        dropped = torch.randint(self.n_modalities, (rows, 1, 1), device=device)
        whole = torch.rand(rows, 1, 1, device=device) >= masking
        return whole | (torch.arange(self.n_modalities, device=device) != dropped)

    def _there(self, features: Tensor) -> Tensor:
        """bool `[..., modalities]`; an item without any modality counts as one with all, so that nothing is NaN."""
        marks = [features[..., self.owner == number].any(-1) for number in range(self.n_modalities)]
        there = torch.stack(marks, -1)
        return there | ~there.any(-1, keepdim=True)

    def by_column(self, factors: Tensor, n_columns: int) -> Tensor:
        """`[..., modalities]` -> `[..., n_columns]`, for the leading columns, public ones first."""
        public = factors.new_ones(*factors.shape[:-1], self.public_dim)
        return torch.cat([public, factors[..., self.owner[: n_columns - self.public_dim]]], -1)

    def scores(self, user_vectors: Tensor, known: Tensor, factors: Tensor) -> Tensor:
        """Products with items whose components are scaled: `[users, ..., items]`.

        Args:
            user_vectors: `[users, ..., columns]`.
            known: `[items, columns]`, not scaled.
            factors: `[users or 1, items, modalities]`.
        """
        public, owner = self.public_dim, self.owner[: known.shape[1] - self.public_dim]
        scores = user_vectors[..., :public] @ known[:, :public].T
        # One product a modality: its factors differ by item, and may by user.
        for number, factor in enumerate(factors.unbind(-1)):
            columns = public + torch.nonzero(owner == number)[:, 0]
            of_users = factor.view(len(factor), *[1] * (user_vectors.dim() - 2), len(known))
            scores = scores + user_vectors[..., columns] @ known[:, columns].T * of_users
        return scores
