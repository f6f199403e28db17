"""What a browser asks of a page: fields of its address and its form, and for whom."""

from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import parse_qs, urlencode

from fastapi import Depends, Request

from fedrec.errors import DataError
from fedrec_client.serving.records import Query

Fields = dict[str, str]
_MOST_FIELDS = 40


async def _fields(request: Request) -> Fields:
    """Fields of address and form, each once, the form's first; the guard has bounded the body."""
    found = dict(request.query_params)
    if request.method == "POST":
        try:
            form = parse_qs((await request.body()).decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
        except ValueError as error:
            raise DataError("the form cannot be read", "load the page again") from error
        found |= {name: values[-1] for name, values in form.items()}
    return found


@dataclass(frozen=True, repr=False)
class Visitor:
    """Who looks at the shop. Private.

    Attributes:
        user: "" for nobody who is known.
        session: of a visitor without a name.
        sees_people: whether whoever calls may be told whom the shop knows.
    """

    tenant: str
    user: str = ""
    session: str = ""
    sees_people: bool = False

    @property
    def address(self) -> str:
        """What follows the question mark of pages for this visitor."""
        return urlencode({"user": self.user} if self.user else {"session": self.session})

    def asks(self, **more: Any) -> Query:
        """A query for this visitor."""
        return Query(user=self.user, session_id="" if self.user else self.session, **more)


async def _visitor(request: Request) -> Visitor:
    """Raises DataError: a name that cannot be one."""
    fields, state = await _fields(request), request.scope["state"]
    user, session = fields.get("user", "").strip(), fields.get("session", "")
    for name in (user, session):
        if len(name) > 256 or (name and not name.isprintable()):
            raise DataError("this cannot be a user", "give up to 256 printable characters")
    return Visitor(state["tenant"], user, "" if user else session, "admin" in state["scopes"])


Asked = Annotated[Fields, Depends(_fields)]
Visiting = Annotated[Visitor, Depends(_visitor)]


def number(fields: Fields, name: str, least: int, most: int, otherwise: int) -> int:
    """A whole number within bounds; what is none counts as not given.

    >>> number({"n": "7"}, "n", 1, 5, 3), number({"n": "x"}, "n", 1, 5, 3)
    (5, 3)
    """
    text = fields.get(name, "")
    return max(least, min(most, int(text))) if text.isascii() and text.isdigit() and len(text) < 9 else otherwise
