"""`fedrec bench fairness`: the command."""

from typing import Annotated, Any

import typer
from rich.table import Table

from fedrec.errors import ConfigError
from fedrec_sim.cli_output import DEFAULT_RUNS, AsJson, RunsFolder, command_line, console, emit_json, errors
from fedrec_sim.cli_runs import RunName


def fairness(
    run: RunName = "demo",
    epsilons: Annotated[list[float] | None, typer.Option("--epsilon", help="Of a release; repeat it.")] = None,
    seeds: Annotated[int, typer.Option(help="Draws of noise and orders of people.", min=1, max=20)] = 3,
    folder: RunsFolder = DEFAULT_RUNS,
    as_json: AsJson = False,
) -> None:
    """Who is shown and who is served well by a run's adapter on MovieLens-100K.

    Exposure by popularity and genre, quality by gender, age and activity; exactly, as they would leave partners under
    DP, and with floors for what is seldom shown. Some 2 minutes. Example: `fedrec bench fairness --json`
    """
    from fedrec_sim.fairness.measure import measure
    from fedrec_sim.run import commit_of_checkout

    asked = tuple(epsilons or (1.0, 2.0, 4.0))
    if not all(0 < epsilon < float("inf") for epsilon in asked):
        raise ConfigError("--epsilon must be above 0 and finite", "--epsilon 2")
    found = {"command": command_line(), "commit": commit_of_checkout()}
    found |= measure(folder / run, asked, tuple(range(1, seeds + 1)), _say)
    if as_json:
        emit_json(found)
        return
    for table in tables(found):
        console.print(table)


def tables(found: dict[str, Any]) -> list[Table]:
    """What a person looks at first."""
    before = found["before"]
    floors = Table("floor for the tail", "way", "tail's exposure", "HR@10", "NDCG@10", title="Floors of exposure")
    floors.add_row("none", "-", *_row(before))
    for one in found["floors"]:
        floors.add_row(f"{one['tail_share']:g}", one["way"], *_row(one))
    groups = Table("division", "group", "people", "HR@10", title="Quality by group, exact: stays with the partner")
    for name, division in before["quality_by_group"].items():
        for group, figures in division["groups"].items():
            groups.add_row(name, group, str(figures["people"]), f"{figures.get('mean', float('nan')):.3f}")
    released = Table("epsilon", "who", "largest error of a share", "of a quality", "groups shown", title="Released")
    for row in found["released"]["epsilons"]:
        for who in [key for key in row if key != "epsilon"]:
            wrong = row[who]["errors"]
            shown = f"{wrong['groups_shown']:.1f} of {wrong['groups']:.0f}"
            label = who.replace("_", " ")
            released.add_row(f"{row['epsilon']:g}", label, f"{wrong['share']:.3f}", f"{wrong['quality']:.3f}", shown)
    return [floors, groups, released]


def _row(one: dict[str, Any]) -> tuple[str, str, str]:
    return f"{one['exposure']['popularity']['tail']:.3f}", f"{one['hr@10']:.4f}", f"{one['ndcg@10']:.4f}"


def _say(line: str) -> None:
    errors.print(line, markup=False, highlight=False)
