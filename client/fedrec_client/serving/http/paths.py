"""Paths of our own API as they were sent: an id may hold any printable character, a slash too, which comes as %2F."""

from typing import Annotated
from urllib.parse import quote, unquote

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints
from starlette.types import Scope

OWN = "/v1/"


def routed_path(scope: Scope) -> str:
    """What guard and routes go by: under `/v1/` the path as it was sent, so that an id is one segment of it.

    >>> routed_path({"path": "/v1/items/a/b", "raw_path": b"/v1/items/a%2Fb"})
    '/v1/items/a%2Fb'
    """
    path = str(scope["path"])
    if not path.startswith(OWN):
        return path
    sent = scope.get("raw_path")
    return sent.decode("latin-1") if sent else quote(path)


def printable(text: str) -> str:
    """The text, if it is printable; ValueError otherwise."""
    if not text.isprintable():
        raise ValueError("it holds characters that are not printable")
    return text


def _decoded(segment: object) -> object:
    return unquote(segment, errors="strict") if isinstance(segment, str) else segment


# A schema cannot say "printable", but that much of it.
_SAYABLE = Field(json_schema_extra={"pattern": r"^[^\x00-\x1f\x7f]+$"})
Id = Annotated[str, StringConstraints(min_length=1, max_length=256), AfterValidator(printable), _SAYABLE]
# An id as a segment of a path.
Segment = Annotated[Id, BeforeValidator(_decoded)]
