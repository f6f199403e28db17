"""`fedrec bench`: how much the private step costs beside the plain one, in one interleaved run."""

import statistics
import time
from collections.abc import Callable
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from fedrec.config import load_config
from fedrec_sim.cli_output import DEMO, AsJson, console, emit_json

bench = typer.Typer(no_args_is_help=True, help="Benchmarks: ratios from one interleaved run, never bare seconds.")


@bench.callback()
def _keep_subcommands() -> None:
    """Typer would make a single command the group itself."""


@bench.command("dp-step")
def dp_step(
    users: Annotated[int, typer.Option(help="Users a step.", min=1)] = 16,
    repeats: Annotated[int, typer.Option(help="Pairs of steps.", min=2)] = 5,
    as_json: AsJson = False,
) -> None:
    """Time a plain LoRA step and a private one (hooks, clipping, noise) in turn. Example: `fedrec bench dp-step`"""
    from fedrec.model.recommender import part_names
    from fedrec.privacy.noise import NoiseSource
    from fedrec.training.local import ContextCache, PlainSettings, PrivateStep, private_step, train_plain
    from fedrec_sim.world import load_world

    world = load_world(load_config(DEMO))
    histories = world.corpus(1).histories[:users]
    model = world.model(world.config.private.shape, 1)
    names, length = part_names(model, ["lora"]), world.config.data.max_history
    settings = PlainSettings(1e-4, 0.0, users, length)

    def plain() -> None:
        train_plain(model, names, histories, settings, epochs=1, rng=np.random.default_rng(0))

    def private() -> None:
        step = PrivateStep("lora", 1.0, 0.3, noise_std=1e-6, learning_rate=1e-6, max_history=length)
        private_step(model, names, histories, step, NoiseSource.fresh(b"bench"), ContextCache())

    pairs = [(_seconds(plain), _seconds(private)) for _ in range(repeats + 1)][1:]  # the first pair warms up
    ratios = [private_s / plain_s for plain_s, private_s in pairs]
    result = {
        "users": len(histories),
        "pairs": repeats,
        "plain_s": statistics.median(pair[0] for pair in pairs),
        "private_s": statistics.median(pair[1] for pair in pairs),
        "private_over_plain": statistics.median(ratios),
        "private_over_plain_range": [min(ratios), max(ratios)],
    }
    if as_json:
        emit_json(result)
        return
    table = Table("figure", "value")
    for name, value in result.items():
        table.add_row(name, str(value))
    console.print(table)


def _seconds(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
