"""The API for people to read: a page of our own, since the usual ones load programs from elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment

_FILE = "reference.html"


@dataclass(frozen=True)
class _Parameter:
    name: str
    place: str
    is_required: bool
    words: str


@dataclass(frozen=True)
class _Call:
    method: str
    path: str
    words: str
    parameters: tuple[_Parameter, ...]


@dataclass(frozen=True)
class _Group:
    name: str
    calls: list[_Call]


def reference_page(schema: Mapping[str, Any]) -> str:
    """HTML of an OpenAPI document: every call with its words and parameters; it has no script and no style."""
    groups: dict[str, list[_Call]] = {}
    for path, methods in schema.get("paths", {}).items():
        for method, told in methods.items():
            name = (told.get("tags") or ["Calls"])[0]
            groups.setdefault(name, []).append(_call(method, path, told))
    template = Environment(autoescape=True).from_string(
        (files("fedrec_client.serving.http") / _FILE).read_text(encoding="utf-8")
    )
    info = schema["info"]
    listed = [_Group(name, calls) for name, calls in groups.items()]
    return template.render(title=info["title"], description=info.get("description", ""), groups=listed)


def _call(method: str, path: str, told: Mapping[str, Any]) -> _Call:
    parameters = tuple(
        _Parameter(one["name"], one["in"], bool(one.get("required")), one.get("description", ""))
        for one in told.get("parameters", ())
    )
    return _Call(method.upper(), path, told.get("description") or told.get("summary", ""), parameters)
