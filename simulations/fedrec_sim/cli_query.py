"""`fedrec query` and `fedrec bench requests`: the commands of requests in words."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress
from rich.table import Table

from fedrec_sim.cli_output import DEFAULT_RUNS, AsJson, RunsFolder, console, emit_json, errors
from fedrec_sim.cli_runs import RunName

query = typer.Typer(no_args_is_help=True, help="Requests in words: teach their reader, and see what it understands.")


@query.command("train")
def train(
    run: RunName = "demo",
    again: Annotated[bool, typer.Option("--again", help="Even if there is a reader.")] = False,
    folder: RunsFolder = DEFAULT_RUNS,
    as_json: AsJson = False,
) -> None:
    """Teach the reader of requests over a run's catalogue, from requests made of public facts; some 10 minutes.

    It is kept in the cache, for every run and service with this catalogue and these models. No row of anybody is read:
    it costs no epsilon. Example: `fedrec query train --run demo`
    """
    from fedrec.data.sources import cache_dir
    from fedrec.query.query_model import query_folder
    from fedrec_sim.queries.reading import query_model_of
    from fedrec_sim.run import read_run
    from fedrec_sim.world import load_world, on_any_device

    world = load_world(on_any_device(read_run(folder / run).config), _say)
    with Progress(console=errors, transient=True) as progress:
        model = query_model_of(world, progress, again=again)
    told = {"reader": model.key, "folder": str(query_folder(cache_dir(), model.key))}
    if as_json:
        emit_json(told)
        return
    console.print(f"reader {model.key[:16]} in {told['folder']}")


@query.command("explain")
def explain(
    text: Annotated[str, typer.Argument(help="A request.")],
    run: RunName = "demo",
    folder: RunsFolder = DEFAULT_RUNS,
    as_json: AsJson = False,
) -> None:
    """Say what a request is taken to ask for. Example: `fedrec query explain "a quiet 90s thriller, no horror"`"""
    from fedrec_sim.queries.reading import query_model_of, told
    from fedrec_sim.run import read_run
    from fedrec_sim.world import load_world, on_any_device

    world = load_world(on_any_device(read_run(folder / run).config), _say)
    with Progress(console=errors, transient=True) as progress:
        model = query_model_of(world, progress)
    found = told(model.understand(text), world.catalog)
    if as_json:
        emit_json(found)
        return
    for name, value in found.items():
        console.print(f"{name}: {value}", highlight=False, markup=False)


def requests(
    run: RunName = "demo",
    out: Annotated[Path | None, typer.Option(help="Also write the figures to this file.")] = None,
    folder: RunsFolder = DEFAULT_RUNS,
    as_json: AsJson = False,
) -> None:
    """Answer the 500 published requests: the trained reader, BM25, the sentence encoder; and with histories.

    Teaches the reader first if there is none. Example: `fedrec bench requests --json`
    """
    import json

    from fedrec.files import replace_file
    from fedrec_sim.queries.bench import bench_requests
    from fedrec_sim.queries.reading import query_model_of

    with Progress(console=errors, transient=True) as progress:
        found = bench_requests(folder / run, lambda world: query_model_of(world, progress), _say)
    if out is not None:
        replace_file(out, (json.dumps(found, indent=2) + "\n").encode())
    if as_json:
        emit_json(found)
        return
    table = Table("search", "precision@10", "seen words", "new words")
    for name, row in found["searches"].items():
        words = row["by_words"]
        table.add_row(name, f"{row['precision_at_10']:.3f}", f"{words['seen']:.3f}", f"{words['new']:.3f}")
    console.print(table)
    table = Table("ranked by", "NDCG@10 (B)")
    for name, row in found["personal"]["ndcg_at_10"].items():
        table.add_row(name, f"{row['mean']:.4f} ± {row['standard_error']:.4f}")
    console.print(table)


def _say(line: str) -> None:
    errors.print(line, highlight=False, markup=False)
