"""A user's own rows as questions of a task: what is known, what is asked, how the public prediction errs. Private."""

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedrec.tasks.examples import TaskExamples
from fedrec.tasks.taste import PublicTaste

Array = NDArray[np.float64]


class UserRows(Protocol):
    """One user's questions with their answers."""

    @property
    def weights(self) -> Array:
        """How much each counts, `[rows]`; 0: nobody answered."""

    @property
    def asked(self) -> NDArray[np.int32]:
        """Items, `[rows]`."""

    @property
    def answers(self) -> Array:
        """Targets, `[rows]`."""

    def inputs(self, taste: PublicTaste) -> NDArray[np.float32]:
        """What the rest of what is known says of each item asked for, `[rows, width]`."""

    def content(self) -> bytes:
        """All of it, for a fingerprint."""


@dataclass(frozen=True, eq=False, repr=False)
class OwnRows:
    """Rows that are asked for one by one, each answered from all the others."""

    items: NDArray[np.int32]
    targets: Array

    @property
    def weights(self) -> Array:
        """See `UserRows`."""
        return np.ones(len(self.items))

    @property
    def asked(self) -> NDArray[np.int32]:
        """See `UserRows`."""
        return self.items

    @property
    def answers(self) -> Array:
        """See `UserRows`."""
        return self.targets

    def inputs(self, taste: PublicTaste) -> NDArray[np.float32]:
        """See `UserRows`."""
        return taste.inputs_left_out(self.items, self.targets)

    def content(self) -> bytes:
        """See `UserRows`."""
        return self.items.tobytes() + self.targets.tobytes()


@dataclass(frozen=True, eq=False, repr=False)
class LaterRows:
    """Rows that are asked for, answered from what the user had before: a test."""

    items: NDArray[np.int32]
    targets: Array
    asked: NDArray[np.int32]
    answers: Array

    @property
    def weights(self) -> Array:
        """See `UserRows`."""
        return np.ones(len(self.asked))

    def inputs(self, taste: PublicTaste) -> NDArray[np.float32]:
        """See `UserRows`."""
        return taste.inputs(self.items, self.targets, self.asked)

    def content(self) -> bytes:
        """See `UserRows`."""
        return b"".join(part.tobytes() for part in (self.items, self.targets, self.asked, self.answers))


@dataclass(frozen=True, eq=False, repr=False)
class Windows:
    """Questions that are answered from a window of rows each, as protocol E asks.

    Attributes:
        items, targets: `[rows, window]`, oldest first.
        asked, answers: `[rows]`.
        is_answered: bool `[rows]`; None: all are. What stands in `answers` otherwise is read by nobody.
    """

    items: NDArray[np.int32]
    targets: Array
    asked: NDArray[np.int32]
    answers: Array
    is_answered: NDArray[np.bool_] | None = None

    @property
    def weights(self) -> Array:
        """See `UserRows`."""
        return np.ones(len(self.asked)) if self.is_answered is None else self.is_answered.astype(np.float64)

    def inputs(self, taste: PublicTaste) -> NDArray[np.float32]:
        """See `UserRows`."""
        each = zip(self.items, self.targets, self.asked, strict=True)
        return np.concatenate([taste.inputs(items, targets, asked[None]) for items, targets, asked in each])

    def content(self) -> bytes:
        """See `UserRows`."""
        said = self.answers * self.weights  # what nobody said is no part of the data
        return b"".join(part.tobytes() for part in (self.items, self.targets, self.asked, said, self.weights))


@dataclass(frozen=True, eq=False, repr=False)
class TasteRows:
    """The users of one partner, who learn how to correct the public taste. Private.

    Attributes:
        taste: public.
        users: each with a row or more.
    """

    taste: PublicTaste
    users: tuple[UserRows, ...] = field(repr=False)

    def __repr__(self) -> str:
        return "TasteRows(<private>)"

    @property
    def n_users(self) -> int:
        """Of this partner."""
        return len(self.users)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over everything; keys a partner's noise and never leaves it."""
        digest = hashlib.sha256(self.taste.hash.encode())
        for user in self.users:
            content = user.content()
            digest.update(len(content).to_bytes(8, "big") + content)
        return digest.hexdigest()

    def examples(self, taste: PublicTaste) -> TaskExamples:
        """What a head learns from, with a taste that may have been corrected since."""
        if not self.users:
            return TaskExamples.of(np.zeros((0, taste.width)), np.zeros(0), np.zeros(0))
        inputs = [user.inputs(taste) for user in self.users]
        users = np.repeat(np.arange(self.n_users), [len(of_user) for of_user in inputs])
        answers, weights = (
            np.concatenate([getattr(user, name) for user in self.users]) for name in ("answers", "weights")
        )
        # An answer that nobody gave must not come near a target, whoever looks there.
        return TaskExamples.of(np.concatenate(inputs), np.where(weights > 0, answers, 0.0), users, weights)

    def surprises(self, place: int, row_weight: float) -> NDArray[np.float32]:
        """By how much a user's answers differ from the public prediction, by item, and how many there are.

        Returns: float32 `[2, items]`: sums of differences, and counts times `row_weight`.
        """
        user, found = self.users[place], np.zeros((2, len(self.taste.mean)), np.float32)
        said = user.weights > 0
        np.add.at(found[0], user.asked[said], (user.answers - user.inputs(self.taste)[:, 0])[said])
        np.add.at(found[1], user.asked[said], row_weight)
        return found
