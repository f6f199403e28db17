"""`fedrec rehearse`: the whole network on one machine, with faults."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fedrec.errors import ConfigError, RunError
from fedrec.secagg.graph import LEAST_PARTNERS
from fedrec_sim.cli_output import AsJson, command_line, console, emit_json, errors

Many = list[str] | None
RehearsedMode = Literal["inspect", "secagg"]
RehearsedTask = Literal["click", "rating"]


def rehearse(
    partners: Annotated[int, typer.Option(help="How many partners.", min=1, max=20)] = 3,
    rounds: Annotated[
        int | None, typer.Option(help="How many rounds; 3 if not given, of a task 9.", min=1, max=1000)
    ] = None,
    kill: Annotated[Many, typer.Option(help="SIGKILL WHO@ROUND, as server@2 or client-1@1; repeat it.")] = None,
    partition: Annotated[Many, typer.Option(help="Cut WHO@ROUND:SECONDSs off, as client-2@1:20s.")] = None,
    garbage: Annotated[Many, typer.Option(help="A partner that answers nonsense, as client-3.")] = None,
    disk_full: Annotated[Many, typer.Option(help="No file of the coordinator may grow, as server@2.")] = None,
    mode: Annotated[
        RehearsedMode, typer.Option(help="inspect: answers are seen; secagg: they are added up under masks.")
    ] = "inspect",
    folder: Annotated[Path, typer.Option("--dir", help="Folder of everything; made anew.")] = Path("runs/rehearsal"),
    train: Annotated[bool, typer.Option(help="Before that, train the demo's model over the network.")] = True,
    pages: Annotated[
        bool, typer.Option("--pages", help="Then use the admin pages in headless Chromium; needs playwright.")
    ] = False,
    serve: Annotated[
        bool, typer.Option("--serve", help="Instead: three partners that serve while they train; none of the above.")
    ] = False,
    task: Annotated[
        RehearsedTask | None, typer.Option(help="Instead: train this task's head, and ask it about rows held back.")
    ] = None,
    epsilon: Annotated[float, typer.Option(help="Of --task, at delta 1e-5.", min=0.1, max=8.0)] = 8.0,
    as_json: AsJson = False,
) -> None:
    """Run a coordinator and partners as real processes over TLS on this machine, and check what came of it.

    Partners hold MovieLens-100K and pay from real ledgers. First the demo's model is trained. Then, with the faults,
    they answer with powers of two in place of trained differences: every loss or double count shows in the sum, and
    the time is that of everything but training. Some 3 minutes. With `--pages`, screenshots lie in `pages/`.

    With `--serve`, some 6 minutes: rounds wait for a partner's wish, events come by HTTP, adapters are replayed before
    they serve; a user is deleted and a node killed, while people ask for lists all the time.

    With `--task`, some 5 minutes: a coordinator without torch and nodes that import ratings train a task's head, and
    each node asks it about a quarter of its rows that it had held back, as docs/tasks.md tells.

    Examples: `fedrec rehearse --kill server@2 --partition client-2@1:20s --garbage client-3 --json` ·
    `fedrec rehearse --task rating --mode secagg --json`
    """
    if mode == "secagg" and partners < LEAST_PARTNERS:
        raise ConfigError(f"sums under masks of {partners} partners hide nothing", f"--partners {LEAST_PARTNERS}")
    is_faulty = bool(kill or partition or garbage or disk_full)
    if serve:
        if is_faulty or pages or task or mode != "inspect":
            raise ConfigError("--serve is a rehearsal of its own", "leave out faults, --mode, --pages and --task")
        _rehearse_serving(folder, as_json)
        return
    if task is not None:
        if is_faulty or pages:
            raise ConfigError("--task is a rehearsal of its own", "leave out faults and --pages")
        if rounds == 1:
            raise ConfigError("one round asks about items, and trains no head", "--rounds 2 or more")
        size: dict[str, Any] = {"partners": partners, "mode": mode, "epsilon": epsilon}
        size |= {} if rounds is None else {"rounds": rounds}
        _rehearse_head(folder, task, size, as_json)
        return
    rounds = rounds or 3
    from fedrec_sim.rehearsal.faults import parse_faults
    from fedrec_sim.rehearsal.pages import rehearse_pages
    from fedrec_sim.rehearsal.rehearse import rehearse_sums, rehearse_training
    from fedrec_sim.run import commit_of_checkout

    names = [f"client-{number}" for number in range(1, partners + 1)]
    faults = parse_faults("kill", kill or [], names, rounds) + parse_faults("partition", partition or [], names, rounds)
    faults += parse_faults("garbage", garbage or [], names, rounds)
    faults += parse_faults("disk-full", disk_full or [], names, rounds)

    size = {"partners": partners, "rounds": rounds, "mode": mode}
    trained = rehearse_training(folder / "training", **size, say=_say) if train else None
    found = rehearse_sums(folder / "sums", **size, faults=faults, say=_say)
    walked = rehearse_pages(folder / "pages", say=_say) if pages else None
    found |= {"training": trained, "pages": walked, "command": command_line(), "commit": commit_of_checkout()}
    every = {"exact_sum": found["exact_sum"], **found["checks"]}
    every |= {f"training: {name}": holds for name, holds in (trained or {}).get("checks", {}).items()}
    every |= {f"pages: {name}": holds for name, holds in (walked or {}).get("checks", {}).items()}
    words = f"{found['rounds_committed']} rounds, {found['overhead_s_per_round']} s each without training"
    _tell(found, every, words, folder, as_json)


def _rehearse_serving(folder: Path, as_json: bool) -> None:
    from fedrec_sim.rehearsal.serving import ROUNDS, rehearse_serving
    from fedrec_sim.run import commit_of_checkout

    found = rehearse_serving(folder / "serving", say=_say)
    found |= {"command": command_line(), "commit": commit_of_checkout()}
    words = f"{ROUNDS} rounds on wish, {found['lists']['answered']} lists answered meanwhile"
    _tell(found, found["checks"], words, folder, as_json)


def _rehearse_head(folder: Path, task: RehearsedTask, size: dict[str, Any], as_json: bool) -> None:
    from fedrec_sim.rehearsal.heads import rehearse_head
    from fedrec_sim.run import commit_of_checkout

    found = rehearse_head(folder / task, task=task, **size, say=_say)
    found |= {"command": command_line(), "commit": commit_of_checkout()}
    figures = (
        ", ".join(f"{name} {value:.4f}" for name, value in found[key].items()) for key in ("figures", "simulated")
    )
    words = "{}; simulated {}".format(*figures)
    _tell(found, found["checks"], f"{found['rounds_committed']} rounds: {words}", folder, as_json)


def _say(line: str) -> None:
    errors.print(line, markup=False, highlight=False, soft_wrap=True)


def _tell(found: dict[str, Any], every: dict[str, bool], words: str, folder: Path, as_json: bool) -> None:
    """Raises RunError: something does not hold."""
    if as_json:
        emit_json(found)
    else:
        console.print(words)
        for name, holds in every.items():
            console.print(f"{'holds' if holds else 'FAILS'}  {name}")
    if not all(every.values()):
        raise RunError("the rehearsal failed", f"read the logs in {folder}")
