"""Commands for a ledger's owner: `privacy ledger show|verify|export|budget|adopt`.

What opens ledgers and counts epsilon is imported when a command runs, so that `--help` stays quick.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column, Table
from rich.text import Text

from fedrec.errors import ConfigError, LedgerError
from fedrec.files import read_file, replace_file, storage_errors
from fedrec_sim.cli_output import DEFAULT_RUNS, AsJson, RunsFolder, console, emit_json
from fedrec_sim.figures import printable
from fedrec_sim.run import read_run

if TYPE_CHECKING:
    from fedrec.privacy.ledger import PrivacyLedger
    from fedrec.privacy.ledger_chain import Chain
    from fedrec.privacy.ledger_report import LedgerReport

ledger = typer.Typer(no_args_is_help=True, help="A partner's account of what one data set has paid.")
Paths = Annotated[list[Path] | None, typer.Argument(help="Ledger files, NAME.sqlite.")]
RunName = Annotated[str | None, typer.Option("--run", help="All ledgers of a run instead.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@ledger.command()
def show(paths: Paths = None, run: RunName = None, folder: RunsFolder = DEFAULT_RUNS, as_json: AsJson = False) -> None:
    """Show budget, what is spent and for what. Example: `fedrec privacy ledger show --run demo`"""
    chains = {path: _open(path).chain() for path in _chosen(paths, run, folder)}
    if as_json:
        emit_json({"ledgers": [_shown(path, chain) for path, chain in chains.items()]})
        return
    for path, chain in chains.items():
        console.print(_plans_table(path, chain))
    if len(chains) > 1:
        console.print(_overview(chains))


@ledger.command()
def verify(
    paths: Paths = None,
    run: RunName = None,
    witness: Annotated[Path | None, typer.Option(help="An earlier export that was kept elsewhere.")] = None,
    folder: RunsFolder = DEFAULT_RUNS,
    as_json: AsJson = False,
) -> None:
    """Check every record and the anchor; exit code 12 if one does not hold. Takes exports as well.

    Example: `fedrec privacy ledger verify --run demo --witness demo-ledgers.json`
    """
    chosen = _chosen(paths, run, folder)
    witnesses = _exported(witness) if witness else None
    reports: list[tuple[Path, LedgerReport]] = []
    problems: list[LedgerError] = []
    for path in chosen:
        try:
            reports += [(path, report) for report in _verified(path, witnesses)]
        except LedgerError as error:
            problems.append(error)
    if as_json:
        listed = [{"path": str(path), **asdict(report)} for path, report in reports]
        emit_json({"ledgers": listed, "problems": [error.problem for error in problems]})
    elif reports:
        console.print(_reports_table(reports))
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise LedgerError.of_all((error.problem for error in problems), problems[0].remedy)


@ledger.command()
def export(
    out: Annotated[Path, typer.Option(help="A new JSON file.")],
    paths: Paths = None,
    run: RunName = None,
    folder: RunsFolder = DEFAULT_RUNS,
    as_json: AsJson = False,
) -> None:
    """Write records, hashes and totals as JSON; kept elsewhere, it is a witness for `verify`.

    Example: `fedrec privacy ledger export --run demo --out demo-ledgers.json`
    """
    from fedrec.privacy.ledger_report import export_bytes

    chains = [_open(path).chain() for path in _chosen(paths, run, folder)]
    if out.exists():
        raise ConfigError(f"{out}: is there already; a witness is never overwritten", "choose another name")
    with storage_errors(out.parent):
        replace_file(out, export_bytes(chains))
    records = sum(len(chain.records) for chain in chains)
    _done({"out": str(out), "ledgers": len(chains), "records": records}, as_json)


@ledger.command()
def budget(
    epsilon: Annotated[float, typer.Option(help="What all releases together may cost.")],
    delta: Annotated[float, typer.Option(help="At this delta.")],
    paths: Paths = None,
    run: RunName = None,
    yes: Yes = False,
    folder: RunsFolder = DEFAULT_RUNS,
    as_json: AsJson = False,
) -> None:
    """Change the budget, for all to see.

    Example: `fedrec privacy ledger budget shop.sqlite --epsilon 4 --delta 1e-6`
    """
    question = f"set the budget to epsilon {epsilon:g} at delta {delta:g}"
    _change(_chosen(paths, run, folder), question, yes, as_json, lambda one: one.set_budget(epsilon, delta))


@ledger.command()
def adopt(
    lost_rounds: Annotated[int, typer.Option(help="No fewer than the rounds since the copy was made.", min=0)],
    reason: Annotated[str, typer.Option(help="For those who read the ledger.")],
    paths: Paths = None,
    run: RunName = None,
    yes: Yes = False,
    folder: RunsFolder = DEFAULT_RUNS,
    as_json: AsJson = False,
) -> None:
    """Accept a restored backup or a moved file as the ledger, and charge the rounds that it has lost.

    Example: `fedrec privacy ledger adopt shop.sqlite --lost-rounds 20 --reason "disk failed, backup of Sunday"`
    """
    question = f"adopt with {lost_rounds} lost rounds; no other copy will ever be used again"
    _change(
        _chosen(paths, run, folder),
        question,
        yes,
        as_json,
        lambda one: one.adopt(lost_rounds=lost_rounds, reason=reason),
    )


def _chosen(paths: list[Path] | None, run: str | None, folder: Path) -> list[Path]:
    if (run is None) == (not paths):
        raise ConfigError("give either ledger files or --run", "for example --run demo")
    if paths:
        return paths
    read_run(folder / (run or ""))
    ledgers = folder / (run or "") / "ledger"
    found = sorted(ledgers.rglob("*.sqlite"))
    if not found and any(ledgers.glob("*.pool")):
        raise ConfigError(f"run {run} keeps its ledgers in a pool", 'simulate with private.ledger = "own" to see each')
    if not found:
        raise ConfigError(f"run {run} has no ledgers", "only rows under differential privacy have them")
    return found


def _open(path: Path) -> PrivacyLedger:
    from fedrec.privacy.ledger import PrivacyLedger

    return PrivacyLedger(path)


def _change(
    paths: Sequence[Path], question: str, yes: bool, as_json: bool, change: Callable[[PrivacyLedger], None]
) -> None:
    """Ask once, then change every ledger."""
    if not yes:
        _confirm(f"{question} in {', '.join(map(str, paths))}?")
    for path in paths:
        change(_open(path))
    chains = {path: _open(path).chain() for path in paths}
    if as_json:
        emit_json({"ledgers": [_shown(path, chain) for path, chain in chains.items()]})
    else:
        console.print(_overview(chains))


def _confirm(question: str) -> None:
    try:
        agreed = typer.confirm(printable(question), err=True)
    except typer.Abort:  # nobody there to answer
        agreed = False
    if not agreed:
        raise ConfigError("not confirmed; nothing was changed", "answer y, or give --yes")


def _verified(path: Path, witnesses: Sequence[Chain] | None) -> list[LedgerReport]:
    """Of a ledger, or of all the ledgers in an export."""
    from fedrec.privacy.ledger_report import check_witness, report_of

    if path.is_file() and _starts_as_json(path):
        chains: Sequence[Chain] = _exported(path)
    else:
        chains = [_open(path).chain()]
    for chain in chains if witnesses is not None else ():
        known = {seen.ledger_id: seen.mark for seen in witnesses or ()}
        if chain.ledger_id not in known:
            raise LedgerError(f"{path}: the witness saw no ledger of this id", "give an export of this one")
        check_witness(chain, known[chain.ledger_id], str(path))
    return [report_of(chain) for chain in chains]


def _starts_as_json(path: Path) -> bool:
    with storage_errors(path), path.open("rb") as file:
        return file.read(1) == b"{"


def _exported(path: Path) -> tuple[Chain, ...]:
    from fedrec.privacy.ledger_report import read_export

    return read_export(path, read_file(path))


def _done(values: dict[str, Any], as_json: bool) -> None:
    if as_json:
        emit_json(values)
    else:
        console.print(", ".join(f"{key}: {printable(str(value))}" for key, value in values.items()), markup=False)


def _shown(path: Path, chain: Chain) -> dict[str, Any]:
    return {
        "path": str(path),
        "ledger_id": chain.ledger_id,
        "partner": chain.partner,
        "dataset": chain.dataset,
        "budget": asdict(chain.budget),
        "spent": chain.spent(),
        "remaining": chain.remaining(),
        "plans": _plans(chain),
        "first_time": _time(chain.records[0].time_utc_s),
        "last_time": _time(chain.records[-1].time_utc_s),
        "unreleased": list(chain.unreleased()),
    }


def _plans(chain: Chain) -> list[dict[str, Any]]:
    """A row for each kind of event: what those alone cost, which adds up to more than they cost together."""
    from fedrec.privacy.accounting import epsilon_pld

    return [
        {
            "plan_hash": charge.plan_hash,
            "run": charge.run,
            "part": charge.event[0],
            "events": charge.count,
            "sampling_prob": charge.event[1],
            "noise_multiplier": charge.event[2],
            "steps": charge.event[3],
            "epsilon_alone": epsilon_pld([charge.total()], chain.budget.delta),
        }
        for charge in chain.charges
    ]


def _plans_table(path: Path, chain: Chain) -> Table:
    shown = _shown(path, chain)
    title = (
        f"{shown['partner']}, {shown['dataset']}: epsilon {shown['spent']:.4f} of {chain.budget.epsilon:g} spent at "
        f"delta {chain.budget.delta:g}, {shown['remaining']:.4f} remaining"
    )
    caption = (
        f"{path}\n{len(chain.records)} records, {shown['first_time']} to {shown['last_time']}, "
        f"{len(shown['unreleased'])} reserved and never released"
    )
    columns = ("plan", "part", "events", "sampling_prob", "noise_multiplier", "epsilon alone")
    table = Table(*columns, title=Text(printable(title)), caption=Text(printable(caption)))
    for plan in shown["plans"]:
        names = (Text(printable(plan["plan_hash"][:8])), Text(printable(plan["part"])), str(plan["events"]))
        figures = (f"{plan[key]:.4g}" for key in ("sampling_prob", "noise_multiplier"))
        table.add_row(*names, *figures, f"{plan['epsilon_alone']:.4f}")
    return table


def _overview(chains: dict[Path, Chain]) -> Table:
    table = Table(Column("ledger", overflow="fold"), "partner", "budget", "spent", "remaining", "unreleased")
    for path, chain in chains.items():
        names = (Text(printable(str(word))) for word in (path, chain.partner))
        given = f"{chain.budget.epsilon:g} at {chain.budget.delta:g}"
        spent, remaining = f"{chain.spent():.4f}", f"{chain.remaining():.4f}"
        table.add_row(*names, given, spent, remaining, str(len(chain.unreleased())))
    return table


def _reports_table(reports: Sequence[tuple[Path, LedgerReport]]) -> Table:
    table = Table(
        Column("ledger", overflow="fold"), "partner", "records", "newest", "spent", "remaining", "clock set back"
    )
    for path, report in reports:
        names = (Text(printable(str(word))) for word in (path, report.partner))
        jumps = ", ".join(f"row {seq}: {back_s:.0f} s" for seq, back_s in report.clock_jumps) or "-"
        figures = (f"{report.spent:.4f}", f"{report.remaining:.4f}", jumps)
        table.add_row(*names, str(report.records), report.head_hash[:8], *figures)
    return table


def _time(time_utc_s: float) -> str:
    return datetime.fromtimestamp(time_utc_s, UTC).isoformat(timespec="seconds")
