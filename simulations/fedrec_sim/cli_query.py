"""`fedrec query` and `fedrec bench requests`: the commands of requests in words."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress
from rich.table import Table

from fedrec.errors import ConfigError
from fedrec.files import replace_file
from fedrec_sim.cli_output import DEFAULT_RUNS, AsJson, RunsFolder, command_line, console, emit_json, errors
from fedrec_sim.cli_runs import RunName
from fedrec_sim.run import Json

query = typer.Typer(no_args_is_help=True, help="Requests in words: teach their reader, and see what it understands.")

_TAUGHT_ANEW = "corrections of runs were learnt for the reader before: learn them anew with `fedrec query learn`"


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
    if again:
        _say(_TAUGHT_ANEW)
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
    """Say what a request is taken to ask for. Example: `fedrec query explain "a quiet 90s thriller, no horror"`

    What the run's partners taught with `fedrec query learn` counts, if they did; what that promises them is said too.
    """
    from fedrec_sim.queries.reading import corrected, promised, query_model_of, told
    from fedrec_sim.run import read_run
    from fedrec_sim.world import load_world, on_any_device

    world = load_world(on_any_device(read_run(folder / run).config), _say)
    with Progress(console=errors, transient=True) as progress:
        model = corrected(query_model_of(world, progress), folder / run)
    found = told(model.understand(text), world.catalog) | promised(folder / run)
    if as_json:
        emit_json(found)
        return
    for name, value in found.items():
        console.print(f"{name}: {value}", highlight=False, markup=False)


@query.command("learn")
def learn(
    requests: Annotated[Path, typer.Option(help="Columns user, request, item, timestamp: .csv, .jsonl, .parquet.")],
    run: RunName = "demo",
    epsilon: Annotated[
        float | None, typer.Option(help="User-level, at the run's delta; without it, no privacy.")
    ] = None,
    folder: RunsFolder = DEFAULT_RUNS,
    as_json: AsJson = False,
) -> None:
    """Let the run's partners correct the reader with real requests, and the items that were taken after them.

    Users are dealt to as many partners as the run has; each is clipped and noised, under masks, and each partner pays
    from a ledger. The correction is kept in RUN/requests with its privacy statement; `fedrec recommend --query`,
    `fedrec query explain` and `fedrec serve` of the run use it. Delete that folder, start
    `fedrec serve` anew, and the public reader is back.

    Example: `fedrec query learn --run demo --requests requests.jsonl --epsilon 8`
    """
    from fedrec.query.request_rows import read_requests
    from fedrec_sim.queries.learn_run import learn_run
    from fedrec_sim.queries.reading import query_model_of
    from fedrec_sim.run import hold_run, read_run
    from fedrec_sim.world import load_world, on_any_device

    if epsilon is not None and not epsilon > 0:
        raise ConfigError("epsilon must be > 0", "for example --epsilon 8; without it there is no privacy")
    with hold_run(folder, run, resume=True) as place:
        held = read_run(place)
        world = load_world(on_any_device(held.config), _say)
        rows = read_requests(requests, world.catalog)
        with Progress(console=errors, transient=True) as progress:
            model = query_model_of(world, progress)
            task = progress.add_task("reading requests", total=None)
            found = learn_run(
                held,
                world,
                model,
                rows,
                epsilon,
                command_line(),
                lambda done, total: progress.update(task, completed=done, total=total),
            )
    if as_json:
        emit_json(found)
        return
    promised = "no privacy" if epsilon is None else f"epsilon {found['privacy']['epsilon']:.2f}"
    told = f"{found['requests']} requests of {found['users']} users at {found['partners']} partners"
    console.print(f"learnt from {told}, {promised}: {place / 'requests'}", highlight=False, markup=False)


@query.command("make")
def make(
    out: Annotated[Path, typer.Option(help="A .jsonl file, as `fedrec query learn` reads it.")],
    run: RunName = "demo",
    folder: RunsFolder = DEFAULT_RUNS,
) -> None:
    """Write made requests of a run's users, to try `fedrec query learn` with: nobody typed them.

    Each is about an item that the user really took, in words that the public reader was never taught; seven users in
    ten have some. Example: `fedrec query make --run demo --out requests.jsonl`
    """
    from fedrec_sim.queries.user_requests import as_lines
    from fedrec_sim.run import read_run
    from fedrec_sim.world import load_world, on_any_device

    held = read_run(folder / run)
    world = load_world(on_any_device(held.config), _say)
    lines = as_lines(world.catalog, world.corpus(held.config.seeds[0]).splits, held.config.seeds[0])
    replace_file(out, "".join(f"{line}\n" for line in lines).encode())
    console.print(f"{len(lines)} made requests in {out}", highlight=False, markup=False)


def requests_learned(
    run: RunName = "demo",
    seeds: Annotated[list[int] | None, typer.Option("--seed", help="Repeat it; 1, 2 and 3 if not given.")] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the figures to this file.")] = None,
    folder: RunsFolder = DEFAULT_RUNS,
    as_json: AsJson = False,
) -> None:
    """What requests of partners' users add to the public reader, without privacy and at epsilon 8.

    The requests are made, in words that the reader was never taught. Minutes; the file is written after each seed.
    Example: `fedrec bench requests-learned --json`
    """
    import json

    from fedrec_sim.queries.bench_learned import SEEDS, bench_learned
    from fedrec_sim.queries.reading import query_model_of
    from fedrec_sim.run import read_run
    from fedrec_sim.world import load_world, on_any_device

    world = load_world(on_any_device(read_run(folder / run).config), _say)
    with Progress(console=errors, transient=True) as progress:
        model = query_model_of(world, progress)
    found: Json = {}
    for so_far in bench_learned(world, folder / run, model, seeds or SEEDS, _say):
        found = {**so_far, "command": command_line()}
        if out is not None:
            replace_file(out, (json.dumps(found, indent=2) + "\n").encode())
    if as_json:
        emit_json(found)
        return
    table = Table("reader", "precision@10", "NDCG@10, request", "with history", "published, seen words", "new words")
    for name, row in found["rows"].items():
        keys = ("precision_at_10", "request_ndcg_at_10", "personal_ndcg_at_10")
        figures = [row[key] for key in keys if key in row]
        figures += [row["published"][key] for key in ("seen", "new")] if "published" in row else []
        table.add_row(name, *(f"{figure['mean']:.3f} ± {figure['std']:.3f}" for figure in figures))
    console.print(table)


def requests_joint(
    run: RunName = "demo",
    out: Annotated[Path | None, typer.Option(help="Also write the figures to this file.")] = None,
    folder: RunsFolder = DEFAULT_RUNS,
    as_json: AsJson = False,
) -> None:
    """Read request and history in one pass of the LLM, beside reading them apart; some 15 minutes.

    Taught on published rows alone: it costs no epsilon. Example: `fedrec bench requests-joint --json`
    """
    import json

    from fedrec_sim.queries.joint_figures import bench_joint
    from fedrec_sim.queries.reading import query_model_of

    with Progress(console=errors, transient=True) as progress:
        found = bench_joint(folder / run, lambda world: query_model_of(world, progress), _say, progress)
    found["command"] = command_line()
    if out is not None:
        replace_file(out, (json.dumps(found, indent=2) + "\n").encode())
    if as_json:
        emit_json(found)
        return
    table = Table("read", "NDCG@10 alone", "NDCG@10 beside the history's model")
    for name, row in found["ndcg_at_10"].items():
        figures = [row[key] for key in ("alone", "with_history_model")]
        table.add_row(name, *(f"{figure['mean']:.4f} ± {figure['standard_error']:.4f}" for figure in figures))
    console.print(table)


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
