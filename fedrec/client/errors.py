"""What a client is told when a call fails."""

from collections.abc import Sequence
from dataclasses import dataclass

from fedrec.errors import FedrecError


@dataclass(frozen=True)
class Flaw:
    """One of several things that are wrong with a request: where, and what."""

    place: str
    problem: str


class RecommenderError(FedrecError):
    """The service does not do what was asked.

    Args:
        problem: in the service's words.
        remedy: what the caller can do.
        status: HTTP's; 0: there was no answer.
        type: stable, such as "no-such-item", "invalid", "too-often"; "no-answer" where there was none.
        flaws: all that is wrong with the request.
        request: the service's name for the call, as its log has it.
    """

    def __init__(
        self,
        problem: str,
        remedy: str = "",
        *,
        status: int = 0,
        type: str = "no-answer",  # noqa: A002
        flaws: Sequence[Flaw] = (),
        request: str = "",
    ) -> None:
        self.status, self.type, self.flaws, self.request = status, type, tuple(flaws), request
        super().__init__(problem, remedy)


class RequestRefusedError(RecommenderError):
    """What was sent cannot be used, or does not fit what is there: 400, 409, 413, 422."""


class AccessError(RecommenderError):
    """No API key, or one that may not: 401, 403."""


class MissingError(RecommenderError):
    """What was asked for by name is not there: 404."""


class UnavailableError(RecommenderError):
    """The service is full, not ready or cannot be reached, and was not after several tries: 429, 5xx, no answer."""


def error_class(status: int) -> type[RecommenderError]:
    """By status.

    >>> error_class(404).__name__, error_class(503).__name__
    ('MissingError', 'UnavailableError')
    """
    match status:
        case 401 | 403 | 421:
            return AccessError
        case 404:
            return MissingError
        case 0 | 408 | 429:
            return UnavailableError
        case _ if status >= 500:
            return UnavailableError
        case _:
            return RequestRefusedError
