"""A trained task head on the disk: what it was asked, its adapter, ledgers, statement, figures and pages."""

import html
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from fedrec.errors import RunError
from fedrec.registry.registry import Registry
from fedrec.tasks.classes import Classes
from fedrec.tasks.pseudo_labels import PseudoLabels
from fedrec.tasks.taste_head import SCALE
from fedrec_sim.run import Json, commit_of_checkout, read_json, write_bytes, write_json
from fedrec_sim.tasks.federation import TrainedHead
from fedrec_sim.tasks.genre import GenreTask, GenreTrial
from fedrec_sim.tasks.protocols import questions
from fedrec_sim.tasks.trial import Answered, TaskName, TaskWorld, Trial, Wanted, terms_of

RECORD = "task.json"
FORMAT = 1
_AXES: dict[TaskName, tuple[str, str]] = {
    "click": ("predicted share of likes", "share of likes"),
    "rating": ("predicted stars", "mean stars"),
    "genre": ("probability of the likeliest genre", "share of it that came"),
}


def write_trial(folder: Path, trial: Trial | GenreTrial, command: str) -> Json:
    """Write all that a person looks at beside registry and ledgers; what `metrics.json` says."""
    answered, items = trial.answer("test"), trial.trained.terms.items
    record = {
        "format": FORMAT,
        "wanted": asdict(trial.wanted),
        "items": None if items is None else asdict(items),
        "inputs_hash": trial.trained.terms.inputs_hash,
        "command": command,
        "commit": commit_of_checkout(),
    }
    metrics = figures_of(trial.trained, trial.wanted, answered)
    write_json(folder / RECORD, record)
    write_json(folder / "metrics.json", metrics)
    write_json(folder / "privacy.json", trial.trained.statement)
    report = report_of(trial.trained, answered)
    write_bytes(folder / "report.txt", report.encode())
    plot = calibration_svg(trial.wanted, answered)
    write_bytes(folder / "calibration.svg", plot.encode())
    write_bytes(folder / "report.html", _page(trial.wanted, metrics, report, plot).encode())
    return metrics


def figures_of(trained: TrainedHead, wanted: Wanted, answered: Answered) -> Json:
    """Every figure of the test, with what it was bought with."""
    figures = trained.terms.task.figures(answered.targets, answered.predictions, answered.users)
    privacy = {name: trained.statement[name] for name in ("mode", "epsilon", "delta")}
    asked = {"rows": len(answered.targets), "users": int(answered.users.max()) + 1}
    return {**asdict(wanted), "which": "test", "figures": figures, "asked": asked, "privacy": privacy}


def read_trial(folder: Path, world: TaskWorld) -> Json:
    """The figures of a trained head, computed anew from its newest adapter.

    Raises: RunError: another format, or trained with other inputs than this version of fedrec makes.
    """
    record = read_json(folder / RECORD)
    if record.get("format") != FORMAT:
        raise RunError(f"{folder}: a task of another format", "train it anew with `fedrec train-task`")
    wanted = wanted_of(record["wanted"])
    genres = GenreTask(world) if wanted.task == "genre" else None
    terms = genres.terms if genres else terms_of(world, wanted)
    if record["inputs_hash"] != terms.inputs_hash:
        raise RunError(f"{folder}: the head was trained with other inputs than these", "train it anew")
    if terms.items is not None:
        terms = replace(terms, items=replace(terms.items, **record["items"]))
    state = Registry(folder / "registry").load_head()
    trained = TrainedHead(terms, state, None, read_json(folder / "privacy.json"))
    if genres:
        return figures_of(trained, wanted, GenreTrial(wanted, genres, trained).answer("test"))
    cut = questions(wanted.protocol, world.table, SCALE[wanted.task], wanted.seed)
    return figures_of(trained, wanted, Trial(wanted, world, cut, trained).answer("test"))


def wanted_of(record: Json) -> Wanted:
    """What was asked, from JSON."""
    pseudo = record.get("pseudo")
    return Wanted(**record | {"pseudo": PseudoLabels(**pseudo) if pseudo else None})


def report_of(trained: TrainedHead, answered: Answered) -> str:
    """scikit-learn's classification report; of ratings, as the nearest whole star."""
    from sklearn.metrics import classification_report

    task = trained.terms.task
    if isinstance(task, Classes):
        return task.report(answered.targets, answered.predictions)
    if task.name == "click":
        said, names = answered.predictions >= 0.5, ["no like", "like"]
        return str(classification_report(answered.targets > 0.5, said, target_names=names, digits=3, zero_division=0))
    stars = np.rint(answered.predictions).astype(int)
    return str(classification_report(answered.targets.astype(int), stars, digits=3, zero_division=0))


def calibration_svg(wanted: Wanted, answered: Answered) -> str:
    """What was said against what came true, in tenths of the questions."""
    import io

    from matplotlib.figure import Figure

    predictions, targets = answered.predictions, answered.targets.astype(np.float64)
    if predictions.ndim > 1:  # of the class that it takes for the likeliest
        targets = (predictions.argmax(1) == targets).astype(np.float64)
        predictions = predictions.max(1)
    order = np.argsort(predictions, kind="stable")
    tenths = [rows for rows in np.array_split(order, 10) if len(rows)]
    said = [float(predictions[rows].mean()) for rows in tenths]
    came = [float(targets[rows].mean()) for rows in tenths]
    figure = Figure(figsize=(4.5, 4.5), layout="constrained")
    axes = figure.subplots()
    low, high = (1.0, 5.0) if wanted.task == "rating" else (0.0, 1.0)
    axes.plot([low, high], [low, high], color="0.7", linewidth=1, label="as said")
    axes.plot(said, came, marker="o", label="tenths of the questions")
    across, up = _AXES[wanted.task]
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.legend()
    kept = io.StringIO()
    figure.savefig(kept, format="svg", metadata={"Date": None})
    return kept.getvalue()


def _page(wanted: Wanted, metrics: Json, report: str, plot: str) -> str:
    """One page that needs nothing else."""
    rows = "".join(f"<tr><th>{name}</th><td>{value:.4f}</td></tr>" for name, value in metrics["figures"].items())
    epsilon = metrics["privacy"]["epsilon"]
    told = "no privacy" if epsilon is None else f"epsilon {epsilon:.2f} at delta {metrics['privacy']['delta']:g}"
    title = f"{wanted.task}, protocol {wanted.protocol}, seed {wanted.seed}: {told}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        "<style>body{font:16px/1.5 system-ui;max-width:50rem;margin:2rem auto;padding:0 1rem}"
        "th{text-align:left;padding-right:2rem}</style>"
        f"<h1>{html.escape(title)}</h1><table>{rows}</table>"
        f"<h2>Said and came true</h2>{plot[plot.index('<svg') :]}<h2>By class</h2>"
        f"<pre>{html.escape(report)}</pre></html>"
    )
