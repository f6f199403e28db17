"""The rows that others invented: fitted on training items, chosen on validation, by the settings of `[baselines]`."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from fedrec.config import BaselinesConfig, SASRecConfig
from fedrec.data.splits import EvaluationSplit
from fedrec.evaluation.baselines.factors import BPR, BPR_GRID, IALS, IALS_GRID
from fedrec.evaluation.baselines.linear import EASE, EASE_GRID, ITEM_KNN_GRID, ItemKNN, Popularity
from fedrec.evaluation.baselines.sasrec import SASRec
from fedrec.evaluation.baselines.stopping import Curve, Schedule, train_with_patience
from fedrec.evaluation.baselines.tuning import Tunable, tune, validation_ndcg
from fedrec.evaluation.protocol import Scorer

GridRow = Literal["item_knn", "ease", "ials", "bpr"]
TrainedRow = Literal["sasrec"]
TRAINED_ROWS: tuple[TrainedRow, ...] = get_args(TrainedRow)
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Floor:
    """A baseline that is ready for the test.

    Attributes:
        scorer: fitted on training items only.
        chosen: settings by name that validation chose for this seed; empty if there was nothing to choose.
        traffic: what a device sent and in how many rounds, if anything was federated.
    """

    scorer: Scorer
    chosen: dict[str, Any] = field(default_factory=dict)
    traffic: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    """What a baseline is fitted on. Private.

    Attributes:
        splits: one a user; test items are never read.
        seed: breaks ties; of weights, order and negatives.
        progress: told (done, of how many).
    """

    splits: Sequence[EvaluationSplit] = field(repr=False)
    n_items: int
    seed: int
    progress: Progress = field(default=lambda _done, _total: None, repr=False)

    @property
    def train(self) -> list[Any]:
        """Each user's training items."""
        return [split.train for split in self.splits]


def fit_floor(row: Literal["popularity"] | GridRow | TrainedRow, settings: BaselinesConfig, bench: Bench) -> Floor:
    """Fit one baseline for one seed."""
    n_items, seed = bench.n_items, bench.seed
    match row:
        case "popularity":
            return Floor(Popularity().fit(bench.train, n_items))
        case "item_knn":
            return _best_of((ItemKNN(*one) for one in ITEM_KNN_GRID), len(ITEM_KNN_GRID), bench)
        case "ease":
            return _best_of((EASE(l2) for l2 in EASE_GRID), len(EASE_GRID), bench)
        case "ials":
            return _best_of((IALS(*one, seed=seed) for one in IALS_GRID), len(IALS_GRID), bench)
        case "bpr":
            return _best_of((BPR(*one, seed=seed) for one in BPR_GRID), len(BPR_GRID), bench)
        case "sasrec":
            return train_floor(settings.sasrec, bench)[0]


def _best_of(candidates: Iterable[Tunable], count: int, bench: Bench) -> Floor:
    tuned = tune(
        candidates, bench.splits, bench.n_items, tie_seed=bench.seed, progress=lambda done: bench.progress(done, count)
    )
    return Floor(tuned.scorer, tuned.chosen)


def train_floor(settings: SASRecConfig, bench: Bench) -> tuple[Floor, Curve[Any]]:
    """Train a baseline with these settings until validation no longer gains, and say what validation gave."""
    model = SASRec(bench.train, bench.n_items, settings, bench.seed)
    schedule = Schedule(settings.epochs, settings.every, settings.patience)
    curve = train_with_patience(
        model,
        lambda: validation_ndcg(model, bench.splits, bench.n_items, bench.seed),
        schedule,
        bench.progress,
    )
    return Floor(model, {"epoch": curve.epoch}), curve
