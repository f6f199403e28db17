"""Errors of serving, below those of fedrec/errors.py, by what a caller can do about them. No message holds an id.

DataError
├── NotFoundError    a user, item, event, model, rule, key or page that is not there
└── ConflictError    it is there already, or has changed meanwhile
ModelError
└── NotReadyError    the engine is still reading, or takes no more for a moment
"""

from fedrec.errors import DataError, ModelError


class NotFoundError(DataError):
    """Something that was asked for by name is not there.

    Args:
        kind: what it would be, one or two words: "user", "item", "model". Never which one.
        remedy: what the caller can do.

    >>> NotFoundError("user").problem
    'no such user'
    """

    def __init__(self, kind: str, remedy: str = "") -> None:
        self.kind = kind
        super().__init__(f"no such {kind}", remedy)


class ConflictError(DataError):
    """What was asked for does not fit what is there: a name that is taken, a version that is not the newest."""


class NotReadyError(ModelError):
    """The engine cannot answer yet.

    Args:
        problem, remedy: as of every error.
        retry_after_s: when it is worth another try.
    """

    def __init__(self, problem: str, remedy: str = "", retry_after_s: int = 1) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(problem, remedy)
