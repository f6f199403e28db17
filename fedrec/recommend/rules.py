"""`rules.toml`: what a partner wants shown, whatever the model says: pinned, boosted, buried, filtered, limited.

A rule says what it does, to which items, for whom and when. What depends on items only is in
`fedrec.recommend.compiled_rules`.
"""

from datetime import datetime, time
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import Field, StringConstraints, field_validator, model_validator

from fedrec.errors import ConfigError
from fedrec.recommend.expression import parse
from fedrec.toml import Section, read_toml

Action = Literal["pin", "boost", "bury", "filter", "exclude", "quota"]
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MAX_NATS = 100.0
MAX_RULES = 1000
EACH = "*"  # a quota of every category
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}$")]
# What an action says beside what, for whom and when.
_WITH: dict[Action, frozenset[str]] = {
    "pin": frozenset({"position"}),
    "boost": frozenset({"amount"}),
    "bury": frozenset({"amount"}),
    "filter": frozenset(),
    "exclude": frozenset(),
    "quota": frozenset({"limit", "share"}),
}


class Rule(Section):
    """One of `[[rules]]`. Of items it takes those that answer all of `items`, `category`, `field` and `where`.

    Attributes:
        position: of a pin's first item, from 1; its others follow.
        amount: nats that a boost adds, or a bury takes.
        limit, share: of a list, that a quota's items may have at most; a share is rounded down.
        equals, at_least, at_most: what the field must be.
        segment: labels that a user must have, all of them; a label that is a list must hold the value.
        hours: "22:00-02:00" goes over midnight.
    """

    name: Name
    action: Action
    items: tuple[str, ...] = ()
    category: str = ""
    field: str = ""
    equals: str | bool | float | None = None
    at_least: float | None = None
    at_most: float | None = None
    where: str = ""
    position: Annotated[int, Field(ge=1, le=1000)] | None = None
    amount: Annotated[float, Field(gt=0, le=MAX_NATS)] | None = None
    limit: Annotated[int, Field(ge=0)] | None = None
    share: Annotated[float, Field(ge=0, le=1)] | None = None
    segment: dict[str, str | bool | float] = Field(default_factory=dict)
    arm: str = ""
    starts: datetime | None = None
    ends: datetime | None = None
    hours: str = ""
    weekdays: tuple[Weekday, ...] = ()
    timezone: str = "UTC"
    enabled: bool = True

    @field_validator("hours")
    @classmethod
    def _hours_are_two(cls, text: str) -> str:
        if text:
            two_times(text)
        return text

    @field_validator("timezone")
    @classmethod
    def _zone_is_known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"{name!r} is no time zone of the IANA, such as Europe/Berlin") from error
        return name

    @model_validator(mode="after")
    def _whole(self) -> Self:
        problems = [*self._problems_of_selection(), *self._problems_of_action()]
        if self.starts and self.ends and self.aware(self.starts) >= self.aware(self.ends):
            problems.append("it ends before it starts")
        if problems:
            raise ValueError(f"rule {self.name}: " + "; ".join(problems))
        return self

    def _problems_of_selection(self) -> list[str]:
        problems = []
        bounds = [bound for bound in (self.equals, self.at_least, self.at_most) if bound is not None]
        if bool(self.field) != bool(bounds):
            problems.append("field goes with one of equals, at_least, at_most")
        if not (self.items or self.category or self.field or self.where):
            problems.append("it names no items: give items, category, field or where")
        if self.category == EACH and self.action != "quota":
            problems.append('category "*" is for a quota')
        if self.where:
            try:
                parse(self.where, "where")
            except ConfigError as error:
                problems.append(error.problem)
        return problems

    def _problems_of_action(self) -> list[str]:
        wanted = _WITH[self.action]
        given = {name for name in ("position", "amount", "limit", "share") if getattr(self, name) is not None}
        problems = [f"{name} is not for {self.action}" for name in sorted(given - wanted)]
        if wanted and not wanted & given:
            problems.append(f"{self.action} wants {' or '.join(sorted(wanted))}")
        if self.action == "pin" and not self.items:
            problems.append("pin wants items, which stand in their order from position on")
        return problems

    def aware(self, moment: datetime) -> datetime:
        """A moment in the rule's time zone if it names none itself."""
        return moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(self.timezone))

    def is_due(self, now: float) -> bool:
        """Whether it is enabled and its schedule has begun and not ended, at Unix seconds."""
        here = datetime.fromtimestamp(now, ZoneInfo(self.timezone))
        if not self.enabled or (self.starts and here < self.aware(self.starts)):
            return False
        if (self.ends and here >= self.aware(self.ends)) or (
            self.weekdays and WEEKDAYS[here.weekday()] not in self.weekdays
        ):
            return False
        if not self.hours:
            return True
        opens, closes = two_times(self.hours)
        clock = here.time()
        return opens <= clock < closes if opens < closes else clock >= opens or clock < closes

    def is_for(self, labels: Any, arm: str) -> bool:
        """Whether it is for a user of these labels, in this arm."""
        if self.arm and self.arm != arm:
            return False
        known = labels if isinstance(labels, dict) else {}
        return all(_is_of(known.get(name), value) for name, value in self.segment.items())


class RuleBook(Section):
    """All of `rules.toml`."""

    format: Literal[1] = 1
    rules: Annotated[tuple[Rule, ...], Field(max_length=MAX_RULES)] = ()

    @model_validator(mode="after")
    def _names_are_apart(self) -> Self:
        names = [rule.name for rule in self.rules]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"rules: names stand twice: {', '.join(twice)}")
        return self


def read_rules(path: Path) -> RuleBook:
    """A file's rules; none if there is no file. Raises ConfigError, which lists all that is wrong."""
    if not path.exists():
        return RuleBook()
    return read_toml(path, RuleBook, "mend these rules; until then the ones before stay in force")


def two_times(text: str) -> tuple[time, time]:
    """When hours open and close; ValueError if they are none.

    >>> two_times("08:00-22:30")
    (datetime.time(8, 0), datetime.time(22, 30))
    """
    try:
        opens, closes = (time.fromisoformat(part.strip()) for part in text.split("-"))
    except ValueError as error:
        raise ValueError(f"{text!r} are no hours such as 08:00-22:00") from error
    if opens == closes or opens.tzinfo or closes.tzinfo:
        raise ValueError(f"{text!r} are no hours: they begin when they end, or name a time zone")
    return opens, closes


def _is_of(label: Any, value: Any) -> bool:
    if isinstance(label, list | tuple):
        return any(_is_of(part, value) for part in label)
    return isinstance(label, bool) == isinstance(value, bool) and bool(label == value)
