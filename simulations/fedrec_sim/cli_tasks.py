"""`fedrec train-task` and `fedrec bench tasks`: heads for one task each, trained together, asked on held-back rows."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from fedrec_sim.cli_output import DEFAULT_RUNS, AsJson, RunsFolder, command_line, console, emit_json, errors
from fedrec_sim.run import Json


def train_task(
    task: Annotated[
        Literal["click", "rating", "genre"], typer.Option(help="Who likes it, how many stars, or which genre is next.")
    ] = "click",
    protocol: Annotated[
        Literal["C", "D", "E", "split721"] | None,
        typer.Option(help="How rows are held back; E for click, D for rating, split721 for genre if not given."),
    ] = None,
    epsilon: Annotated[float | None, typer.Option(help="User-level, at delta 1e-4; without it, no privacy.")] = None,
    mode: Annotated[Literal["inspect", "secagg"], typer.Option(help="Who may see an answer.")] = "secagg",
    shots: Annotated[int, typer.Option(help="So many windows of protocol E alone; 0 for all.")] = 0,
    pseudo_labels: Annotated[
        bool, typer.Option("--pseudo-labels", help="With shots: the head answers other rows where it is sure.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    name: Annotated[str, typer.Option(help="Of the run's folder.")] = "task",
    folder: RunsFolder = DEFAULT_RUNS,
    as_json: AsJson = False,
) -> None:
    """Train a task head on MovieLens-100K over 8 partners, ask the test, write figures and pages to runs/NAME.

    Example: `fedrec train-task --task rating --epsilon 8 --name stars`
    """
    from fedrec_sim.labels.pseudo import CHOSEN
    from fedrec_sim.run import hold_run, set_aside
    from fedrec_sim.tasks.folder import write_trial
    from fedrec_sim.tasks.genre import GenreTask, run_genre
    from fedrec_sim.tasks.trial import USUAL, TaskWorld, Wanted, run_trial

    pseudo = CHOSEN if pseudo_labels else None
    wanted = Wanted(task, protocol or USUAL[task], seed, shots, epsilon, mode, keep_others=pseudo_labels, pseudo=pseudo)
    with hold_run(folder, name, resume=False) as place:
        world = TaskWorld.load(_say(as_json))
        if place.exists():
            set_aside(place)
        place.mkdir(mode=0o700)
        trial = run_genre(GenreTask(world), wanted, place) if task == "genre" else run_trial(world, wanted, place)
        metrics = write_trial(place, trial, command_line())
    show(metrics, as_json)
    if not as_json:
        console.print(f"report: {place / 'report.html'}")


def evaluate_task(place: Path, as_json: bool) -> None:
    """Ask the test of a trained head anew."""
    from fedrec_sim.tasks.folder import read_trial
    from fedrec_sim.tasks.trial import TaskWorld

    show(read_trial(place, TaskWorld.load(_say(as_json))), as_json)


def show(metrics: Json, as_json: bool) -> None:
    """Figures for a person, or for a program."""
    if as_json:
        emit_json(metrics)
        return
    table = Table("figure", f"test, protocol {metrics['protocol']}, seed {metrics['seed']}")
    for name, value in metrics["figures"].items():
        table.add_row(name, f"{value:.4f}")
    epsilon = metrics["privacy"]["epsilon"]
    table.caption = "no privacy" if epsilon is None else f"epsilon {epsilon:.2f}, {metrics['privacy']['mode']}"
    console.print(table)


def bench_tasks_command(as_json: AsJson = False) -> None:
    """Task heads on MovieLens-100K over three seeds, without privacy and at epsilon 8, beside what needs no training.

    Protocols E (TALLRec's; all rows and 16, 64, 256), C, D and the 7:2:1 split by time. Example:
    `fedrec bench tasks --json`
    """
    from fedrec_sim.run import commit_of_checkout
    from fedrec_sim.tasks.bench import GENRE, PRIVATE, ROWS, bench_tasks
    from fedrec_sim.tasks.trial import TaskWorld

    found = bench_tasks(TaskWorld.load(_say(as_json)), _say(as_json))
    found |= {"command": command_line(), "commit": commit_of_checkout()}
    if as_json:
        emit_json(found)
        return
    table = Table("figure", "no privacy", "epsilon 8")
    for key in (*ROWS, GENRE):
        table.add_row(key, f"{found[key]:.4f}", f"{found[f'{key}_eps8']:.4f}" if key in PRIVATE else "")
    console.print(table)


def _say(as_json: bool) -> Callable[[str], None]:
    def say(step: str) -> None:
        if not as_json:
            errors.print(f"[dim]{step}[/]")

    return say
