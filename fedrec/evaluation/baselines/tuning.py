"""Choose a baseline's settings on validation, by one rule for all: the best NDCG@10 of a stated grid."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from fedrec.data.splits import EvaluationSplit
from fedrec.errors import ConfigError
from fedrec.evaluation.protocol import Items, Scorer, Scores, evaluate_users


class Fittable(Protocol):
    """A scorer that is fitted on histories; a dataclass whose fields are its settings."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def fit(self, histories: Sequence[Items], n_items: int) -> Self:
        """Learn from training items alone."""
        ...

    def score(self, histories: Sequence[Items]) -> Scores:
        """As in `Scorer`."""
        ...


Tunable = TypeVar("Tunable", bound=Fittable)


@dataclass(frozen=True)
class Tuned(Generic[Tunable]):
    """The best of a grid.

    Attributes:
        scorer: fitted on training items only.
        tried: each candidate's settings and its validation NDCG@10, in the order of the grid.
    """

    scorer: Tunable
    tried: tuple[tuple[str, float], ...]

    @property
    def chosen(self) -> dict[str, float]:
        """The winning settings by name, for JSON."""
        return {f.name: getattr(self.scorer, f.name) for f in fields(self.scorer) if f.init}


def tune(
    candidates: Iterable[Tunable],
    splits: Sequence[EvaluationSplit],
    n_items: int,
    *,
    tie_seed: int,
    progress: Callable[[int], None] = lambda _: None,
) -> Tuned[Tunable]:
    """Fit each candidate on training items; the first of the best by validation NDCG@10 stays fitted.

    Args:
        candidates: unfitted, in the order of the grid.
        splits: one a user, private; their test items are not read.
        tie_seed: as in `evaluate`.
        progress: told how many candidates are done.
    Raises: ConfigError: no candidate. DataError: nobody to evaluate.
    """
    train = [split.train for split in splits]
    best: Tunable | None = None
    tried: list[tuple[str, float]] = []
    for candidate in candidates:
        candidate.fit(train, n_items)
        reached = validation_ndcg(candidate, splits, n_items, tie_seed)
        if not tried or reached > max(before for _, before in tried):
            best = candidate
        tried.append((repr(candidate), reached))
        progress(len(tried))
    if best is None:
        raise ConfigError("the grid is empty", "give at least one setting to try")
    return Tuned(best, tuple(tried))


def validation_ndcg(scorer: Scorer, splits: Sequence[EvaluationSplit], n_items: int, tie_seed: int) -> float:
    """NDCG@10 on the validation items, full ranking: what every choice is made by."""
    users = evaluate_users(scorer, splits, "validation", n_items=n_items, tie_seed=tie_seed)
    return users.sums().means()["ndcg@10"]
