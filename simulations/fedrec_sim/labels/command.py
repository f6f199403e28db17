"""`fedrec bench labels`: the command."""

import json
from functools import cache
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from fedrec.errors import ConfigError
from fedrec_sim.cli_output import DEFAULT_RUNS, AsJson, RunsFolder, command_line, console, emit_json, errors

NAME = "labels"


def labels(
    part: Annotated[str, typer.Argument(help="active, pseudo, alignment or start; without it, all.")] = "",
    seeds: Annotated[
        list[int] | None, typer.Option("--seed", help="Of training; repeat it. Default: 21, 22, 23.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on with what was begun in runs/labels.")] = False,
    to: Annotated[Path | None, typer.Option(help="Put the figures into this JSON file; its other parts stay.")] = None,
    folder: RunsFolder = DEFAULT_RUNS,
    as_json: AsJson = False,
) -> None:
    """What can be done with fewer labels, on MovieLens-100K over three seeds: docs/labels.md.

    active: new users are asked about 1 to 10 items, by six ways to choose them, of an adapter at epsilon 8; minutes.
    pseudo: a task head labels the rows that nobody answered. alignment: new items get the behaviour that their text
    predicts. start: what an adapter has learnt from the catalogue alone is worth.
    Example: `fedrec bench labels active --json`
    """
    from fedrec_sim.labels.bench import SEEDS, Part, all_parts, labels_config
    from fedrec_sim.labels.page import active_svg, text
    from fedrec_sim.run import commit_of_checkout, hold_run, read_run, resume_run, start_run
    from fedrec_sim.world import load_world, settle_hardware

    parts = get_args(Part)
    if part and part not in parts:
        raise ConfigError(f"{part!r} is no part of the bench", f"name one of {', '.join(parts)}, or none for all")
    with hold_run(folder, NAME, resume=resume) as place:
        config = read_run(place).config if resume else settle_hardware(labels_config())
        run = resume_run(place) if resume else start_run(place, config, command_line())
        with run.timed():
            found = all_parts(
                (part,) if part else parts, run, cache(lambda: load_world(config, _say)), _say, seeds or SEEDS
            )
        stamp = {"command": command_line(), "commit": commit_of_checkout()}
    result: dict[str, Any] = {name: of | stamp for name, of in found.items()}
    if to is not None:
        kept = json.loads(to.read_text(encoding="utf-8")) if to.is_file() else {}
        to.write_text(json.dumps(kept | result, indent=1) + "\n", encoding="utf-8")
        if "active" in result:
            to.with_name(f"{to.stem}-active.svg").write_text(active_svg(result["active"]), encoding="utf-8")
    if as_json:
        emit_json(result)
        return
    console.print(text(result), markup=False, highlight=False)


def _say(line: str) -> None:
    errors.print(line, markup=False, highlight=False)
