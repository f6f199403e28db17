"""One training of a task on one protocol, and what it is worth on the questions that were held back."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedrec.aggregation.server_optimizer import ServerOptimizer
from fedrec.config import load_config
from fedrec.data.catalog import ItemCatalog
from fedrec.data.datasets import Say, load_data
from fedrec.data.interactions import InteractionTable
from fedrec.data.partition import deal_users
from fedrec.errors import ConfigError
from fedrec.model.features import ItemFeatures
from fedrec.model.shared import load_shared
from fedrec.tasks.examples import TaskExamples
from fedrec.tasks.item_part import ItemPart
from fedrec.tasks.own_rows import TasteRows, UserRows
from fedrec.tasks.pseudo_labels import PseudoLabels
from fedrec.tasks.taste import PublicTaste
from fedrec.tasks.taste_head import SCALE, SPREAD, PublicRows, taste_terms
from fedrec.tasks.terms import TaskTerms
from fedrec.tasks.training import PlainWork
from fedrec_sim.cli_output import DEMO
from fedrec_sim.tasks.federation import TrainedHead, federate_head
from fedrec_sim.tasks.protocols import Questions, TaskProtocol, draw_windows, questions
from fedrec_sim.tasks.rounds import TaskPromise, TaskRounds

TaskName = Literal["click", "rating", "genre"]
USUAL: dict[TaskName, TaskProtocol] = {"click": "E", "rating": "D", "genre": "split721"}
"""The protocol of a task for which none is named."""
PARTNERS = 8
PUBLIC = "movielens-small"


@dataclass(frozen=True)
class TaskWorld:
    """What every training shares: private rows, and the public taste that each task starts from."""

    catalog: ItemCatalog
    table: InteractionTable = field(repr=False)
    features: ItemFeatures = field(repr=False)
    public_catalog: ItemCatalog = field(repr=False)
    public: InteractionTable = field(repr=False)

    @classmethod
    def load(cls, say: Say) -> "TaskWorld":
        """MovieLens-100K, MovieLens latest-small, and what the shared models read in the catalogue's texts."""
        catalog, table = load_data("ml-100k", say)
        public_catalog, public = load_data(PUBLIC, say)
        if not isinstance(table, InteractionTable) or not isinstance(public, InteractionTable):
            raise ConfigError("tasks read tables", "fetch the data anew")
        features = load_shared(load_config(DEMO).model, catalog, table, say).features
        return cls(catalog, table, features, public_catalog, public)

    @cached_property
    def tastes(self) -> dict[str, PublicTaste]:
        """By task."""
        public = PublicRows(self.public_catalog, self.public)
        return {task: public.taste(task, self.catalog, self.features) for task in SCALE}


@dataclass(frozen=True)
class Wanted:
    """One training.

    Attributes:
        shots: so many windows of protocol E alone; 0 for all rows.
        epsilon: None for no privacy.
        keep_others: windows that were not drawn stay as questions that nobody answered, and so do their users.
        pseudo: the head answers those where it is sure; needs them kept.
        start: of the head: `public` taste, or `nothing`, which says the same of every item.
    """

    task: TaskName
    protocol: TaskProtocol
    seed: int
    shots: int = 0
    epsilon: float | None = None
    mode: Literal["inspect", "secagg"] = "secagg"
    keep_others: bool = False
    pseudo: PseudoLabels | None = None
    start: Literal["public", "nothing"] = "public"

    def __post_init__(self) -> None:
        problems = []
        if self.shots and self.protocol != "E":
            problems.append("shots are windows of protocol E")
        if self.shots < 0 or (self.shots and self.shots < PARTNERS) or self.shots > 8000:
            problems.append(f"shots must be 0 for all, or {PARTNERS} to 8000")
        if self.task == "genre" and self.protocol != "split721":
            problems.append("the genre task asks what comes next: split721")
        elif (self.task == "rating") != (self.protocol == "D") and self.protocol != "split721":
            problems.append("protocols C and E are of the click task, D of the rating task, split721 of both")
        if self.epsilon is not None and not self.epsilon > 0:
            problems.append("epsilon must be > 0")
        if (self.pseudo or self.keep_others) and not self.shots:
            problems.append("pseudo-labels are for the rows that shots leave without an answer: set shots")
        if self.pseudo and not self.keep_others:
            problems.append("pseudo-labels need the rows without an answer: set keep_others")
        if problems:
            raise ConfigError.of_all(problems, "see `fedrec train-task --help`", "task")


@dataclass(frozen=True, eq=False, repr=False)
class Answered:
    """Predictions beside what was true. Private.

    Attributes:
        users: int64 `[rows]`.
    """

    targets: NDArray[np.float32]
    predictions: NDArray[np.float64]
    users: NDArray[np.int64]


@dataclass(frozen=True)
class Trial:
    """A trained head and its questions."""

    wanted: Wanted
    world: TaskWorld = field(repr=False)
    cut: Questions = field(repr=False)
    trained: TrainedHead

    def answer(self, which: Literal["validation", "test"]) -> Answered:
        """What the head says of questions that it never saw."""
        return answer(self.trained, self.world.tastes[self.wanted.task], getattr(self.cut, which))


def answer(trained: TrainedHead, taste: PublicTaste, users: Sequence[UserRows]) -> Answered:
    """What a trained head says of users' questions; computed beside their rows."""
    asked: TaskExamples = TasteRows(taste, tuple(users)).examples(trained.terms.corrected(taste, trained.state))
    return Answered(asked.targets, trained.predict(asked.inputs), asked.user_of_row)


def terms_of(world: TaskWorld, wanted: Wanted) -> TaskTerms:
    """What partners agree on; nothing is asked about items where there are a few examples only."""
    items = None if wanted.shots else ItemPart(1, SPREAD[wanted.task])
    taste, is_fresh = world.tastes[wanted.task], wanted.start == "nothing"
    made = taste_terms(wanted.task, taste, world.catalog, PUBLIC, is_fresh=is_fresh, items=items)
    return replace(made, pseudo=wanted.pseudo)


def rounds_of(wanted: Wanted) -> TaskRounds:
    """How a head is trained; chosen on validation, see docs/tasks.md."""
    if wanted.epsilon is None:
        if wanted.start == "nothing":
            return TaskRounds(30, ServerOptimizer("sgd", 1.0, 0.0), PlainWork(0.05, 0.1, batch_users=64, most_rows=256))
        work = PlainWork(0.01, batch_users=64, most_rows=256)
        return TaskRounds(4 if wanted.shots else 8, ServerOptimizer("sgd", 1.0, 0.0), work)
    rate = 1.0
    return TaskRounds(8, ServerOptimizer("sgd", rate, 0.0), PlainWork(batch_users=16, most_rows=256), l2_clip_norm=0.2)


def run_trial(world: TaskWorld, wanted: Wanted, folder: Path | None = None, rounds: TaskRounds | None = None) -> Trial:
    """Deal the users to partners, train by rounds.

    Args:
        folder: of registry and ledgers; None for a temporary one.
        rounds: in place of those that were chosen; for tuning.
    """
    cut = questions(wanted.protocol, world.table, SCALE[wanted.task], wanted.seed)
    if wanted.shots:
        drawn = draw_windows(cut.train, wanted.shots, wanted.seed, keep_others=wanted.keep_others)
        cut = replace(cut, train=drawn)
    taste = world.tastes[wanted.task]
    partners = min(PARTNERS, len(cut.train))
    shares = [
        TasteRows(taste, tuple(cut.train[place] for place in places))
        for places in deal_users(len(cut.train), partners, wanted.seed)
    ]
    promise = None if wanted.epsilon is None else TaskPromise(wanted.epsilon, 1e-4, wanted.mode)
    name = f"{wanted.task}-{wanted.protocol}-{wanted.shots}-{wanted.epsilon}-{wanted.mode}-{wanted.seed}"
    if wanted.keep_others or wanted.start != "public":
        name += f"-{wanted.start}-{wanted.keep_others}-{wanted.pseudo}"
    chosen = rounds or rounds_of(wanted)
    trained = federate_head(
        terms_of(world, wanted), shares, chosen, run=name, seed=wanted.seed, promise=promise, folder=folder
    )
    return Trial(wanted, world, cut, trained)
