"""`fedrec bench peft`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from fedrec.config import load_config
from fedrec_sim.cli_output import DEMO, AsJson, command_line, console, emit_json, errors


def peft(
    seeds: Annotated[list[int] | None, typer.Option("--seed", help="Of users, split and training; repeat it.")] = None,
    users: Annotated[int, typer.Option(help="Of ML-100K, drawn by the seed; 0: all.", min=0)] = 472,
    rounds: Annotated[int, typer.Option(help="Of the language model's part, without privacy.", min=1)] = 3,
    max_history: Annotated[int, typer.Option(help="A user's latest items that are read.", min=2)] = 30,
    kinds: Annotated[list[str] | None, typer.Option("--kind", help="plain or private; both by default.")] = None,
    folder: Annotated[Path, typer.Option("--dir", help="Of finished pieces, which are not made anew.")] = Path(
        "runs/peft"
    ),
    out: Annotated[Path | None, typer.Option("--to", help="Write the JSON into this file too.")] = None,
    as_json: AsJson = False,
) -> None:
    """What each way to tune the language model adds to the head alone, what it sends and how long a step takes.

    LoRA, rsLoRA, FFA-LoRA, RoLoRA, bottlenecks and prompt vectors without privacy and at epsilon 8; AdaLoRA and DoRA
    without alone. Rates are chosen on validation of the first seed. Half an hour of one core; interrupted, it goes on.
    Example: `fedrec bench peft --json --to docs/peft.json`
    """
    from fedrec_sim.bench_peft import KINDS, bench_of, measure, smaller
    from fedrec_sim.world import load_world

    def say(line: str) -> None:
        errors.print(line, markup=False, highlight=False, soft_wrap=True)

    world = load_world(smaller(load_config(DEMO), users, max_history), say)
    asked = [kind for kind in KINDS if not kinds or kind in kinds]
    result = measure(bench_of(world, rounds, folder, say), seeds or [21, 22], command_line(), asked)
    if out is not None:
        out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if as_json:
        emit_json(result)
        return
    console.print(_table(result))
    console.print(f"{result['users'] or 'all'} users of {result['data']}, protocol B, seeds {result['seeds']}")


def _table(result: dict[str, Any]) -> Table:
    table = Table("way", "NDCG@10", "at epsilon 8", "numbers", "bytes a round", "s a step", "private")
    for way, of_way in result["ways"].items():
        plain, private, seconds = of_way.get("plain"), of_way.get("private"), of_way.get("step_s", {})
        sizes = plain or private or {"trained_numbers": 0, "bytes_up_per_round": 0}
        table.add_row(
            way,
            *(
                f"{one['ndcg@10']['mean']:.4f} ± {one['ndcg@10']['std']:.4f}" if one else "-"
                for one in (plain, private)
            ),
            f"{sizes['trained_numbers']:,}",
            f"{sizes['bytes_up_per_round']:,}",
            *(f"{seconds[kind]:.2f}" if kind in seconds else "-" for kind in ("plain", "private")),
        )
    return table
