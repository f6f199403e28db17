"""A request and a history in one reading, its words before the items: a study beside reading both apart.

Public people of MovieLens latest-small are the examples: what they had next, and a made request about it.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedrec.data.catalog import ItemCatalog
from fedrec.data.interactions import InteractionTable
from fedrec.data.matching import same_items
from fedrec.data.sequences import build_sequences
from fedrec.model.features import ItemFeatures
from fedrec.query.attributes import AttributeSpace, Floats
from fedrec.query.made import QueryMaker
from fedrec.query.reader import Pieces, QueryReader

Progress = Callable[[int, int], None]
_FEWEST_BEFORE = 3


@dataclass(frozen=True)
class JointPlan:
    """How the two readers of the study learn; public.

    Attributes:
        items: latest of a history that stand behind the words.
        taste_dim: leading components of what texts and public behaviour say of items, each, that answers are made with.
    """

    items: int = 10
    taste_dim: int = 32
    steps: int = 600
    batch: int = 32
    lora_rate: float = 1e-3
    head_rate: float = 1e-3
    weight_decay: float = 0.1
    seed: int = 1


@dataclass(frozen=True)
class PublicNext:
    """What somebody in published data had, and had next. Public."""

    history: NDArray[np.int32] = field(repr=False)
    target: int


class JointReader(nn.Module):
    """The reader of requests, which also reads a history, and weighs what is known of items beside their attributes.

    Args:
        reader: the taught one; a copy is trained.
        taste_dim: numbers that an answer has beside the attributes.
        with_history: its items stand behind the words; else it reads the words alone, for comparison.
    """

    def __init__(self, reader: QueryReader, taste_dim: int, *, with_history: bool) -> None:
        super().__init__()
        self.reader = copy.deepcopy(reader)
        self.with_history = with_history
        self.taste = nn.Linear(len(reader.centre), taste_dim)
        nn.init.zeros_(self.taste.weight)
        nn.init.zeros_(self.taste.bias)

    def forward(self, requests: Sequence[Pieces], histories: Sequence[Sequence[int]]) -> Tensor:
        """float32 `[requests, attributes + taste_dim]`."""
        readout = self.reader.read(requests, histories if self.with_history else None)
        return torch.cat([self.reader.weigh(readout), self.taste(readout - self.reader.centre)], -1)


def public_next(
    catalog: ItemCatalog, public_catalog: ItemCatalog, public: InteractionTable, seed: int
) -> list[PublicNext]:
    """Every item that somebody had after at least three others, with those; items of the catalogue alone."""
    code = same_items(catalog, public_catalog)
    found = []
    for sequence in build_sequences(public, seed):
        items = code[sequence.items]
        known: NDArray[np.int32] = items[items >= 0].astype(np.int32)
        found += [PublicNext(known[:place], int(known[place])) for place in range(_FEWEST_BEFORE, len(known))]
    return found


def answer_columns(space: AttributeSpace, catalog: ItemCatalog, features: ItemFeatures, taste_dim: int) -> Floats:
    """What answers are made with, `[attributes + taste, items]`."""
    known = [space.of_catalog(catalog), features.behaviour[:, :taste_dim], features.vectors[:, :taste_dim]]
    return np.concatenate(known, 1).T.astype(np.float32)


def teach_joint(
    joint: JointReader,
    maker: QueryMaker,
    people: Sequence[PublicNext],
    columns: Floats,
    popularity: Floats,
    plan: JointPlan,
    progress: Progress,
) -> None:
    """Train on what people had next, as cross-entropy over the catalogue with popularity as the offset.

    Privacy: reads published rows and the public catalogue alone; costs no epsilon.
    """
    rng = np.random.default_rng(plan.seed)
    named = [(name, p) for name, p in joint.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for name, p in named if ".lora_" in name], "lr": plan.lora_rate},
        {"params": [p for name, p in named if ".lora_" not in name], "lr": plan.head_rate},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=plan.weight_decay)
    joint.train()
    of_items, offset = torch.from_numpy(columns), torch.from_numpy(popularity)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        for step in range(plan.steps):
            rate = min(1.0, step / (0.05 * plan.steps) + 0.02) * 0.5 * (1 + math.cos(math.pi * step / plan.steps))
            for group in optimizer.param_groups:
                group["lr"] = group.setdefault("peak", group["lr"]) * rate
            drawn = [people[int(place)] for place in rng.integers(len(people), size=plan.batch)]
            asked = [maker.about(one.target, rng) for one in drawn]
            histories = [one.history[-plan.items :].tolist() for one in drawn]
            logits = joint([query.pieces for query in asked], histories) @ of_items + offset
            had = torch.zeros_like(logits, dtype=torch.bool)
            for row, one in enumerate(drawn):
                had[row, torch.from_numpy(one.history.astype(np.int64))] = True
                had[row, one.target] = False
            loss = nn.functional.cross_entropy(
                logits.masked_fill(had, -torch.inf), torch.tensor([one.target for one in drawn])
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own
            nn.utils.clip_grad_norm_([p for _, p in named], 1.0)
            optimizer.step()
            progress(step + 1, plan.steps)
    joint.eval()
