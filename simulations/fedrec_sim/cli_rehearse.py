"""`fedrec rehearse`: the whole network on one machine, with faults."""

from pathlib import Path
from typing import Annotated

import typer

from fedrec.errors import RunError
from fedrec_sim.cli_output import AsJson, console, emit_json, errors

Many = list[str] | None


def rehearse(
    partners: Annotated[int, typer.Option(help="How many partners.", min=1, max=20)] = 3,
    rounds: Annotated[int, typer.Option(help="How many rounds.", min=1, max=1000)] = 3,
    kill: Annotated[Many, typer.Option(help="SIGKILL WHO@ROUND, as server@2 or client-1@1; repeat it.")] = None,
    partition: Annotated[Many, typer.Option(help="Cut WHO@ROUND:SECONDSs off, as client-2@1:20s.")] = None,
    garbage: Annotated[Many, typer.Option(help="A partner that answers nonsense, as client-3.")] = None,
    disk_full: Annotated[Many, typer.Option(help="No file of the coordinator may grow, as server@2.")] = None,
    folder: Annotated[Path, typer.Option("--dir", help="Folder of everything; made anew.")] = Path("runs/rehearsal"),
    as_json: AsJson = False,
) -> None:
    """Run a coordinator and partners as real processes over TLS on this machine, and check what came of it.

    Partners hold MovieLens-100K and pay from real ledgers, but answer with powers of two, so that every loss or double
    count shows in the sum, and the time is that of everything but training.

    Example: `fedrec rehearse --kill server@2 --partition client-2@1:20s --garbage client-3 --json`
    """
    from fedrec_sim.rehearsal.faults import parse_faults
    from fedrec_sim.rehearsal.rehearse import rehearse_sums

    names = [f"client-{number}" for number in range(1, partners + 1)]
    faults = parse_faults("kill", kill or [], names, rounds) + parse_faults("partition", partition or [], names, rounds)
    faults += parse_faults("garbage", garbage or [], names, rounds)
    faults += parse_faults("disk-full", disk_full or [], names, rounds)

    def say(line: str) -> None:
        errors.print(line, markup=False, highlight=False, soft_wrap=True)

    found = rehearse_sums(folder, partners=partners, rounds=rounds, faults=faults, say=say)
    if as_json:
        emit_json(found)
    else:
        console.print(f"{found['rounds_committed']} rounds, {found['overhead_s_per_round']} s each without training")
        for name, holds in {"exact_sum": found["exact_sum"], **found["checks"]}.items():
            console.print(f"{'holds' if holds else 'FAILS'}  {name}")
    if not (found["exact_sum"] and all(found["checks"].values())):
        raise RunError("the rehearsal failed", f"read the logs in {folder}")
