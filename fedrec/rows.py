"""What a row of the ladder is called, and what its name says of how it is trained."""

import re
from collections.abc import Iterable
from typing import Annotated, Literal, cast

from pydantic import AfterValidator

Mode = Literal["none", "inspect", "secagg"]
ROWS: dict[str, Mode | None] = {
    **dict.fromkeys(("popularity", "item_knn", "ease", "ials", "bpr", "sasrec", "fedmf", "pfedrec"), None),
    "local_only": None,
    "federated": "none",
    "federated_dp": "secagg",
    "federated_dp_inspect": "inspect",
    "centralised": None,
}
"""Every row by name, with the mode of those that are federated; `row_mode` knows names with an epsilon as well."""

_PRIVATE_ROW = re.compile(r"federated_eps(\d{1,3}(?:\.\d{1,3})?)_(secagg|inspect)")


def row_mode(row: str) -> Mode | None:
    """The mode of a federated row, None for any other.

    >>> row_mode("federated_eps2_secagg"), row_mode("federated"), row_mode("sasrec")
    ('secagg', 'none', None)
    """
    named = _PRIVATE_ROW.fullmatch(row)
    return cast(Mode, named[2]) if named else ROWS.get(row)


def asked_epsilon(row: str) -> float | None:
    """The epsilon in a row's name, None for any other.

    >>> asked_epsilon("federated_eps0.5_inspect"), asked_epsilon("federated_dp")
    (0.5, None)
    """
    named = _PRIVATE_ROW.fullmatch(row)
    return float(named[1]) if named else None


def is_private(row: str) -> bool:
    """Whether a row is trained under differential privacy."""
    return row_mode(row) in ("secagg", "inspect")


def handed_on_row(rows: Iterable[str]) -> str | None:
    """Which row's adapter a run hands on: the first private one, the configuration's own epsilon first; or `federated`.

    >>> handed_on_row(["federated", "federated_eps2_secagg", "federated_dp"]), handed_on_row(["ease"])
    ('federated_dp', None)
    """
    of_mode = [row for row in rows if row_mode(row)]
    return min(of_mode, key=lambda row: (not is_private(row), row not in ROWS, of_mode.index(row)), default=None)


def _known_row(row: str) -> str:
    if row not in ROWS and not _PRIVATE_ROW.fullmatch(row):
        raise ValueError(f"unknown row {row!r}; there are {', '.join(ROWS)} and federated_epsN_secagg or _inspect")
    return row


RowName = Annotated[str, AfterValidator(_known_row)]
