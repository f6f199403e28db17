"""The next genre: a head of classes on MovieLens-100K, asked for each user's latest 2:1 of 10, beside floors."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedrec.aggregation.server_optimizer import ServerOptimizer
from fedrec.data.matching import same_items
from fedrec.data.partition import deal_users
from fedrec.data.sequences import build_sequences
from fedrec.data.splits import EvaluationSplit, split_by
from fedrec.model.adapter import AdapterState
from fedrec.tasks.classes import Classes
from fedrec.tasks.examples import TaskExamples
from fedrec.tasks.genre import GenreReader, GenreRows
from fedrec.tasks.head import PART, HeadShape
from fedrec.tasks.task import Figures
from fedrec.tasks.terms import TaskTerms
from fedrec.tasks.training import PlainWork
from fedrec_sim.tasks.federation import TrainedHead, federate_head
from fedrec_sim.tasks.rounds import TaskPromise, TaskRounds
from fedrec_sim.tasks.trial import PARTNERS, PUBLIC, Answered, TaskWorld, Wanted

Part = Literal["validation", "test"]


@dataclass(frozen=True)
class GenreTask:
    """What every training of the head shares."""

    world: TaskWorld

    @cached_property
    def reader(self) -> GenreReader:
        """Of MovieLens-100K's items, told by MovieLens latest-small."""
        world = self.world
        code = same_items(world.catalog, world.public_catalog)[world.public.item_codes]
        counts = np.bincount(code[code >= 0], minlength=len(world.catalog))
        return GenreReader.of(world.catalog, world.features, counts, world.public.hash)

    @property
    def terms(self) -> TaskTerms:
        """The head says at first what the public would have next."""
        reader = self.reader
        shape = HeadShape(reader.width, len(reader.labels))
        weight = np.eye(shape.outputs, shape.width, dtype=np.float32)
        first = {f"{PART}.outer.weight": weight, f"{PART}.outer.bias": np.zeros(shape.outputs, np.float32)}
        return TaskTerms(
            task=Classes(reader.labels, "genre"),
            shape=shape,
            initial=AdapterState(first),
            inputs="genre/chances",
            inputs_hash=reader.hash,
            catalog_hash=self.world.catalog.hash,
            public_data=PUBLIC,
        )

    def splits(self, seed: int) -> list[EvaluationSplit]:
        """Private."""
        return split_by("split721", build_sequences(self.world.table, seed), seed)

    def asked(self, splits: Sequence[EvaluationSplit], which: Part) -> TaskExamples:
        """Held-back items, each asked for from all before it. Private."""
        each = ((split.history(which), getattr(split, which)) for split in splits)
        users = [GenreRows(np.concatenate([known, held]), len(held)) for known, held in each if len(held)]
        return self.reader.examples(users)


@dataclass(frozen=True)
class GenreTrial:
    """A trained head and its questions."""

    wanted: Wanted
    task: GenreTask = field(repr=False)
    trained: TrainedHead

    def answer(self, which: Part) -> Answered:
        """What the head says of questions that it never saw."""
        asked = self.task.asked(self.task.splits(self.wanted.seed), which)
        return Answered(asked.targets, self.trained.predict(asked.inputs), asked.user_of_row)

    def floors(self, which: Part) -> dict[str, Figures]:
        """The same questions without a trained head: everybody's genre, the user's own of late, the public's guess."""
        splits, reader, task = self.task.splits(self.wanted.seed), self.task.reader, self.trained.terms.task
        asked = self.task.asked(splits, which)
        n_genres = len(reader.labels)
        genres = np.concatenate([reader.genre[split.train] for split in splits])
        everybody = np.bincount(genres[genres >= 0], minlength=n_genres).astype(np.float64)
        chances = np.exp(asked.inputs[:, :n_genres].astype(np.float64))
        said = {
            "most_frequent": np.tile(everybody, (asked.n_rows, 1)),
            "own_late_shares": asked.inputs[:, n_genres : 2 * n_genres].astype(np.float64) + 0.02,
            "public_alone": chances,
        }
        return {name: task.figures(asked.targets, _shares(of), asked.user_of_row) for name, of in said.items()}


def _shares(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(weights / weights.sum(1, keepdims=True))


def rounds_of(wanted: Wanted) -> TaskRounds:
    """How the head is trained; chosen on validation of seed 1, see docs/tasks.md."""
    step = ServerOptimizer("sgd", 1.0, 0.0)
    if wanted.epsilon is None:
        return TaskRounds(8, step, PlainWork(0.003, batch_users=16, most_rows=256), local_epochs=3)
    return TaskRounds(8, step, PlainWork(batch_users=16, most_rows=256), l2_clip_norm=0.2)


def run_genre(
    task: GenreTask, wanted: Wanted, folder: Path | None = None, rounds: TaskRounds | None = None
) -> GenreTrial:
    """Deal the users to partners, train by rounds.

    Args:
        folder: of registry and ledgers; None for a temporary one.
        rounds: in place of those that were chosen; for tuning.
    """
    splits = [split for split in task.splits(wanted.seed) if len(split.train) > 1]
    shares = [
        task.reader.examples([GenreRows(splits[place].train, len(splits[place].train) - 1) for place in places])
        for places in deal_users(len(splits), PARTNERS, wanted.seed)
    ]
    promise = None if wanted.epsilon is None else TaskPromise(wanted.epsilon, 1e-4, wanted.mode)
    name = f"genre-{wanted.epsilon}-{wanted.mode}-{wanted.seed}"
    chosen = rounds or rounds_of(wanted)
    trained = federate_head(task.terms, shares, chosen, run=name, seed=wanted.seed, promise=promise, folder=folder)
    return GenreTrial(wanted, task, trained)
