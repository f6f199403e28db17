"""`fedrec bench`: how fast training is, what the private step costs, and what more partners and their load cost."""

import json
import statistics
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from fedrec.config import load_config
from fedrec_sim import cli_bench_causal, cli_bench_peft, cli_bench_serve, cli_query, cli_support, cli_tasks
from fedrec_sim.cli_output import CONFIGS, DEMO, AsJson, command_line, console, emit_json, errors
from fedrec_sim.fairness import command as fairness_command
from fedrec_sim.labels import command as labels_command

bench = typer.Typer(no_args_is_help=True, help="Benchmarks: ratios from one run, never bare seconds.")
bench.command("serve")(cli_bench_serve.serve)
bench.command("serve-scale")(cli_bench_serve.serve_scale)
bench.command("soak")(cli_bench_serve.soak)
bench.command("requests")(cli_query.requests)
bench.command("requests-learned")(cli_query.requests_learned)
bench.command("requests-joint")(cli_query.requests_joint)
bench.command("fairness")(fairness_command.fairness)
bench.command("labels")(labels_command.labels)
bench.command("tasks")(cli_tasks.bench_tasks_command)
bench.command("support")(cli_support.bench_support)
bench.command("sentiment")(cli_support.bench_sentiment)
bench.command("causal")(cli_bench_causal.causal)
bench.command("peft")(cli_bench_peft.peft)


@bench.command("dp-step")
def dp_step(
    users: Annotated[int, typer.Option(help="Users a step.", min=1)] = 16,
    repeats: Annotated[int, typer.Option(help="Rounds; in each, every way steps once.", min=3)] = 25,
    as_json: AsJson = False,
) -> None:
    """Time one LoRA step four ways in turn: plain, ours, Opacus's hooks, Opacus's ghost clipping.

    The demo's model, users and LoRA rank; ratios are medians of paired steps, and `oracle_error` is the largest
    relative error of a user's gradient against a pass with that user alone. Example: `fedrec bench dp-step --json`
    """
    result = _measure(users, repeats)
    if as_json:
        emit_json(result)
        return
    ways: dict[str, dict[str, Any]] = result["ways"]
    table = Table("way", "seconds a step", "peak memory, MB", "ours over it")
    for way, figures in ways.items():
        over = result[f"ours_over_{way}"] if way != "ours" else 1.0
        memory = figures["peak_bytes"]
        table.add_row(
            way, f"{figures['median_s']:.3f}", "-" if memory is None else f"{memory / 1e6:.0f}", f"{over:.3f}"
        )
    console.print(table)
    console.print(
        f"{result['users']} users, {result['positions']} positions; oracle error {result['oracle_error']:.1e}"
    )


@bench.command("train")
def train(
    users: Annotated[int, typer.Option(help="Users of an epoch.", min=2)] = 128,
    repeats: Annotated[int, typer.Option(help="Epochs of each phase, in turn with products.", min=3)] = 5,
    as_json: AsJson = False,
) -> None:
    """Time plain training of everything, and of the head alone, beside this machine's own matrix products.

    leaderboard.toml's model and users, in batches of `central_batch_users`; `matmul_share` is useful operations over
    what large products in the frozen weights' dtype do in that time. Example: `fedrec bench train --json`
    """
    result = _measure_training(users, repeats)
    if as_json:
        emit_json(result)
        return
    table = Table("phase", "users a second", "tokens a second", "share of the products' rate")
    for phase, figures in result["phases"].items():
        cells = (f"{figures['users_per_s']:.1f}", f"{figures['tokens_per_s']:,.0f}", f"{figures['matmul_share']:.2f}")
        table.add_row(phase, *cells)
    console.print(table)
    rates = ", ".join(f"{name} {rate / 1e9:.0f}" for name, rate in result["matmul_operations_per_s"].items())
    console.print(f"{result['users']} users, {result['threads']} threads; products, 10^9 operations a second: {rates}")


@bench.command("scale")
def scale(
    partners: Annotated[list[int] | None, typer.Option(help="How many partners; repeat it.", min=1)] = None,
    users_per_partner: Annotated[int, typer.Option(help="Users a partner, on average.", min=1)] = 2,
    engine: Annotated[str, typer.Option(help="inline or ray.")] = "inline",
    as_json: AsJson = False,
) -> None:
    """Run scale.toml's private row with 100, 1,000 and 10,000 partners, each in a process of its own.

    Tells peak memory, and time per partner and round, with their growth. Made users; nothing is evaluated. Minutes.
    Example: `fedrec bench scale --partners 100 --partners 1000 --json`
    """
    from fedrec_sim.bench_scale import sweep

    result = sweep(partners or [100, 1000, 10_000], users_per_partner, engine)
    if as_json:
        emit_json(result)
        return
    table = Table("partners", "users", "peak memory, MB", "over the first", "s a round", "ms per partner and round")
    for size in result["sizes"]:
        table.add_row(
            f"{size['partners']:,}",
            f"{size['users']:,}",
            f"{size['peak_rss_bytes'] / 1e6:.0f}",
            f"{size['peak_over_first']:.2f}",
            f"{size['seconds_per_round']:.1f}",
            f"{size['ms_per_partner_and_round']:.1f}",
        )
    console.print(table)
    console.print(f"generated users, engine {engine}")


@bench.command("images")
def images(
    seeds: Annotated[list[int] | None, typer.Option("--seed", help="Of made users and training; repeat it.")] = None,
    noise: Annotated[bool, typer.Option(help="Train at epsilon 8 as well.")] = True,
    out: Annotated[Path | None, typer.Option(help="Write the JSON into this file too.")] = None,
    as_json: AsJson = False,
) -> None:
    """What pictures add to texts, and what is lost without one of the two; on Debian's stamps, with made users.

    Trains stamps.toml's rows on text, image and both, and asks the last with one of them taken away. Minutes.
    Example: `fedrec bench images --json`
    """
    from fedrec_sim.bench_images import ROWS, WAYS, measure

    def say(line: str) -> None:
        errors.print(line, markup=False, highlight=False, soft_wrap=True)

    kinds = list(ROWS) if noise else list(ROWS)[:1]
    result = measure(load_config(CONFIGS / "stamps.toml"), seeds or [1, 2, 3], command_line(), say, kinds)
    if out is not None:
        out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if as_json:
        emit_json(result)
        return
    table = Table("trained", "asked", "NDCG@10 (B)", "std over seeds")
    for kind, ways in result["ways"].items():
        for way in WAYS:
            table.add_row(kind, way, f"{ways[way]['ndcg@10']:.4f}", f"{ways[way]['ndcg@10_std']:.4f}")
    console.print(table)
    console.print(f"{result['n_users']} made users: {result['data']['users']}")


@bench.command("network")
def network(
    partners: Annotated[list[int] | None, typer.Option(help="How many partners; repeat it.", min=1)] = None,
    rounds: Annotated[int, typer.Option(help="How many rounds.", min=1, max=100)] = 3,
    adapter_kib: Annotated[int, typer.Option(help="Size of the adapter, and of an answer.", min=8)] = 469,
    idle_s: Annotated[float, typer.Option(help="How long presence alone is measured.", min=0)] = 30.0,
    folder: Annotated[Path, typer.Option("--dir", help="Folder of everything; made anew.")] = Path("runs/load"),
    out: Annotated[Path | None, typer.Option(help="Write the JSON into this file too.")] = None,
    as_json: AsJson = False,
) -> None:
    """Load a real coordinator on this machine with 100 and 1,000 partners that answer at once, all in this process.

    SuperLink, gateway and driver are the real processes, TLS and every signature included; partners train nothing,
    and the answer of 469 KiB is as large as that of the demo's private head. Minutes, and with 1,000 an hour.
    Example: `fedrec bench network --partners 100 --out load.json`
    """
    from fedrec_sim.load.network import Load, sweep
    from fedrec_sim.run import commit_of_checkout

    def say(line: str) -> None:
        errors.print(line, markup=False, highlight=False, soft_wrap=True)

    loads = [Load(number, rounds, adapter_kib * 256, idle_s) for number in partners or [100, 1000]]
    result = {"command": command_line(), "commit": commit_of_checkout(), **sweep(folder, loads, say)}
    if out is not None:
        out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if as_json:
        emit_json(result)
        return
    console.print(_network_table(result))


@bench.command("secagg")
def secagg(
    partners: Annotated[list[int] | None, typer.Option(help="In the sum; repeat it. Default: 10, 100, 300.")] = None,
    parameters: Annotated[int, typer.Option(help="Numbers that are added up.", min=1)] = 1_000_000,
    bits: Annotated[int, typer.Option(help="Of a number in the sum.", min=16, max=32)] = 28,
    lost: Annotated[float, typer.Option(help="Share of the partners whose vectors never come.", min=0, max=0.3)] = 0.1,
    step: Annotated[bool, typer.Option(help="Also time one step of training, for scale.")] = True,
    out: Annotated[Path | None, typer.Option(help="Write the figures there as well, as JSON.")] = None,
    as_json: AsJson = False,
) -> None:
    """Time sums under masks: each partner's work over all five steps, and the coordinator's, all in one process.

    Beside them one step of training, and what Flower's SecAgg+ takes for its masks and shares. With one `--partners`,
    its figures stand at the top of the JSON as well. Example: `fedrec bench secagg --partners 100 --json`
    """
    from fedrec.errors import ConfigError
    from fedrec.secagg.graph import LEAST_PARTNERS
    from fedrec_sim.bench_secagg import measure_flower, measure_step, measure_sum
    from fedrec_sim.run import commit_of_checkout

    def say(line: str) -> None:
        errors.print(line, markup=False, highlight=False, soft_wrap=True)

    asked = partners or [10, 100, 300]
    if min(asked) < LEAST_PARTNERS:
        raise ConfigError(f"sums under masks of {min(asked)} partners hide nothing", f"--partners {LEAST_PARTNERS}")
    sizes = [
        {**measure_sum(n, parameters, bits, lost, say), "flower_secagg_plus": measure_flower(n, parameters)}
        for n in asked
    ]
    result = {"command": command_line(), "commit": commit_of_checkout(), "sizes": sizes}
    result |= measure_step() if step else {}
    result |= sizes[0] if len(sizes) == 1 else {}
    if out is not None:
        out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if as_json:
        emit_json(result)
        return
    table = Table("partners", "neighbours", "lost", "partner, s", "bytes / fp32", "coordinator, s", "SecAgg+ client, s")
    for size in sizes:
        table.add_row(
            f"{size['partners']:,}",
            f"{size['neighbours']}",
            f"{size['lost']}",
            f"{size['partner_s']:.2f}",
            f"{size['bytes_over_fp32']:.2f}",
            f"{size['coordinator_s']:.1f}",
            f"{size['flower_secagg_plus']['client_s']:.1f}",
        )
    console.print(table)
    if step:
        console.print(f"one step of training on {result['users']} users: {result['training_step_s']:.2f} s")


def _network_table(result: dict[str, Any]) -> Table:
    table = Table("partners", "s a round", "lost", "kB up", "kB down", "calls", "peak MB and CPU s a round")
    for size in result["sizes"]:
        memory, cpu = size["peak_rss_bytes"], size["cpu_s_per_round"]
        table.add_row(
            f"{size['partners']:,}",
            f"{size['median_s']:.1f}",
            f"{sum(size['lost'].values())}",
            f"{size['wire_bytes_up'] / 1e3:.0f}",
            f"{size['wire_bytes_down'] / 1e3:.0f}",
            f"{size['calls_per_partner']:.1f}",
            ", ".join(f"{name} {memory[name] / 1e6:.0f} and {cpu[name]:.1f}" for name in cpu),
        )
    return table


def _measure_training(users: int, repeats: int) -> dict[str, Any]:
    from fedrec.training.local import PlainSettings
    from fedrec_sim.bench_train import measure
    from fedrec_sim.world import load_world

    world = load_world(load_config(CONFIGS / "leaderboard.toml"))
    plain, max_history = world.config.plain, world.config.data.max_history
    settings = PlainSettings(plain.learning_rate, plain.weight_decay, plain.central_batch_users, max_history)
    histories = world.corpus(1).histories[:users]
    return measure(world.model(plain.shape, 1), histories, settings, repeats=repeats)


def _measure(users: int, repeats: int) -> dict[str, Any]:
    from fedrec_sim.bench_step import WAYS, StepBench, interleaved, peak_bytes, ratios
    from fedrec_sim.world import load_world

    # Full precision, so that the error is the method's.
    world = load_world(load_config(DEMO, ('model.dtype="float32"',)))
    model = world.model(world.config.private.shape, 1)
    bench_of = StepBench.of(model, world.corpus(1).histories[:users], world.config.data.max_history)
    with warnings.catch_warnings():
        # Item tokens need no gradient of their own; Opacus's hooks fire on the outputs, which is all it uses.
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        errors = bench_of.oracle_errors()
        rounds = interleaved(bench_of.step, repeats)
        peaks = {way: peak_bytes(bench_of.step, way, bench_of.parameters[0].device) for way in WAYS}
    paired = {way: ratios(rounds, over=way) for way in WAYS if way != "ours"}
    return {
        "users": users,
        "positions": sum(batch.items.numel() for batch in bench_of.batches),
        "rounds": repeats,
        **{f"ours_over_{way}": ratio["median"] for way, ratio in paired.items()},
        "quartiles": {way: [ratio["lower_quartile"], ratio["upper_quartile"]] for way, ratio in paired.items()},
        "oracle_error": errors["alone"],
        "oracle_error_same_pass": errors["same_pass"],
        "ways": {
            way: {"median_s": statistics.median(seconds[way] for seconds in rounds), "peak_bytes": peaks[way]}
            for way in WAYS
        },
    }
