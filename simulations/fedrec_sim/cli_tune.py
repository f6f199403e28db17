"""`fedrec tune`: choose the settings of a trained baseline on validation items."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from fedrec.config import load_config
from fedrec_sim.cli_output import AsJson, command_line, console, emit_json, errors

DEFAULT_TUNED = Path("simulations/tuned")


def tune(
    row: Annotated[Literal["sasrec", "fedmf", "pfedrec"], typer.Argument(help="Whose settings.")],
    config: Annotated[Path, typer.Option(help="A simulation's TOML file; its data are used.")],
    seed: Annotated[int, typer.Option(help="Of the splits and the training; not one that is reported.", min=0)] = 11,
    folder: Annotated[Path, typer.Option("--out", help="Folder of ROW.json.")] = DEFAULT_TUNED,
    as_json: AsJson = False,
) -> None:
    """Try a stated grid, choose by validation NDCG@10, and write what was tried to `simulations/tuned/ROW.json`.

    The chosen settings are the defaults of `[baselines.ROW]`. Some minutes to an hour.
    Example: `fedrec tune sasrec --config simulations/configs/leaderboard.toml --seed 11 --json`
    """
    from fedrec_sim.tune import tune_row, write_tuned

    settings = load_config(config)
    found = tune_row(
        row, settings, seed, command_line(), lambda line: errors.print(line, markup=False, highlight=False)
    )
    path = write_tuned(folder, found)
    if as_json:
        emit_json(found)
        return
    table = Table("change", "HR@10", "NDCG@10", "epoch", "seconds", title=f"{row}, validation, protocol B, seed {seed}")
    for tried in found["candidates"]:
        figures = (f"{tried['validation'][name]:.4f}" for name in ("hr@10", "ndcg@10"))
        table.add_row(str(tried["change"] or "start"), *figures, str(tried["epoch"]), f"{tried['seconds']:.0f}")
    console.print(table)
    console.print(f"chosen: {path}")
