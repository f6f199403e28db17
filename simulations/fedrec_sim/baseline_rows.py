"""The rows that others invented: fitted on training items, chosen on validation, by the settings of `[baselines]`."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from fedrec.config import BaselinesConfig, FedMFConfig, PFedRecConfig, SASRecConfig
from fedrec.data.splits import EvaluationSplit
from fedrec.evaluation.baselines.factors import BPR, BPR_GRID, IALS, IALS_GRID
from fedrec.evaluation.baselines.fedmf import FedMF
from fedrec.evaluation.baselines.linear import EASE, EASE_GRID, ITEM_KNN_GRID, ItemKNN, Popularity
from fedrec.evaluation.baselines.pfedrec import PFedRec
from fedrec.evaluation.baselines.sasrec import SASRec
from fedrec.evaluation.baselines.stopping import Curve, Schedule, Trainee, train_with_patience
from fedrec.evaluation.baselines.tuning import Tunable, tune, validation_ndcg
from fedrec.evaluation.protocol import Scorer

GridRow = Literal["item_knn", "ease", "ials", "bpr"]
TrainedRow = Literal["sasrec", "fedmf", "pfedrec"]
TRAINED_ROWS: tuple[TrainedRow, ...] = get_args(TrainedRow)
TrainedSettings = SASRecConfig | FedMFConfig | PFedRecConfig
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
        case "sasrec" | "fedmf" | "pfedrec":
            return train_floor(settings_of(settings, row), bench)[0]


def _best_of(candidates: Iterable[Tunable], count: int, bench: Bench) -> Floor:
    tuned = tune(
        candidates, bench.splits, bench.n_items, tie_seed=bench.seed, progress=lambda done: bench.progress(done, count)
    )
    return Floor(tuned.scorer, tuned.chosen)


def settings_of(settings: BaselinesConfig, row: TrainedRow) -> TrainedSettings:
    """The row's own section."""
    match row:
        case "sasrec":
            return settings.sasrec
        case "fedmf":
            return settings.fedmf
        case "pfedrec":
            return settings.pfedrec


def train_floor(settings: TrainedSettings, bench: Bench) -> tuple[Floor, Curve[Any]]:
    """Train with these settings until validation no longer gains; the best epoch stays, with the curve to it."""
    model = _model_of(settings, bench)
    curve = train_with_patience(
        model,
        lambda: validation_ndcg(model, bench.splits, bench.n_items, bench.seed),
        Schedule(settings.epochs, settings.every, settings.patience),
        bench.progress,
    )
    if not isinstance(model, FedMF | PFedRec):
        return Floor(model, {"epoch": curve.epoch}), curve
    # What was sent until validation had shown that the best round was over.
    traffic = {"bytes_up_per_partner": curve.epochs * model.bytes_up_per_round, "rounds": curve.epochs}
    return Floor(model, {"round": curve.epoch}, traffic), curve


def _model_of(settings: TrainedSettings, bench: Bench) -> Trainee[Any]:
    match settings:
        case SASRecConfig():
            return SASRec(bench.train, bench.n_items, settings, bench.seed)
        case FedMFConfig():
            return FedMF(bench.splits, bench.n_items, settings, bench.seed)
        case PFedRecConfig():
            return PFedRec(bench.splits, bench.n_items, settings, bench.seed)
