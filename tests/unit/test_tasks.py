"""Task heads: a user's loss is the mean over the user's own rows, bounded, whoever else is there."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from fedrec.errors import ConfigError, DataError, ModelError, PrivacyError
from fedrec.privacy.noise import NoiseSource
from fedrec.tasks.classes import Classes
from fedrec.tasks.click import Click
from fedrec.tasks.examples import TaskExamples, batches_of
from fedrec.tasks.head import HeadShape, TaskHead, head_state, write_head
from fedrec.tasks.rating import Rating
from fedrec.tasks.task import Task
from fedrec.tasks.terms import TaskTerms
from fedrec.tasks.training import PlainWork, PrivateWork, private_step, refuse_private_head, train_plain, user_losses

WIDTH = 4
TASKS: tuple[Task, ...] = (Click(), Classes(("a", "b", "c")), Rating())
WORK = PrivateWork(1.0, l2_clip_norm=0.3, noise_std=1e-9, learning_rate=1.0, most_rows=6, batch_users=4)


def made(n_users: int = 7, seed: int = 0, classes: int = 2) -> TaskExamples:
    """Users with one to eight rows."""
    rng = np.random.default_rng(seed)
    users = np.repeat(np.arange(n_users), rng.integers(1, 9, n_users))
    inputs = rng.standard_normal((len(users), WIDTH))
    return TaskExamples.of(inputs, rng.integers(0, classes, len(users)), users)


def off_its_start(task: Task, hidden: int = 0) -> TaskHead:
    head = TaskHead(HeadShape(WIDTH, task.outputs, hidden))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return head


def clipped_alone(head: TaskHead, task: Task, examples: TaskExamples, work: PrivateWork) -> list[Tensor]:
    """The oracle: one user at a time, plain autograd, plain sum."""
    total = [torch.zeros_like(p) for p in head.parameters()]
    for user in range(examples.n_users):
        rows = np.flatnonzero(examples.user_of_row == user)[-work.most_rows :]
        scores = head(torch.from_numpy(examples.inputs[rows]))
        loss = task.losses(scores, torch.from_numpy(examples.targets[rows])).mean()
        grads = torch.autograd.grad(loss, list(head.parameters()))
        norm = torch.cat([grad.flatten() for grad in grads]).norm()
        total = [t + g * min(1.0, work.l2_clip_norm / float(norm)) for t, g in zip(total, grads, strict=True)]
    return total


@pytest.mark.parametrize("hidden", [0, 3])
@pytest.mark.parametrize("task", TASKS, ids=lambda t: t.name)
def test_a_private_step_is_the_clipped_sum_of_each_users_own_mean(task: Task, hidden: int) -> None:
    examples, head = made(classes=task.outputs if task.name == "classes" else 2), off_its_start(task, hidden)
    before = head_state(head)
    wanted = clipped_alone(head, task, examples, WORK)
    private_step(head, task, examples, WORK, NoiseSource.from_root(bytes(32), b"a"))
    moved = head_state(head).minus(before).tensors
    for (name, _), want in zip(head.named_parameters(), wanted, strict=True):
        np.testing.assert_allclose(moved[f"task.{name}"], -want.detach().numpy(), atol=2e-6)


def test_one_user_more_moves_a_step_by_no_more_than_the_clip_norm() -> None:
    task, everybody = Click(), made()
    wild = replace(everybody, inputs=everybody.inputs * 1e6)
    for examples in (everybody, wild):
        moves = []
        for kept in (range(examples.n_users), range(examples.n_users - 1)):
            head = off_its_start(task)
            before = head_state(head)
            private_step(head, task, examples.of_users(list(kept)), WORK, NoiseSource.from_root(bytes(32), b"a"))
            moves.append(np.concatenate([t.ravel() for t in head_state(head).minus(before).tensors.values()]))
        assert np.linalg.norm(moves[0] - moves[1]) <= WORK.l2_clip_norm * 1.0001


def test_an_empty_sample_is_a_step_of_noise() -> None:
    head = off_its_start(Click())
    before, work = head_state(head), replace(WORK, noise_std=2.0)
    none = TaskExamples.of(np.zeros((0, WIDTH)), np.zeros(0), np.zeros(0))
    private_step(head, Click(), none, work, NoiseSource.from_root(bytes(32), b"a"))
    assert 0.2 < head_state(head).minus(before).l2_norm < 20


@dataclass(frozen=True)
class BatchMean(Click):
    """A mutant: what a user loses depends on who else is in the batch."""

    def losses(self, scores: Tensor, targets: Tensor) -> Tensor:
        return super().losses(scores, targets) + scores.mean()


def test_a_loss_that_mixes_users_is_refused() -> None:
    for task in TASKS:
        refuse_private_head(off_its_start(task), task)
    with pytest.raises(PrivacyError, match="another user"):
        refuse_private_head(off_its_start(Click()), BatchMean())


@pytest.mark.parametrize("fixed", [True, False])
def test_batches_hold_every_row_once_and_weigh_users_alike(fixed: bool) -> None:
    examples = made(30, seed=3)
    seen, total = [], 0.0
    everyone = np.arange(examples.n_users)
    for batch in batches_of(examples, everyone, most_rows=5, batch_users=8, fixed=fixed):
        assert not fixed or batch.inputs.shape == (8, 5, WIDTH)
        seen += batch.inputs[batch.weights > 0].tolist()
        total += float(batch.weights.sum())
    last = np.concatenate([np.flatnonzero(examples.user_of_row == user)[-5:] for user in everyone])
    assert seen == examples.inputs[last].tolist()
    assert total == pytest.approx(examples.n_users)


def test_plain_training_learns_and_repeats() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((400, WIDTH)).astype(np.float32)
    examples = TaskExamples.of(inputs, inputs[:, 0] - inputs[:, 1] > 0, np.arange(400) // 10)
    states = []
    for _ in range(2):
        head = TaskHead(HeadShape(WIDTH, 1, hidden=3), seed=4)
        train_plain(head, Click(), examples, PlainWork(0.1), epochs=10, rng=np.random.default_rng(1))
        states.append(head_state(head).hash)
    (batch,) = batches_of(examples, np.arange(40), most_rows=10, batch_users=40, fixed=False)
    assert states[0] == states[1]
    assert user_losses(head, Click(), batch).mean().item() < 0.3


def test_figures_are_those_of_a_slow_count() -> None:
    truth = np.array([1, 0, 1, 1, 0, 1, 0, 1], np.float32)
    said, users = np.array([0.9, 0.2, 0.4, 0.7, 0.8, 0.3, 0.1, 0.6]), np.array([0, 0, 0, 1, 1, 2, 2, 3])
    figures = Click().figures(truth, said, users)

    def auc(rows: np.ndarray) -> float:
        pairs = [(p, n) for p in said[rows][truth[rows] == 1] for n in said[rows][truth[rows] == 0]]
        return float(np.mean([p > n for p, n in pairs]))

    assert figures["auc"] == pytest.approx(auc(users >= 0))
    assert figures["user_auc"] == pytest.approx(np.mean([auc(users == user) for user in (0, 1, 2)]))
    assert (figures["accuracy"], figures["precision"], figures["recall"]) == (0.625, 0.75, 0.6)
    assert "auc" not in Click().figures(truth[:1], said[:1], users[:1])
    rating = Rating().figures(np.array([1, 3], np.float32), np.array([2.0, 5.0]), users[:2])
    assert rating["rmse"] == pytest.approx(np.sqrt(2.5))
    assert rating["mae"] == 1.5
    sure = np.eye(3)[[0, 1, 1, 2]]
    assert Classes(("a", "b", "c")).figures(np.array([0, 1, 2, 2], np.float32), sure, users)["accuracy"] == 0.75


def test_scores_become_what_the_task_asks_for() -> None:
    scores = np.array([[0.0], [50.0], [-800.0]])
    assert Click().predictions(scores).tolist() == pytest.approx([0.5, 1.0, 0.0])
    assert Rating().predictions(scores).tolist() == [3.0, 5.0, 1.0]
    likely = Classes(("a", "b")).predictions(np.array([[0.0, 0.0], [900.0, 0.0]]))
    assert likely.tolist() == [[0.5, 0.5], [1.0, 0.0]]


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(DataError, match="not finite"):
        TaskExamples.of(np.array([[np.nan]]), np.zeros(1), np.zeros(1))
    with pytest.raises(DataError, match="different lengths"):
        TaskExamples.of(np.zeros((2, 1)), np.zeros(1), np.zeros(1))
    with pytest.raises(DataError, match="without a gap"):
        TaskExamples(np.zeros((2, 1), np.float32), np.zeros(2, np.float32), np.array([0, 2]), np.ones(2, np.float32))
    state = head_state(TaskHead(HeadShape(1, 2)))
    with pytest.raises(ModelError, match="2 scores for a task of 1"):
        TaskTerms(Click(), HeadShape(1, 2), state, "made", "")
    with pytest.raises(ModelError):
        write_head(TaskHead(HeadShape(3, 1)), head_state(TaskHead(HeadShape(4, 1))))
    with pytest.raises(ConfigError, match="each once"):
        Classes(("a", "a"))
    assert "private" in repr(made())
