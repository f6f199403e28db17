"""Which scope a request needs, by method and path. What no line names needs "admin"."""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

Scope = Literal["open", "read", "write", "admin"]
_CHANGES = "POST PUT PATCH DELETE"

# The first line that fits counts. `*` is one segment, `/**` at the end any number, none included.
# "open" needs no key. A list of people, or one person's events, is a read that hands people over: "admin".
_TABLE: tuple[tuple[str, str, Scope], ...] = (
    # The service itself
    ("GET", "/health", "open"),
    ("GET", "/ready", "open"),
    ("GET", "/metrics", "read"),
    ("GET", "/static/**", "open"),
    # Pages; what the operator sees needs "admin", so no line names it
    ("GET", "/shop/**", "read"),
    ("POST", "/shop/**", "write"),
    # Our own API
    ("GET", "/v1/docs", "open"),
    ("GET", "/v1/openapi.json", "open"),
    ("GET POST", "/v1/recommend/**", "read"),
    ("GET POST", "/v1/rank/**", "read"),
    ("GET POST", "/v1/session/**", "read"),
    ("GET POST", "/v1/similar/**", "read"),
    ("GET", "/v1/trending", "read"),
    ("GET", "/v1/popular", "read"),
    ("GET", "/v1/latest", "read"),
    ("POST", "/v1/explain/feedback", "write"),
    ("GET POST", "/v1/explain/**", "read"),
    (_CHANGES, "/v1/events/**", "write"),
    ("GET", "/v1/items/**", "read"),
    (_CHANGES, "/v1/items/**", "write"),
    ("GET", "/v1/users/*/questions", "read"),
    ("GET POST", "/v1/users/*/export/**", "admin"),
    ("DELETE", "/v1/users/*/blocks/**", "write"),
    ("POST PUT PATCH", "/v1/users/**", "write"),
    ("GET", "/v1/support/answers", "read"),
    ("PUT", "/v1/support/answers", "write"),
    ("DELETE", "/v1/support/answers/*", "write"),
    ("POST", "/v1/support/questions", "write"),
    ("GET", "/v1/support/handovers/*", "read"),
    ("POST", "/v1/sentiment/texts", "write"),
    # Gorse's
    ("GET", "/apidocs", "open"),
    ("GET", "/apidocs.json", "open"),
    ("GET", "/api/health/**", "open"),
    ("GET", "/api/recommend/**", "read"),
    ("POST", "/api/session/**", "read"),
    ("GET", "/api/latest/**", "read"),
    ("GET", "/api/popular/**", "read"),
    ("GET", "/api/non-personalized/**", "read"),
    ("GET", "/api/collaborative-filtering/**", "read"),
    ("GET", "/api/item-to-item/**", "read"),
    (_CHANGES, "/api/feedback/**", "write"),
    ("GET", "/api/item/*/feedback/**", "admin"),
    ("GET", "/api/item/**", "read"),
    ("GET", "/api/items", "read"),
    (_CHANGES, "/api/item/**", "write"),
    ("POST", "/api/items", "write"),
    ("POST PATCH", "/api/user/**", "write"),
    ("POST", "/api/users", "write"),
    # Metarank's
    ("POST", "/feedback", "write"),
    ("POST", "/rank/**", "read"),
    ("POST", "/recommend/**", "read"),
    ("POST", "/inference/**", "read"),
)

# What a key of a scope may do.
_GRANTED: dict[str, frozenset[str]] = {
    "read": frozenset({"read"}),
    "write": frozenset({"write"}),
    "admin": frozenset({"read", "write", "admin"}),
}
EVERY_SCOPE = _GRANTED["admin"]


@dataclass(frozen=True)
class _Line:
    methods: frozenset[str]
    pattern: re.Pattern[str]
    scope: Scope


def _compiled(methods: str, path: str, scope: Scope) -> _Line:
    words = re.escape(path.removesuffix("/**")).replace(r"\*", "[^/]+")
    rest = "(?:/.*)?" if path.endswith("/**") else ""
    return _Line(frozenset(methods.split()), re.compile(words + rest, re.DOTALL), scope)


def _by_first_segment() -> dict[str, list[_Line]]:
    found: dict[str, list[_Line]] = {}
    for methods, path, scope in _TABLE:
        found.setdefault(_key(path), []).append(_compiled(methods, path, scope))
    return found


def _key(path: str) -> str:
    """The first two segments."""
    return "/".join(path.split("/", 3)[1:3]).removesuffix("/**")


def scope_needed(method: str, path: str) -> Scope:
    """The scope that a request needs; HEAD as GET, and a slash at the end as none.

    >>> scope_needed("GET", "/api/recommend/somebody"), scope_needed("DELETE", "/api/user/somebody")
    ('read', 'admin')
    """
    path = path.rstrip("/")
    method = "GET" if method == "HEAD" else method
    segments = path.split("/", 3)[1:3]
    for key in ("/".join(segments), segments[0] if segments else ""):
        for line in _LINES.get(key, ()):
            if method in line.methods and line.pattern.fullmatch(path):
                return line.scope
    return "admin"


@lru_cache(64)
def granted(scopes: frozenset[str]) -> frozenset[str]:
    """All that a key with these scopes may do: "admin" may everything, "write" only write."""
    return frozenset().union(*(_GRANTED.get(scope, frozenset()) for scope in scopes))


_LINES = _by_first_segment()
