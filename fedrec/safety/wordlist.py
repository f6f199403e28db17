"""`safety.toml`: what a partner does not want recommended before a person has seen it."""

import re
import tomllib
import unicodedata
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from fedrec.toml import Section, read_toml

FILE = "safety.toml"
_LONGEST, _LONGEST_WORD, _MOST_STARS = 200, 64, 2
_NOTHING = re.compile("(?!)")
Name = Annotated[str, StringConstraints(min_length=1, max_length=64)]


def _says_something(pattern: str) -> str:
    if not plain(pattern) or pattern.count("*") > _MOST_STARS:
        raise ValueError(f"{pattern!r} has no letter, or more than {_MOST_STARS} *")
    return pattern


Pattern = Annotated[str, StringConstraints(min_length=1, max_length=_LONGEST), AfterValidator(_says_something)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=1000)]


class Block(Section):
    """`[block]`: held back always."""

    ids: tuple[str, ...] = ()
    titles: tuple[Pattern, ...] = ()
    fields: dict[str, tuple[Pattern, ...]] = Field(default_factory=dict)


class Words(Section):
    """One of `[[words]]`."""

    name: Name
    patterns: Annotated[tuple[Pattern, ...], Field(min_length=1)]


class Theme(Section):
    """One of `[[themes]]`."""

    name: Name
    descriptions: Annotated[tuple[Text, ...], Field(min_length=1)]


class Safety(Section):
    """All of `safety.toml`."""

    format: Literal[1]
    block: Block = Block()
    words: tuple[Words, ...] = ()
    themes: tuple[Theme, ...] = ()

    @model_validator(mode="after")
    def _names_are_apart(self) -> Self:
        for kind, names in (("words", [w.name for w in self.words]), ("themes", [t.name for t in self.themes])):
            if len(set(names)) < len(names):
                raise ValueError(f"{kind}: a name stands twice")
        return self


def read_safety(path: Path) -> Safety:
    """A partner's own file; the one that comes with fedrec where there is none. Raises ConfigError, StorageError."""
    if path.exists():
        return read_toml(path, Safety, "mend it: the service does not start without knowing what to hold back")
    return default_safety()


def default_safety() -> Safety:
    """As it comes with fedrec."""
    return Safety.model_validate(tomllib.loads((files("fedrec.safety") / FILE).read_text(encoding="utf-8")))


def plain(text: str, keep: str = "") -> str:
    """Words in small letters without accents or signs, one space between them; of a very long one the beginning.

    >>> plain("Ｆäke\\n ID-card!")
    'fake id card'
    """
    apart = unicodedata.normalize("NFKD", text.casefold())
    letters = (c if c.isalnum() or c in keep else " " for c in apart if not unicodedata.combining(c))
    return " ".join(word[:_LONGEST_WORD] for word in "".join(letters).split())


def matcher(patterns: Sequence[str]) -> re.Pattern[str]:
    """Finds any of the patterns in a `plain` text, as whole words; its groups are the patterns in their order.

    Words are bounded, and `*` stays within one, so that no text makes it slow.

    >>> bool(matcher(["fake id*"]).search("two fake ids")), bool(matcher(["fake id"]).search("fake idea"))
    (True, False)
    """
    parts = [re.escape(plain(text, keep="*")).replace(r"\*", "[^ ]*").replace(r"\ ", " ") for text in patterns]
    return re.compile("(?<![^ ])(?:" + "|".join(f"({part})" for part in parts) + ")(?![^ ])") if parts else _NOTHING
