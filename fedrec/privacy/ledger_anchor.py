"""The anchor beside a ledger: its newest record and the file it lives in, so that copies and older copies show.

The database alone cannot know that it is older than it was, or that it has a twin. The anchor names the newest
record that a use has ended with, and device and inode of the database, which no copy beside it shares (a file that
was deleted and written anew may get the same inode; then its age shows).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedrec.errors import LedgerError, StorageError
from fedrec.files import json_bytes, replace_file, storage_errors
from fedrec.privacy.ledger_chain import CREATED_RECORDS, FORMAT, Chain, Mark

Place = tuple[int, int]
"""Device and inode of the database file. `mv` within a file system keeps both, a copy has others."""
_KEYS = {"format", "ledger_id", "seq", "hash", "device", "inode"}


@dataclass(frozen=True)
class Anchor:
    """What `NAME.anchor` says."""

    mark: Mark
    place: Place


def anchor_path(path: Path) -> Path:
    """Where the anchor of a ledger lies."""
    return path.with_name(f"{path.name}.anchor")


def place_of(path: Path) -> Place:
    """Raises OSError."""
    status = path.stat()
    return status.st_dev, status.st_ino


def check_anchor(path: Path, place: Place, chain: Chain) -> None:
    """Refuse a database that is a copy, an older copy, or another branch of its ledger.

    A database ahead of its anchor is legal: a crash between commit and anchor leaves that.

    Args:
        place: of the database that `chain` was read from.
    Raises: LedgerError: with the command by which the owner can accept it. StorageError: unreadable anchor.
    """
    anchor = _read(path)
    if anchor is None:
        raise _refusal(path, "its anchor is missing, so that nobody can tell whether it is the newest copy")
    if anchor.mark.ledger_id != chain.ledger_id:
        raise _refusal(path, "its anchor belongs to another ledger")
    if anchor.place != place:
        raise _refusal(path, "a copy, or moved to another file system: original and copy could both spend")
    if not chain.holds(anchor.mark):
        ends = f"record {len(chain.records)}, its anchor knows record {anchor.mark.seq}"
        older = len(chain.records) < anchor.mark.seq
        raise _refusal(path, f"an older copy: it ends with {ends}" if older else f"another branch: it has {ends}")


def is_of_unfinished_creation(path: Path) -> bool:
    """Whether there is no anchor, or one of a ledger that a crash kept from being: creation writes the anchor first.

    Raises: LedgerError, StorageError: an anchor that cannot be read.
    """
    anchor = _read(path)
    return anchor is None or anchor.mark.seq == CREATED_RECORDS


def keep_anchor(path: Path, anchor: Anchor) -> None:
    """Write the anchor durably unless it says so already. Call while nobody else can write to the ledger.

    Raises: StorageError.
    """
    values = {"format": FORMAT, **vars(anchor.mark), "device": anchor.place[0], "inode": anchor.place[1]}
    content = json_bytes(values)
    place = anchor_path(path)
    with storage_errors(path.parent):
        if not place.exists() or place.read_bytes() != content:
            replace_file(place, content)


def _read(path: Path) -> Anchor | None:
    place = anchor_path(path)
    try:
        values = json.loads(place.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"{place}: cannot be read: {error.strerror}", "mend its permissions") from error
    except ValueError:
        values = None
    if not _is_anchor(values):
        raise _refusal(path, "its anchor is damaged")
    return Anchor(Mark(values["ledger_id"], values["seq"], values["hash"]), (values["device"], values["inode"]))


def _is_anchor(values: Any) -> bool:
    if not isinstance(values, dict) or set(values) != _KEYS or values["format"] != FORMAT:
        return False
    whole = all(type(values[key]) is int for key in ("seq", "device", "inode"))
    return whole and values["seq"] > 0 and all(type(values[key]) is str for key in ("ledger_id", "hash"))


def _refusal(path: Path, problem: str) -> LedgerError:
    return LedgerError(
        f"{path}: {problem}",
        "restore the newest copy with its anchor; or, if no other copy will ever be used again: "
        f"fedrec privacy ledger adopt {path} --lost-rounds N --reason TEXT, with N no less than the rounds since "
        "this copy was made",
    )
