"""What a ledger's owner gets to see: a report, and an export that needs no SQLite and can bear witness later."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedrec.errors import LedgerError
from fedrec.files import json_bytes, sha256
from fedrec.privacy.ledger_chain import FORMAT, Budget, Chain, Mark, Record, canonical, read_chain

_WHAT = "fedrec privacy ledgers"


@dataclass(frozen=True)
class LedgerReport:
    """A checked ledger in figures; public within the partner.

    Attributes:
        records: how many.
        head_hash: of the newest record.
        spent: epsilon at the budget's delta.
        released: how many events were released.
        unreleased: events that were reserved and never released; they stay spent.
        clock_jumps: (seq, seconds back) where the clock was set back. Nothing is computed from times.
    """

    records: int
    ledger_id: str
    partner: str
    dataset: str
    head_hash: str
    budget: Budget
    spent: float
    remaining: float
    released: int
    unreleased: tuple[str, ...]
    clock_jumps: tuple[tuple[int, float], ...]


def report_of(chain: Chain) -> LedgerReport:
    """Figures of a chain."""
    return LedgerReport(
        records=len(chain.records),
        ledger_id=chain.ledger_id,
        partner=chain.partner,
        dataset=chain.dataset,
        head_hash=chain.mark.hash,
        budget=chain.budget,
        spent=chain.spent(),
        remaining=chain.remaining(),
        released=len(chain.released),
        unreleased=chain.unreleased(),
        clock_jumps=chain.clock_jumps(),
    )


def check_witness(chain: Chain, witness: Mark, name: str) -> None:
    """Refuse a ledger that does not hold what an earlier export saw.

    Raises: LedgerError: the whole disk was put back, say, or the witness belongs to another ledger.
    """
    if chain.holds(witness):
        return
    if chain.ledger_id != witness.ledger_id:
        raise LedgerError(f"{name}: the witness saw another ledger", "give an export of this one")
    raise LedgerError(
        f"{name}: went back behind its witness: that one saw record {witness.seq} with another hash or before it "
        f"was lost, the ledger ends with record {len(chain.records)}",
        "restore the newest copy with its anchor, or adopt this one with the rounds that were lost",
    )


def export_bytes(chains: Iterable[Chain]) -> bytes:
    """Ledgers as JSON: every record with its hash, the totals, and a SHA-256 over all of it."""
    ledgers = [_exported(chain) for chain in chains]
    body = {"what": _WHAT, "format": FORMAT, "ledgers": ledgers}
    return json_bytes({**body, "sha256": sha256(canonical(body).encode())})


def read_export(path: Path, content: bytes) -> tuple[Chain, ...]:
    """The chains of an export, checked.

    Raises: LedgerError: no export, of another format, or one whose records or figures were changed.
    """
    try:
        values = json.loads(content)
    except ValueError:
        values = None
    if not isinstance(values, dict) or values.get("what") != _WHAT:
        raise LedgerError(f"{path}: no export of a privacy ledger", "give one by fedrec privacy ledger export")
    if values.get("format") != FORMAT:
        raise LedgerError(f"{path}: export of format {values.get('format')}, this fedrec reads {FORMAT}")
    try:
        chains = tuple(_chain(ledger, path) for ledger in values["ledgers"])
    except (KeyError, TypeError) as error:
        raise _changed(path) from error
    # The same bytes, not only the same values: a changed digit may lie below what a float can hold.
    body = {key: value for key, value in values.items() if key != "sha256"}
    if content != json_bytes(values) or values.get("sha256") != sha256(canonical(body).encode()):
        raise _changed(path)
    return chains


def _exported(chain: Chain) -> dict[str, Any]:
    return {
        "ledger_id": chain.ledger_id,
        "partner": chain.partner,
        "dataset": chain.dataset,
        "budget": vars(chain.budget),
        "spent": {"epsilon": chain.spent(), "delta": chain.budget.delta},
        "head": {"seq": chain.mark.seq, "hash": chain.mark.hash},
        "records": [record._asdict() for record in chain.records],
    }


def _chain(ledger: dict[str, Any], path: Path) -> Chain:
    return read_chain((Record(**record) for record in ledger["records"]), str(path))


def _changed(path: Path) -> LedgerError:
    return LedgerError(f"{path}: changed since it was exported", "export it anew, or give an unchanged copy")
