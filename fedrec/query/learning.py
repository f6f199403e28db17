"""Teaches a reader of requests with requests made from the public catalogue: no person's words, no epsilon."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedrec.query.attributes import AttributeSpace, Floats
from fedrec.query.made import Language, MadeQuery, QueryMaker
from fedrec.query.reader import QueryReader
from fedrec.query.rule import CatalogFacts, QueryRule

Progress = Callable[[int, int], None]
# Batches are cut from so many requests sorted by length, so that little is computed on padding.
_POOL = 8
# Of a title's own categories, beside those that are asked for; of the closed form's ridge; and what 1 becomes as a
# logit, so that the first scores are about as decided as the trained ones.
_LIKE_WEIGHT, _RIDGE, _DECIDED = 0.5, 60.0, 6.0


@dataclass(frozen=True)
class LearningPlan:
    """How a reader learns; public.

    Attributes:
        first_requests: read once by the frozen LLM, on which the head starts.
        head_steps: of 128 of them.
        steps: with LoRA, of `batch` requests that are made anew.
        chinese: share of requests in Chinese.
    """

    first_requests: int = 3000
    head_steps: int = 600
    head_rate: float = 2e-3
    steps: int = 800
    batch: int = 32
    lora_rate: float = 2e-3
    joint_rate: float = 1e-3
    weight_decay: float = 0.1
    chinese: float = 0.2
    seed: int = 1


def teach(
    reader: QueryReader, maker: QueryMaker, space: AttributeSpace, items: Floats, plan: LearningPlan, progress: Progress
) -> None:
    """Train a fresh reader: first the head in closed form and on frozen readings, then LoRA and head together.

    Args:
        items: `[items, width]`, the catalogue in the attribute space.
        progress: called with (steps done, steps in all) of the second part.
    Privacy: reads the public catalogue alone; costs no epsilon.
    """
    rng = np.random.default_rng(plan.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        columns = torch.from_numpy(items.T.copy())
        _start_head(reader, _made(maker, rng, plan.first_requests, plan.chinese), maker.facts, space, columns, plan)
        _learn_together(reader, maker, rng, columns, plan, progress)
    reader.eval()


def answer_loss(logits: Tensor, answers: Tensor) -> Tensor:
    """Cross-entropy with all answers as likely as each other, less its least: `[requests, items]` twice -> a number."""
    counts = answers.sum(1, keepdim=True)
    losses = -(answers / counts * F.log_softmax(logits, -1)).sum(1) - counts[:, 0].log()
    return losses.mean()


def _made(maker: QueryMaker, rng: np.random.Generator, count: int, chinese: float) -> list[MadeQuery]:
    languages: list[Language] = ["zh" if rng.random() < chinese else "en" for _ in range(count)]
    return sorted((maker.make(rng, language) for language in languages), key=lambda made: len(str(made.pieces)))


def _answers(made: Sequence[MadeQuery], facts: CatalogFacts) -> Tensor:
    return torch.from_numpy(np.stack([facts.satisfied(query.rule) for query in made])).float()


def _meant(rule: QueryRule, facts: CatalogFacts, space: AttributeSpace) -> Floats:
    """The weights that a rule asks for, `[width]`."""
    wanted = np.zeros(len(space.categories), np.float32)
    for names, weight in ((rule.wanted, 1.0), (rule.unwanted, -1.0)):
        for name in names:
            if name in space.categories:
                wanted[space.categories.index(name)] = weight
    for item in (rule.like, rule.title):
        if item is not None:
            own = [name in {facts.names[i] for i in np.flatnonzero(facts.has[item])} for name in space.categories]
            wanted += _LIKE_WEIGHT * np.array(own, np.float32)
    return space.meaning(rule.first_year, rule.last_year, wanted)


def _start_head(
    reader: QueryReader,
    made: Sequence[MadeQuery],
    facts: CatalogFacts,
    space: AttributeSpace,
    columns: Tensor,
    plan: LearningPlan,
) -> None:
    """The linear part by ridge regression on what is meant, then all of the head by gradient on readings kept."""
    reader.eval()
    with torch.no_grad():
        readout = torch.cat([reader.read([q.pieces for q in made[i : i + 64]]) for i in range(0, len(made), 64)])
        reader.centre.copy_(readout.mean(0))
        inputs = readout - reader.centre
        meant = torch.from_numpy(np.stack([_meant(query.rule, facts, space) for query in made]))
        gram = inputs.T @ inputs + _RIDGE * torch.eye(inputs.shape[1])
        reader.line.weight.copy_(_DECIDED * torch.linalg.solve(gram, inputs.T @ (meant - meant.mean(0))).T)
        reader.line.bias.copy_(_DECIDED * meant.mean(0))
    answers = _answers(made, facts)
    head = [*reader.line.parameters(), *reader.deep.parameters(), *reader.out.parameters()]
    optimizer = torch.optim.AdamW(head, lr=plan.head_rate, weight_decay=plan.weight_decay)
    reader.train()
    for step in range(plan.head_steps):
        _set_rate(optimizer, step / plan.head_steps)
        rows = torch.randint(len(made), (128,))
        _descend(optimizer, head, answer_loss(reader.weigh(readout[rows]) @ columns, answers[rows]))


def _learn_together(
    reader: QueryReader,
    maker: QueryMaker,
    rng: np.random.Generator,
    columns: Tensor,
    plan: LearningPlan,
    progress: Progress,
) -> None:
    named = [(name, p) for name, p in reader.named_parameters() if p.requires_grad]
    lora = [p for name, p in named if ".lora_" in name]
    head = [p for name, p in named if ".lora_" not in name]
    groups = [{"params": lora, "lr": plan.lora_rate}, {"params": head, "lr": plan.joint_rate}]
    optimizer = torch.optim.AdamW(groups, weight_decay=plan.weight_decay)
    reader.train()
    made: list[MadeQuery] = []
    for step in range(plan.steps):
        if not made:
            pool = _made(maker, rng, _POOL * plan.batch, plan.chinese)
            batches = [pool[i : i + plan.batch] for i in range(0, len(pool), plan.batch)]
            made = [query for place in rng.permutation(len(batches)) for query in batches[place]]
        batch, made = made[: plan.batch], made[plan.batch :]
        _set_rate(optimizer, step / plan.steps)
        logits = reader([query.pieces for query in batch]) @ columns
        _descend(optimizer, [*lora, *head], answer_loss(logits, _answers(batch, maker.facts)))
        progress(step + 1, plan.steps)


def _set_rate(optimizer: torch.optim.Optimizer, done: float) -> None:
    """A cosine after a short warm-up."""
    factor = min(1.0, done / 0.05 + 0.02) * 0.5 * (1 + math.cos(math.pi * done))
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("peak", group["lr"]) * factor


def _descend(optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]  # torch's own
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
