"""A task head's training at one place: plain epochs, or a private step in which each user's say is bounded."""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedrec.privacy.gradients import UserDPOptimizer, per_user_gradients
from fedrec.privacy.integer_code import IntegerCode
from fedrec.privacy.noise import NoiseSource
from fedrec.privacy.refusals import refuse_mixing, refuse_unprivate
from fedrec.privacy.sampling import poisson_sample
from fedrec.tasks.examples import TaskBatch, TaskExamples, batches_of
from fedrec.tasks.head import TaskHead
from fedrec.tasks.task import Task

_PROBE_USERS, _PROBE_ROWS = 3, 2


@dataclass(frozen=True)
class PlainWork:
    """Training without privacy: AdamW over batches of users. Public.

    Attributes:
        most_rows: of a user that are read, the last ones.
    """

    learning_rate: float = 0.05
    weight_decay: float = 0.0
    batch_users: int = 32
    most_rows: int = 512


@dataclass(frozen=True)
class PrivateWork:
    """One private step, as the round's `PrivacyPlan` says. All of it is public.

    Attributes:
        learning_rate: multiplies the noised sum.
        most_rows: of a user that are read, the last ones.
        batch_users: of a batch's shape, whoever is sampled.
    """

    sampling_prob: float
    l2_clip_norm: float
    noise_std: float
    learning_rate: float
    most_rows: int
    batch_users: int


def user_losses(head: TaskHead, task: Task, batch: TaskBatch) -> Tensor:
    """The mean loss over each user's own rows, `[users]`; zero for nobody's."""
    return (task.losses(head(batch.inputs), batch.targets) * batch.weights).sum(1)


def train_plain(
    head: TaskHead, task: Task, examples: TaskExamples, work: PlainWork, *, epochs: int, rng: np.random.Generator
) -> None:
    """Some epochs of AdamW on the mean loss over users; no privacy whatsoever."""
    optimizer = torch.optim.AdamW(head.parameters(), lr=work.learning_rate, weight_decay=work.weight_decay)
    head.train()
    for _ in range(epochs):
        order = rng.permutation(examples.n_users)
        for batch in batches_of(examples, order, most_rows=work.most_rows, batch_users=work.batch_users, fixed=False):
            optimizer.zero_grad()
            user_losses(head, task, batch).mean().backward()  # type: ignore[no-untyped-call]  # torch's own
            optimizer.step()


def refuse_private_head(head: TaskHead, task: Task) -> None:
    """Before a row is read: is this a head whose loss keeps users apart?

    Raises: PrivacyError: why it cannot be trained privately, all reasons at once.
    """
    refuse_unprivate(head, head.parameters())
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((_PROBE_USERS, _PROBE_ROWS, head.shape.width))
    targets = rng.integers(0, 2, (_PROBE_USERS, _PROBE_ROWS, 1))
    rows = torch.from_numpy(np.concatenate([inputs, targets], 2).astype(np.float32))
    tried = copy.deepcopy(head).train()
    with torch.no_grad():  # off its start, where no input reaches the loss
        for parameter in tried.parameters():
            parameter.copy_(torch.from_numpy(0.3 * rng.standard_normal(parameter.shape)))

    def losses(made: Tensor) -> Tensor:
        weights = torch.full(made.shape[:2], 1 / _PROBE_ROWS)
        return user_losses(tried, task, TaskBatch(made[..., :-1].contiguous(), made[..., -1].contiguous(), weights))

    refuse_mixing(losses, rows)


def private_step(head: TaskHead, task: Task, examples: TaskExamples, work: PrivateWork, source: NoiseSource) -> None:
    """Sample users, bound each one's say, add noise, move the head. An empty sample is a step like any other.

    Privacy: one sampled Gaussian mechanism over users with sensitivity `work.l2_clip_norm`.
    """
    optimizer = _bounded_sum(head, task, examples, work, source)
    optimizer.step()
    optimizer.zero_grad()


def private_integers(
    head: TaskHead, task: Task, examples: TaskExamples, work: PrivateWork, source: NoiseSource, code: IntegerCode
) -> NDArray[np.int64]:
    """The same sum as noised integers, for secure aggregation; the head stays where it is.

    Returns: int64 `[numbers of the head]`, tensors in the order of names.
    Privacy: as `private_step`, with this partner's share of the noise.
    """
    optimizer = _bounded_sum(head, task, examples, work, source)
    integers = optimizer.noised_integers(code)
    optimizer.zero_grad()
    return integers


def _bounded_sum(
    head: TaskHead, task: Task, examples: TaskExamples, work: PrivateWork, source: NoiseSource
) -> UserDPOptimizer:
    """An optimizer that holds the clipped sum over the sampled users, not yet noised."""
    users = poisson_sample(examples.n_users, work.sampling_prob, source)
    named = dict(head.named_parameters())
    optimizer = UserDPOptimizer(
        [named[name] for name in sorted(named)],
        learning_rate=work.learning_rate,
        l2_clip_norm=work.l2_clip_norm,
        noise_std=work.noise_std,
        source=source,
    )
    head.train()
    with per_user_gradients(head):
        for batch in batches_of(examples, users, most_rows=work.most_rows, batch_users=work.batch_users, fixed=True):
            user_losses(head, task, batch).sum().backward()  # type: ignore[no-untyped-call]  # torch's own
            optimizer.clip_and_accumulate()
    return optimizer
