"""Every error that a person can meet, with its exit code. Docs: docs/errors.md (a test keeps both alike).

FedrecError            1  anything below; never raised itself
├── ConfigError        2  a configuration file, option or argument
├── DataError          3  interactions, catalogue, an unknown user or item
├── DownloadError      4  a source that does not answer or has the wrong hash
├── ModelError         5  a model folder, device or adapter that does not fit
├── PrivacyError       6  a plan that cannot be private, accountants that disagree
│   └── BudgetError    7  the partner's budget does not cover the request
├── ProtocolError      8  a message with wrong keys, shapes, values or sender
├── RunError           9  a run folder: older format, damaged, in use by another process
├── StorageError      10  no space, no permission
├── QuorumError       11  too few partners answered
└── LedgerError       12  a privacy ledger that was changed, copied, or is older than it should be
"""

from collections.abc import Iterable
from typing import ClassVar


class FedrecError(Exception):
    """A named error: what is wrong, where, and what to do about it.

    Args:
        problem: what is wrong, with the place (file, line, key). Public: never a private value.
        remedy: what the reader can do now.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, problem: str, remedy: str = "") -> None:
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{problem}\n  remedy: {remedy}" if remedy else problem)

    @classmethod
    def of_all(cls, problems: Iterable[str], remedy: str = "", heading: str = "") -> "FedrecError":
        """One error that lists every problem, so that a person mends them in one go.

        >>> print(ConfigError.of_all(["a: missing", "b: must be > 0"], heading="demo.toml"))
        demo.toml: 2 problems
          - a: missing
          - b: must be > 0
        """
        listed = list(problems)
        count = f"{len(listed)} problem{'s' if len(listed) != 1 else ''}"
        head = f"{heading}: {count}" if heading else count
        return cls("\n".join([head, *(f"  - {p}" for p in listed)]), remedy)


class ConfigError(FedrecError):
    """A configuration file, option or argument is wrong."""

    exit_code = 2


class DataError(FedrecError):
    """Interactions or catalogue cannot be read, or a user or item is unknown."""

    exit_code = 3


class DownloadError(FedrecError):
    """A source does not answer, or what came is not what the hash says."""

    exit_code = 4


class ModelError(FedrecError):
    """A model folder, device or adapter does not fit."""

    exit_code = 5


class PrivacyError(FedrecError):
    """A plan cannot be private, or two accountants disagree."""

    exit_code = 6


class BudgetError(PrivacyError):
    """The partner's own budget does not cover what was asked."""

    exit_code = 7


class ProtocolError(FedrecError):
    """A message has wrong keys, shapes, values or sender."""

    exit_code = 8


class RunError(FedrecError):
    """A run folder is of an older format, damaged, or in use by another process."""

    exit_code = 9


class StorageError(FedrecError):
    """The disk is full or may not be written."""

    exit_code = 10


class QuorumError(FedrecError):
    """Too few partners answered for the round to count."""

    exit_code = 11


class LedgerError(FedrecError):
    """A privacy ledger was changed, copied, or is older than it should be.

    No PrivacyError, whose words go to the coordinator: these name paths of the partner's disk.
    """

    exit_code = 12
