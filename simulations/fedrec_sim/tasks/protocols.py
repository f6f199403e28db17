"""MovieLens-100K as questions of a task, cut by the protocols of the field. Private."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from fedrec.data.interactions import InteractionTable
from fedrec.data.sequences import build_sequences
from fedrec.data.splits import EvaluationSplit, split_by
from fedrec.errors import ConfigError
from fedrec.tasks.own_rows import LaterRows, OwnRows, UserRows, Windows
from fedrec.tasks.stars import StarsOf
from fedrec.tasks.taste import Scale, as_targets

TaskProtocol = Literal["C", "D", "E", "split721"]
# TALLRec's: windows of ten, of all of them the last ten thousand, of which the last thousand are the test.
_WINDOW, _WINDOWS, _HELD = 10, 10_000, 1_000


@dataclass(frozen=True, eq=False, repr=False)
class Questions:
    """A protocol's cut. Private.

    Attributes:
        train: one entry a user.
        validation, test: one entry a user who is asked.
    """

    train: tuple[UserRows, ...] = field(repr=False)
    validation: tuple[UserRows, ...] = field(repr=False)
    test: tuple[UserRows, ...] = field(repr=False)


def questions(protocol: TaskProtocol, table: InteractionTable, scale: Scale, seed: int) -> Questions:
    """Cut the rows of a table.

    Args:
        protocol: `E` is TALLRec's windows (new users; the same for every seed); `C` a random 8:1:1 of all rows, each
            user's training rows known; `D` a random 75:25 by item; `split721` the latest 2:1 of 10 by user.
    Raises: ConfigError: E asks for likes alone.
    """
    match protocol:
        case "E":
            if scale != "likes":
                raise ConfigError("protocol E asks who likes what", "choose the click task")
            return tallrec_windows(table)
        case "C":
            return _random_rows(table, scale, seed)
        case _:
            splits = split_by(protocol, build_sequences(table, seed), seed)
            return _of_splits(splits, StarsOf(table), scale)


def tallrec_windows(table: InteractionTable) -> Questions:
    """Protocol E: a like is more than three stars; a user's ten rows before each row say what is known of it.

    Users stand in the order in which the file first names them, their rows by time, rows of one second as in the file:
    so the cut is TALLRec's to the row.
    Reference: Bao et al. 2023, arXiv:2305.00447; github.com/SAI990323/TALLRec, preprocess_movie.py.
    """
    likes = as_targets(table.rating, "likes")
    _, first = np.unique(table.user_codes, return_index=True)
    asked, known = [], []
    for user in table.user_codes[np.sort(first)]:
        rows = np.flatnonzero(table.user_codes == user)
        rows = rows[np.argsort(table.timestamp[rows], kind="stable")]
        for place in range(_WINDOW, len(rows)):
            asked.append(rows[place])
            known.append(rows[place - _WINDOW : place])
    last, before = np.array(asked[-_WINDOWS:]), np.array(known[-_WINDOWS:])

    def of(part: slice) -> tuple[UserRows, ...]:
        rows, windows, users = last[part], before[part], table.user_codes[last[part]]
        found = []
        for user in dict.fromkeys(users.tolist()):
            mine = users == user
            of_user = (table.item_codes[windows[mine]], likes[windows[mine]])
            found.append(Windows(*of_user, table.item_codes[rows[mine]], likes[rows[mine]]))
        return tuple(found)

    train = len(last) - 2 * _HELD
    return Questions(of(slice(train)), of(slice(train, train + _HELD)), of(slice(train + _HELD, None)))


def draw_windows(
    users: Sequence[UserRows], shots: int, seed: int, *, keep_others: bool = False
) -> tuple[UserRows, ...]:
    """So many of all windows, drawn by seed; users without any are gone.

    Args:
        keep_others: the other windows stay as questions that nobody answered, and so do their users.
    """
    lengths = [len(user.asked) for user in users]
    chosen = np.zeros(sum(lengths), bool)
    chosen[np.random.default_rng([seed, shots]).choice(len(chosen), shots, replace=False)] = True
    kept: list[UserRows] = []
    for user, mine in zip(users, np.split(chosen, np.cumsum(lengths)[:-1]), strict=True):
        if keep_others and isinstance(user, Windows):
            hidden = np.where(mine, user.answers, 0.0)
            kept.append(Windows(user.items, user.targets, user.asked, hidden, mine))
        elif mine.any() and isinstance(user, Windows):
            kept.append(Windows(user.items[mine], user.targets[mine], user.asked[mine], user.answers[mine]))
    return tuple(kept)


def _random_rows(table: InteractionTable, scale: Scale, seed: int) -> Questions:
    """Protocol C: each row falls to training, validation or test by chance, whoever's it is."""
    n_rows = len(table.rating)
    place = np.empty(n_rows, np.int64)
    place[np.random.default_rng(seed).permutation(n_rows)] = np.arange(n_rows)
    part = (place >= 0.8 * n_rows).astype(int) + (place >= 0.9 * n_rows)
    targets = as_targets(table.rating, scale)
    found: tuple[list[UserRows], ...] = ([], [], [])
    order = np.argsort(table.user_codes, kind="stable")
    for rows in np.split(order, np.cumsum(np.bincount(table.user_codes))[:-1]):
        train, *asked = (rows[part[rows] == number] for number in range(3))
        if len(train):
            found[0].append(OwnRows(table.item_codes[train], targets[train]))
        for held, of_part in zip(asked, found[1:], strict=True):
            if len(held):
                own = (table.item_codes[train], targets[train])
                of_part.append(LaterRows(*own, table.item_codes[held], targets[held]))
    return Questions(*map(tuple, found))


def _of_splits(splits: Sequence[EvaluationSplit], ratings: StarsOf, scale: Scale) -> Questions:
    train: list[UserRows] = []
    asked: dict[str, list[UserRows]] = {"validation": [], "test": []}
    for split in splits:
        if len(split.train):
            train.append(OwnRows(split.train, as_targets(ratings.of(split.user, split.train), scale)))
        for which in ("validation", "test"):
            held = getattr(split, which)
            if len(held):
                known = split.history(which)
                own = (known, as_targets(ratings.of(split.user, known), scale))
                asked[which].append(LaterRows(*own, held, as_targets(ratings.of(split.user, held), scale)))
    return Questions(tuple(train), tuple(asked["validation"]), tuple(asked["test"]))
