"""All figures of the task heads, over seeds, beside the floors."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fedrec.data.datasets import Say
from fedrec_sim.tasks.floors import bias_floor, window_floors
from fedrec_sim.tasks.genre import GenreTask, GenreTrial, run_genre
from fedrec_sim.tasks.trial import Answered, TaskWorld, Trial, Wanted, run_trial

SEEDS = (1, 2, 3)
EPSILON = 8.0
_RESAMPLES = 1000
# Key -> training, and which of its figures stands under the key.
ROWS: dict[str, tuple[Wanted, str]] = {
    "E_auc": (Wanted("click", "E", 1), "auc"),
    "E_auc_64": (Wanted("click", "E", 1, shots=64), "auc"),
    "C_auc": (Wanted("click", "C", 1), "auc"),
    "D_rmse": (Wanted("rating", "D", 1), "rmse"),
    "E_auc_16": (Wanted("click", "E", 1, shots=16), "auc"),
    "E_auc_256": (Wanted("click", "E", 1, shots=256), "auc"),
    "click721_auc": (Wanted("click", "split721", 1), "auc"),
    "rating721_rmse": (Wanted("rating", "split721", 1), "rmse"),
}
GENRE = "genre721_log_loss"
PRIVATE = ("E_auc", "E_auc_64", "C_auc", "D_rmse", GENRE)
Json = dict[str, Any]


def bench_tasks(world: TaskWorld, say: Say) -> Json:
    """Train every row without privacy, those of `PRIVATE` at epsilon 8 under masks too, for each seed; ask the test.

    Returns: the means under their keys, spread and every figure in `rows`, floors in `floors`.
    """
    started = time.monotonic()
    found: Json = {"seeds": list(SEEDS), "partners": 8, "epsilon": EPSILON, "delta": 1e-4, "which": "test"}
    rows: Json = {}
    floors: Json = {}
    for key, (wanted, figure) in ROWS.items():
        for epsilon in (None, EPSILON) if key in PRIVATE else (None,):
            name = key if epsilon is None else f"{key}_eps8"
            trials = []
            for seed in SEEDS:
                say(f"{name}, seed {seed}")
                trials.append(run_trial(world, replace(wanted, seed=seed, epsilon=epsilon)))
            rows[name] = over_seeds(trials, bootstrap=wanted.protocol == "E")
            found[name] = rows[name]["figures"][figure]["mean"]
            if epsilon is None and not wanted.shots:
                floors[key] = floors_of(trials[0])
    _genres(world, found, rows, floors, say)
    return {**found, "rows": rows, "floors": floors, "seconds": time.monotonic() - started}


def _genres(world: TaskWorld, found: Json, rows: Json, floors: Json, say: Say) -> None:
    """The next genre, as the other rows."""
    task = GenreTask(world)
    for name, epsilon in ((GENRE, None), (f"{GENRE}_eps8", EPSILON)):
        trials = []
        for seed in SEEDS:
            say(f"{name}, seed {seed}")
            trials.append(run_genre(task, Wanted("genre", "split721", seed, epsilon=epsilon)))
        rows[name] = over_seeds(trials, bootstrap=False)
        found[name] = rows[name]["figures"]["log_loss"]["mean"]
        if epsilon is None:
            floors[GENRE] = trials[0].floors("test")


def over_seeds(trials: Sequence[Trial | GenreTrial], *, bootstrap: bool) -> Json:
    """Mean and standard deviation of every figure; where users are few, an interval over them for each seed."""
    answered = [trial.answer("test") for trial in trials]
    each = [
        trial.trained.terms.task.figures(a.targets, a.predictions, a.users)
        for trial, a in zip(trials, answered, strict=True)
    ]
    figures = {
        name: {
            "mean": statistics.fmean(one[name] for one in each),
            "std": statistics.stdev(one[name] for one in each),
            "seeds": [one[name] for one in each],
        }
        for name in each[0]
    }
    statement = trials[0].trained.statement
    told: Json = {"figures": figures, **{name: statement[name] for name in ("mode", "epsilon", "delta")}}
    if bootstrap:
        told["auc_95"] = [user_interval(a, auc) for a in answered]
    return told


def user_interval(answered: Answered, figure: Callable[[np.ndarray, np.ndarray], float]) -> list[float]:
    """A 95% interval of a pooled figure over redrawn users."""
    rng, n_users = np.random.default_rng(0), int(answered.users.max()) + 1
    rows_of = [np.flatnonzero(answered.users == user) for user in range(n_users)]
    drawn = []
    for _ in range(_RESAMPLES):
        rows = np.concatenate([rows_of[user] for user in rng.integers(0, n_users, n_users)])
        drawn.append(figure(answered.targets[rows], answered.predictions[rows]))
    return [float(value) for value in np.nanquantile(drawn, [0.025, 0.975])]


def auc(targets: np.ndarray, predictions: np.ndarray) -> float:
    """Area under the curve from ranks; NaN where all answers are the same."""
    from scipy.stats import rankdata

    ranks, likes = rankdata(predictions), targets > 0.5
    n = int(likes.sum())
    if not 0 < n < len(likes):
        return float("nan")
    return float((ranks[likes].sum() - n * (n + 1) / 2) / (n * (len(likes) - n)))


def floors_of(trial: Trial) -> Json:
    """What the same questions give without a trained head; of the first seed."""
    taste, cut, answered = trial.world.tastes[trial.wanted.task], trial.cut, trial.answer("test")
    said = np.concatenate([user.inputs(taste)[:, 0] for user in cut.test]).astype(np.float64)
    alone = Answered(
        answered.targets, np.clip(said, *((0, 1) if trial.wanted.task == "click" else (1, 5))), answered.users
    )
    public = trial.trained.terms.task.figures(alone.targets, alone.predictions, alone.users)
    floors: Json = {"public_taste_alone": {name: public[name] for name in ("auc", "rmse") if name in public}}
    if trial.wanted.protocol == "E":
        floors |= window_floors(cut.train, cut.test, len(trial.world.catalog))
    if trial.wanted.task == "rating":
        floors["user_and_item_bias"] = bias_floor(cut.train, answered, cut.test, len(trial.world.catalog))
    return floors
