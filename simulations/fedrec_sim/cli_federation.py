"""`fedrec federation`: what a coordinator trains, made on a machine that has the model."""

import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fedrec.config import load_config
from fedrec_sim.cli_output import DEMO, AsJson, console, emit_json, errors

federation = typer.Typer(no_args_is_help=True, help="Make what `flower-server use` takes, and measure what came of it.")


@federation.command()
def make(
    to: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder.")],
    name: Annotated[str, typer.Option(help="Of the federation: small letters, digits, hyphens.")],
    config: Annotated[Path, typer.Option(help="A TOML file like simulations/configs/demo.toml.")] = DEMO,
    row: Annotated[str, typer.Option(help="federated_eps8_inspect, say; federated is without privacy.")] = (
        "federated_dp_inspect"
    ),
    task: Annotated[
        Literal["click", "rating"] | None, typer.Option(help="Train this task's head, not the recommender's adapter.")
    ] = None,
    users_per_partner: Annotated[int, typer.Option(help="That a partner is expected to have; public.", min=1)] = 100,
    seed: Annotated[int, typer.Option(help="Of the first adapter.", min=0)] = 1,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="key=value over the configuration.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write terms, schedule, first adapter and catalogue. A coordinator needs no model for what follows.

    With `--task` the head of a task is trained, from partners' rows with ratings (docs/tasks.md).

    Examples: `fedrec federation make films --name films --row federated_eps4_inspect --set partners=3` ·
    `fedrec federation make stars --name stars --task rating --row federated_eps4_secagg`
    """
    from fedrec.data.catalog import write_catalog
    from fedrec.data.datasets import load_data
    from fedrec_sim.federation_maker import make_federation
    from fedrec_sim.tasks.network import make_task_federation

    settings = load_config(config, tuple(overrides or ()))
    with tempfile.TemporaryDirectory() as folder:
        write_catalog(
            load_data(settings.data.source, lambda _: None, settings.data.users)[0], Path(folder) / "c.parquet"
        )
        catalog = (Path(folder) / "c.parquet").read_bytes()
    size: Any = {"users_per_partner": users_per_partner, "seed": seed}
    if task is None:
        made = make_federation(settings, name=name, row=row, catalog=catalog, **size)
    else:
        made = make_task_federation(settings, task=task, name=name, row=row, catalog=catalog, **size)
    made.write(to)
    told = {"folder": str(to), "terms": made.terms.hash, "rounds": len(made.schedule)}
    told |= {"mode": made.terms.mode, "epsilon": made.statement.get("epsilon"), "adapter_bytes": made.initial.n_bytes}
    told["task"] = task
    if as_json:
        emit_json(told)
    else:
        console.print(f"{to}: {told['rounds']} rounds, mode {told['mode']}, epsilon {told['epsilon']}")


@federation.command()
def quality(
    coordinator: Annotated[Path, typer.Argument(metavar="DIR", help="The coordinator's folder.")],
    data: Annotated[str, typer.Option(help="Published rows: movielens-small, or a folder.")] = "movielens-small",
    rounds: Annotated[list[int] | None, typer.Option("--round", help="Only this one; repeat it.", min=0)] = None,
    roll_back_below: Annotated[
        float | None,
        typer.Option(help="If the newest version is worth less than this share of the best, pause and roll back."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure committed versions on rows that somebody published, for the admin pages. No partner's row is read.

    Examples: `fedrec federation quality /srv/fedrec` · every hour, `fedrec federation quality /srv/fedrec
    --roll-back-below 0.8`
    """
    from dataclasses import asdict

    from fedrec_server.settings import Coordinator
    from fedrec_sim import version_quality

    def say(line: str) -> None:
        errors.print(line, markup=False, highlight=False)

    told = []
    for found in version_quality.measure_versions(Coordinator(coordinator), data, rounds=rounds or [], say=say):
        told.append(asdict(found))
        say(f"{found.adapter_hash[:12]}: HR@10 {found.hit_ratio:.4f}, NDCG@10 {found.ndcg:.4f}, {found.users} users")
    done = None
    if roll_back_below is not None:
        done = version_quality.roll_back_below(Coordinator(coordinator), Path(data).name, roll_back_below)
    if as_json:
        emit_json({"measured": told, "rolled_back": done})
        return
    console.print(f"{len(told)} versions measured")
    if done is not None:
        console.print(f"rolled back from round {done['rolled_back_from']} to {done['to']}, and paused")
