"""Rows that nobody answered: labelled where the head is sure, bounded with their user's own, never read otherwise."""

import numpy as np
import pytest
import torch

from fedrec.errors import ConfigError
from fedrec.privacy.noise import NoiseSource
from fedrec.tasks.click import Click
from fedrec.tasks.examples import TaskExamples, batches_of
from fedrec.tasks.head import HeadShape, TaskHead, head_state
from fedrec.tasks.own_rows import Windows
from fedrec.tasks.pseudo_labels import PseudoLabels, pseudo_labelled
from fedrec.tasks.rating import Rating
from fedrec.tasks.training import PrivateWork, private_step, user_losses
from fedrec_sim.tasks.protocols import draw_windows
from fedrec_sim.tasks.trial import Wanted

WORK = PrivateWork(1.0, l2_clip_norm=0.3, noise_std=1e-9, learning_rate=1.0, most_rows=6, batch_users=4)
SETTINGS = PseudoLabels(0.8, 0.5)


def head() -> TaskHead:
    made = TaskHead(HeadShape(1, 1))
    with torch.no_grad():
        made.outer.weight.fill_(1.0)
    return made


def examples(hidden: float = 0.0) -> TaskExamples:
    """Scores 3, -3, 0.1 without an answer, and -3 with the answer yes; then a user without any answer."""
    inputs = np.array([[3.0], [-3.0], [0.1], [-3.0], [0.1]])
    return TaskExamples.of(inputs, [hidden, hidden, hidden, 1, hidden], [0, 0, 0, 0, 1], np.array([0, 0, 0, 1, 0]))


def test_only_rows_without_an_answer_of_which_it_is_sure_get_one() -> None:
    found = pseudo_labelled(examples(), head(), Click(), SETTINGS)
    assert found.targets.tolist() == [1, 0, 0, 1, 0]
    assert found.weights.tolist() == [0.5, 0.5, 0, 1, 0]


def test_a_row_without_an_answer_or_a_label_says_nothing_whatever_stands_there() -> None:
    losses = []
    for hidden in (0.0, 1.0):
        (batch,) = batches_of(examples(hidden), np.arange(2), most_rows=6, batch_users=2, fixed=True)
        losses.append(user_losses(head(), Click(), batch).tolist())
        assert batch.weights.sum(1).tolist() == [1.0, 0.0]
    assert losses[0] == losses[1]
    assert losses[0][1] == 0.0


def test_labelled_and_pseudo_labelled_rows_are_one_users_say() -> None:
    moves = []
    labelled = pseudo_labelled(examples(), head(), Click(), SETTINGS)
    for users in ([0, 1], [1]):
        tried = head()
        before = head_state(tried)
        private_step(tried, Click(), labelled.of_users(users), WORK, NoiseSource.from_root(bytes(32), b"a"))
        moves.append(np.concatenate([t.ravel() for t in head_state(tried).minus(before).tensors.values()]))
    assert 0 < np.linalg.norm(moves[0] - moves[1]) <= WORK.l2_clip_norm * 1.0001


def test_hidden_answers_are_in_no_row_and_in_no_fingerprint() -> None:
    likes = np.array([1.0, 0.0, 1.0])
    user = Windows(np.zeros((3, 2), np.int32), np.ones((3, 2)), np.arange(3, dtype=np.int32), likes)
    (kept,) = draw_windows([user], 1, 5, keep_others=True)
    assert kept.weights.sum() == 1
    assert (kept.answers * (1 - kept.weights)).sum() == 0
    flipped = Windows(user.items, user.targets, user.asked, np.where(kept.weights > 0, likes, 1 - likes))
    (same,) = draw_windows([flipped], 1, 5, keep_others=True)
    assert same.content() == kept.content()
    assert len(draw_windows([user], 1, 5)[0].asked) == 1


def test_what_cannot_be_is_refused_in_words() -> None:
    with pytest.raises(ConfigError, match=r"(?s)threshold must be 0\.5.*weight"):
        PseudoLabels(0.4, 0.0)
    with pytest.raises(ConfigError, match="not of rating"):
        pseudo_labelled(examples(), head(), Rating(), SETTINGS)
    with pytest.raises(ConfigError, match="set shots"):
        Wanted("click", "E", 1, pseudo=SETTINGS, keep_others=True)
    with pytest.raises(ConfigError, match="keep_others"):
        Wanted("click", "E", 1, shots=16, pseudo=SETTINGS)
