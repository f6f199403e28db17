"""The access log, a line for each request, of route templates, never of paths, queries or people; and who asks."""

import logging

from fastapi import Request

LOCAL = "local"
_log = logging.getLogger(__name__)


def log_access(method: str, route: str, status: int, seconds: float, request: str) -> None:
    """One line. `status` 0: there was no answer."""
    if _log.isEnabledFor(logging.INFO):
        told = {"event": "served", "method": method, "route": route, "status": status}
        _log.info("served", extra={**told, "seconds": round(seconds, 6), "request": request})


def log_failure(error: Exception, route: str, request: str) -> None:
    """A fault of ours: class and place. Its words and its trace's values may be anybody's."""
    place = _place_of(error)
    told = {"event": "broken", "route": route, "request": request, "reason": type(error).__name__}
    _log.error("a request failed: %s at %s", type(error).__name__, place, extra=told)


def _place_of(error: Exception) -> str:
    """Where it was raised."""
    trace, place = error.__traceback__, "no place"
    while trace is not None:
        place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def who_asks(request: Request) -> str:
    """The name of the caller's API key; "local" where the service has none and is open to its machine alone.

    For what is written down of decisions; the secret is nobody's to read.
    """
    return str(request.scope["state"].get("key") or LOCAL)
