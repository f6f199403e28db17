"""How a call is sent: what is tried again and after how long, and what an answer means. It sends nothing itself."""

import random
from collections.abc import Generator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from time import time
from typing import Any, TypeVar

import httpx

from fedrec.client.calls import Call
from fedrec.client.errors import Flaw, RecommenderError, UnavailableError, error_class

_T = TypeVar("_T")
_TOO_OFTEN = 429
_AGAIN = (_TOO_OFTEN, 503)
_LONGEST_S = 30.0


@dataclass(frozen=True)
class Wait:
    """Ask again after so many seconds."""

    seconds: float


Outcome = httpx.Response | httpx.TransportError
# Gives requests and waits in turn, is sent what came of each request, and returns the answer.
Steps = Generator[httpx.Request | Wait, Outcome | None, _T]


def steps(client: httpx.Client | httpx.AsyncClient, call: Call[_T], retries: int, backoff_s: float) -> Steps[_T]:
    """All of a call, to be driven by a client that waits or one that does not.

    429 says that nothing was done, so any call is sent again. After 503, or where the connection broke, nobody knows,
    so only one that may be repeated is.

    Raises: RecommenderError.
    """
    for left in range(retries, -1, -1):
        outcome = yield client.build_request(call.method, call.path, params=_plain(call), json=call.body)
        assert outcome is not None
        if isinstance(outcome, httpx.Response) and outcome.is_success:
            return _answer(call, outcome)
        pause_s = _pause_s(outcome, call, backoff_s * 2 ** (retries - left))
        if pause_s is None or not left:
            raise error_of(outcome)
        yield Wait(pause_s)
    raise AssertionError("the last try returns or raises")


def error_of(outcome: Outcome) -> RecommenderError:
    """In the service's words, if it had any."""
    if not isinstance(outcome, httpx.Response):
        return UnavailableError(f"no answer: {type(outcome).__name__}", "see that the service runs at this address")
    try:
        told = outcome.json()
    except ValueError:
        told = None
    told = told if isinstance(told, dict) else {}
    flaws = [Flaw(one.get("place", ""), one.get("problem", "")) for one in told.get("errors", ())]
    words = [told.get("detail") or told.get("title") or f"HTTP {outcome.status_code}"]
    words += [f"  - {flaw.place}: {flaw.problem}" if flaw.place else f"  - {flaw.problem}" for flaw in flaws]
    return error_class(outcome.status_code)(
        "\n".join(words),
        told.get("remedy", ""),
        status=outcome.status_code,
        type=str(told.get("type", "unknown")).removeprefix("urn:fedrec:error:"),
        flaws=flaws,
        request=outcome.headers.get("x-request-id", ""),
    )


def _answer(call: Call[_T], response: httpx.Response) -> _T:
    try:
        return call.read(response.json())
    except (ValueError, KeyError, TypeError) as error:
        words = f"the answer is not of this API: {type(error).__name__}"
        raise RecommenderError(words, "check the address", status=response.status_code, type="alien") from None


def _plain(call: Call[_T]) -> dict[str, Any]:
    """Lists as they are, which come as several parameters of a name."""
    return {
        name: list(value) if isinstance(value, tuple | set) else value for name, value in (call.query or {}).items()
    }


def _pause_s(outcome: Outcome, call: Call[_T], backoff_s: float) -> float | None:
    """Seconds to the next try, None where there is none. Spread, so that many clients do not come at once."""
    spread_s = backoff_s * (0.5 + random.random())
    if isinstance(outcome, httpx.Response):
        if outcome.status_code not in _AGAIN or not (call.is_repeatable or outcome.status_code == _TOO_OFTEN):
            return None
        asked_s = _asked_s(outcome.headers.get("retry-after", ""))
        return min(max(asked_s, spread_s), _LONGEST_S) if asked_s <= _LONGEST_S else None
    never_left = isinstance(outcome, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
    return min(spread_s, _LONGEST_S) if call.is_repeatable or never_left else None


def _asked_s(retry_after: str) -> float:
    """Of seconds or a date; 0 if it is neither."""
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after[:9])
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time())
    except ValueError:
        return 0.0
