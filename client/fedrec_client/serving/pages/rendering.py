"""Templates and the files that pages load."""

import time
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException

from fedrec.web.assets import SHARED, addresses, static_files
from fedrec_client.serving.pages.covers import cover_of

_PLACE = files("fedrec_client.serving.pages")
_KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".txt": "text/plain"}


class Rendering:
    """Makes HTML; everything that a template is given is escaped."""

    def __init__(self) -> None:
        self._static = static_files(_PLACE / "static", SHARED)
        self._jinja = Environment(
            loader=FileSystemLoader(str(_PLACE / "templates")),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._jinja.filters |= {"ago": ago, "moment": moment}
        self._jinja.globals |= {"asset": addresses(self._static), "cover_of": cover_of}

    def page(self, name: str, values: Mapping[str, Any], status: int = 200) -> HTMLResponse:
        """A page, or a part of one."""
        return HTMLResponse(self._jinja.get_template(f"{name}.html.j2").render(values), status)

    def static(self, name: str) -> Response:
        """A file that pages load. Raises HTTPException 404: none of them."""
        content = self._static.get(name)
        if content is None:
            raise HTTPException(404)
        kind = _KINDS.get(name[name.rfind(".") :], "application/octet-stream")
        return Response(content, headers={"content-type": f"{kind}; charset=utf-8"})


def ago(seconds: float) -> str:
    """How long ago a Unix time was, in words; `never` for 0.

    >>> ago(0), ago(time.time() - 300)
    ('never', '5 min ago')
    """
    if not seconds:
        return "never"
    age = max(0.0, time.time() - seconds)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if age >= 2 * length:
            return f"{age / length:.0f} {unit} ago"
    return f"{age:.0f} s ago"


def moment(seconds: float) -> str:
    """A Unix time for people, in UTC; what no calendar has as it is.

    >>> moment(0)
    '1970-01-01 00:00:00'
    """
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))
    except (OverflowError, OSError, ValueError):
        return f"{seconds:g}"
