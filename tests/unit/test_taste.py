"""A user's own rows against the public taste: what is left out stays out, and corrections move what they say."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from torch import from_numpy, nn

from fedrec.data.interactions import InteractionTable
from fedrec.errors import ConfigError
from fedrec.privacy.noise import NoiseSource
from fedrec.tasks.item_part import ItemPart, bounded_surprises, plain_surprises
from fedrec.tasks.own_rows import LaterRows, OwnRows, TasteRows, Windows
from fedrec.tasks.taste import PublicTaste
from fedrec.tasks.training import PrivateWork
from fedrec_sim.tasks.protocols import TaskProtocol, draw_windows, questions
from fedrec_sim.tasks.trial import Wanted

N_ITEMS = 20


def taste(seed: int = 0) -> PublicTaste:
    rng = np.random.default_rng(seed)
    factors = rng.standard_normal((N_ITEMS, 4))
    return PublicTaste(rng.standard_normal(N_ITEMS), factors, 0.5, rng.standard_normal((N_ITEMS, 3)), "made")


def user(seed: int, rows: int = 6) -> OwnRows:
    rng = np.random.default_rng(seed)
    return OwnRows(rng.choice(N_ITEMS, rows, replace=False).astype(np.int32), rng.standard_normal(rows))


def test_a_row_is_answered_from_all_the_others_alone() -> None:
    public, own = taste(), user(1)
    found = own.inputs(public)
    for row in range(len(own.items)):
        others = np.arange(len(own.items)) != row
        alone = public.inputs(own.items[others], own.targets[others], own.items[row : row + 1])
        np.testing.assert_allclose(found[row], alone[0], atol=1e-5)


def test_an_input_is_what_a_correction_of_the_mean_would_add() -> None:
    public, own, asked = taste(), user(2), np.arange(N_ITEMS, dtype=np.int32)
    moved = replace(public, mean=public.mean + public.basis[:, 1])
    for what in (lambda p: p.inputs(own.items, own.targets, asked), own.inputs):
        np.testing.assert_allclose(what(moved)[:, 0] - what(public)[:, 0], what(public)[:, 2], atol=1e-5)


def test_whoever_is_unknown_gets_the_public_mean() -> None:
    none = OwnRows(np.zeros(0, np.int32), np.zeros(0))
    asked = np.arange(N_ITEMS, dtype=np.int32)
    np.testing.assert_allclose(taste().inputs(none.items, none.targets, asked)[:, 0], taste().mean, rtol=1e-6)


def test_surprises_are_clipped_by_user_and_summed() -> None:
    rows, part = TasteRows(taste(), tuple(user(seed) for seed in range(5))), ItemPart(5, 1.0)
    parameter = nn.Parameter(from_numpy(np.zeros((2, N_ITEMS), np.float32)))
    work = PrivateWork(1.0, part.l2_clip_norm, 1e-9, 1.0, 1, 1)
    bounded_surprises(parameter, rows, part, work, NoiseSource.from_root(bytes(32), b"a")).step()
    wanted = np.zeros((2, N_ITEMS))
    for place in range(5):
        said = rows.surprises(place, part.row_weight)
        wanted += said * min(1.0, part.l2_clip_norm / np.linalg.norm(said))
    np.testing.assert_allclose(parameter.detach().numpy(), wanted, atol=1e-5)
    assert plain_surprises(rows, part)[1].sum() == pytest.approx(0.5 * 5 * 6)


def test_what_is_known_of_an_item_moves_it_less_the_more_noise_there_is() -> None:
    public = taste()
    surprises = np.zeros((2, N_ITEMS), np.float32)
    surprises[:, 3] = 1.0, 0.5  # of 100 users each rated it, one star higher than expected
    moves = []
    for noise in (0.0, 0.1, 0.3, 5.0):
        moved = ItemPart(100, 1.0, noise_std=noise).corrected(public, surprises).mean - public.mean
        assert not np.delete(moved, 3).any()
        moves.append(moved[3])
    assert 0.8 < max(moves) < 1
    assert moves[0] > moves[2] > moves[3] == 0


def table() -> InteractionTable:
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(6), 30).astype(np.int32)
    items = np.concatenate([rng.permutation(40)[:30] for _ in range(6)]).astype(np.int32)
    stars = rng.integers(1, 6, 180).astype(np.float32)
    names = tuple(f"u{i}" for i in range(6)), tuple(f"i{i:02d}" for i in range(40))
    return InteractionTable(users, items, stars, rng.permutation(180).astype(float), *names)


@pytest.mark.parametrize("protocol", [p for p in get_args(TaskProtocol) if p != "E"])
def test_no_answer_is_known_when_it_is_asked_for(protocol: TaskProtocol) -> None:
    rows = table()
    cut = questions(protocol, rows, "ratings", 1)
    n_rows = sum(len(u.asked) for part in (cut.train, cut.validation, cut.test) for u in part)
    assert n_rows == 180
    for asked in (*cut.validation, *cut.test):
        assert isinstance(asked, LaterRows)
        assert not set(asked.items) & set(asked.asked)


def test_shots_are_drawn_by_seed() -> None:
    windows = [
        Windows(np.full((4, 2), n, np.int32), np.ones((4, 2)), np.arange(4, dtype=np.int32), np.ones(4))
        for n in range(5)
    ]
    one, again, other = (draw_windows(windows, 9, seed) for seed in (1, 1, 2))
    assert sum(len(u.asked) for u in one) == 9
    assert [u.content() for u in one] == [u.content() for u in again] != [u.content() for u in other]


def test_what_cannot_be_asked_is_refused_all_at_once() -> None:
    with pytest.raises(ConfigError, match="3 problems"):
        Wanted("rating", "C", 1, shots=3, epsilon=1.0)
    with pytest.raises(ConfigError, match="epsilon"):
        Wanted("click", "E", 1, epsilon=-1.0)
