"""Train a baseline until validation no longer gains, and keep the best epoch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from fedrec.errors import ConfigError
from fedrec.evaluation.protocol import Scorer

State = TypeVar("State")


class Trainee(Scorer, Protocol[State]):
    """A scorer that is trained epoch by epoch (a federated one: round by round)."""

    def train_epoch(self) -> None:
        """One pass over the training items."""
        ...

    def snapshot(self) -> State:
        """A copy of what has been learnt."""
        ...

    def restore(self, state: State) -> None:
        """Go back to a copy."""
        ...


@dataclass(frozen=True)
class Schedule:
    """When to look at validation, and when to give up.

    Attributes:
        epochs: at most so many.
        every: validation is looked at after each so many epochs, and after the last.
        patience: looks without a gain after which training ends.
    Raises: ConfigError: anything below 1.
    """

    epochs: int
    every: int
    patience: int

    def __post_init__(self) -> None:
        low = [f"{name}={value}" for name, value in vars(self).items() if value < 1]
        if low:
            raise ConfigError.of_all((f"{setting}: must be >= 1" for setting in low), "train for an epoch or more")


@dataclass(frozen=True)
class Curve(Generic[State]):
    """What a training reached.

    Attributes:
        epoch: the best on validation; the first of equals.
        validation: (epoch, validation NDCG@10) of each look.
        epochs: trained in all.
    """

    epoch: int
    validation: tuple[tuple[int, float], ...]
    epochs: int

    @property
    def reached(self) -> float:
        """Validation NDCG@10 of the best epoch."""
        return dict(self.validation)[self.epoch]


def train_with_patience(
    model: Trainee[State],
    judge: Callable[[], float],
    schedule: Schedule,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Curve[State]:
    """Train, and leave the model as it was after the epoch that validation liked best.

    Args:
        judge: validation NDCG@10 of the model as it is now; must read no test item.
        progress: told (epochs done, epochs at most) after each epoch.
    """
    looks: list[tuple[int, float]] = []
    best, best_epoch, best_state = float("-inf"), 0, model.snapshot()
    epoch = 0
    for epoch in range(1, schedule.epochs + 1):
        model.train_epoch()
        progress(epoch, schedule.epochs)
        if epoch % schedule.every and epoch != schedule.epochs:
            continue
        looks.append((epoch, judge()))
        if looks[-1][1] > best:
            best, best_epoch, best_state = looks[-1][1], epoch, model.snapshot()
        elif sum(at > best_epoch for at, _ in looks) >= schedule.patience:
            break
    model.restore(best_state)
    return Curve(best_epoch, tuple(looks), epoch)
