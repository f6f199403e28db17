"""What is known of the people who are asked for now: in memory, loaded from the store, told of every event."""

import math
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import ConfigError
from fedrec.recommend.live_model import Floats, LiveModel, UserWindow, window_start
from fedrec_client.serving.records import IMPORTED_TYPE, Event
from fedrec_client.serving.settings import FeedbackSettings

# Of clocks that differ: what is dated further ahead has not happened yet.
CLOCK_ERROR_S = 5.0
Meaning = Literal["positive", "read", "negative"]
_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": lambda value, bound: value >= bound,
    "<=": lambda value, bound: value <= bound,
    ">": lambda value, bound: value > bound,
    "<": lambda value, bound: value < bound,
    "=": lambda value, bound: value == bound,
}


@dataclass(frozen=True)
class FeedbackType:
    """One of `[feedback]`: a type, or a type whose value is held against a bound.

    >>> FeedbackType.parse("rating>=3").matches("rating", 2.5)
    False
    >>> FeedbackType.parse("*").matches("anything", 0.0)
    True
    """

    name: str
    comparison: str = ""
    bound: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "FeedbackType":
        """Raises ConfigError: no name, or no number behind the comparison."""
        for sign in _COMPARISONS:
            name, found, bound = text.partition(sign)
            if found:
                try:
                    return cls(name.strip() or _nameless(text), sign, float(bound))
                except ValueError as error:
                    raise ConfigError(f"feedback: {text!r}: no number after {sign}", "write type>=3, say") from error
        return cls(text.strip() or _nameless(text))

    def matches(self, name: str, value: float) -> bool:
        """Whether an event of this type and value is meant."""
        if self.name not in ("*", name):
            return False
        return not self.comparison or _COMPARISONS[self.comparison](value, self.bound)


def _nameless(text: str) -> str:
    raise ConfigError(f"feedback: {text!r} names no type", "write a type, or type>=3, say")


class Feedback:
    """What events mean, by `[feedback]`. Negative goes before read, and read before positive; the rest is read."""

    def __init__(self, settings: FeedbackSettings) -> None:
        self._types: list[tuple[Meaning, list[FeedbackType]]] = [
            ("negative", [FeedbackType.parse(text) for text in settings.negative]),
            ("read", [FeedbackType.parse(text) for text in settings.read]),
            ("positive", [FeedbackType.parse(text) for text in settings.positive]),
        ]
        self._weights = settings.weights

    def meaning(self, event_type: str, value: float) -> Meaning:
        """Of an event."""
        if event_type == IMPORTED_TYPE:
            return "positive"
        for meaning, types in self._types:
            if any(one.matches(event_type, value) for one in types):
                return meaning
        return "read"

    def is_positive(self, event_type: str, value: float) -> bool:
        """Whether an event makes a history."""
        return self.meaning(event_type, value) == "positive"

    def weight(self, event_type: str) -> float:
        """How much it says, beside 1."""
        return self._weights.get(event_type, 1.0)


@dataclass(repr=False)
class Person:
    """A user or session. Private.

    Attributes:
        key: tenant and id, for what is kept of them elsewhere.
        codes, weights: what made their history, oldest first; the same item twice in a row counts once.
        latest: Unix seconds of the last of these.
        seen: everything that they had to do with.
        negative: what they did not like, oldest first.
        blocked_items, blocked_categories: what they asked not to be shown.
        context: the LLM's reading, of what `read` says: reading hash, first place and number of the codes.
        ahead: the same by an adapter that is about to take over.
        later: what is dated ahead, and counts from then on: moment, code, meaning and weight.
    """

    key: tuple[str, str]
    codes: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    latest: float = float("-inf")
    seen: set[int] = field(default_factory=set)
    negative: list[int] = field(default_factory=list)
    blocked_items: frozenset[str] = frozenset()
    blocked_categories: frozenset[str] = frozenset()
    labels: object = None
    context: Floats | None = None
    read: tuple[str, int, int] | None = None
    ahead: tuple[Floats, tuple[str, int, int]] | None = None
    asked_at: float = 0.0
    phase: int = field(init=False)
    later: list[tuple[float, int, Meaning, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.phase = zlib.crc32(self.key[1].encode())  # the same after a restart

    def note(self, code: int, meaning: Meaning, weight: float, timestamp: float) -> bool:
        """Take in an event. False if it is older than what is known, so that all must be loaded anew."""
        if meaning != "read" and timestamp < self.latest:
            return False
        self.seen.add(code)
        if meaning == "negative":
            self.negative.append(code)
        elif meaning == "positive":
            self.latest = timestamp
            if self.codes and self.codes[-1] == code:
                self.weights[-1] = max(self.weights[-1], weight)
            else:
                self.codes.append(code)
                self.weights.append(weight)
        return True

    def note_in_time(self, code: int, meaning: Meaning, weight: float, timestamp: float, now: float) -> bool:
        """`note`, unless it is dated ahead; then it waits for `catch_up`."""
        if timestamp > now + CLOCK_ERROR_S:
            self.later.append((timestamp, code, meaning, weight))
            return True
        return self.note(code, meaning, weight, timestamp)

    def catch_up(self, now: float) -> bool:
        """Take in what was dated ahead and is due. False as `note`."""
        if not self.later:
            return True
        due = sorted(one for one in self.later if one[0] <= now)
        self.later = [one for one in self.later if one[0] > now]
        return all(self.note(code, meaning, weight, timestamp) for timestamp, code, meaning, weight in due)

    def _start(self, model: LiveModel, slack: int) -> int:
        return window_start(len(self.codes), model.max_history, slack, self.phase % slack)

    def window(self, model: LiveModel, slack: int) -> tuple[int, NDArray[np.int64]]:
        """Where what is read of the history begins, and its codes."""
        start = self._start(model, slack)
        return start, np.array(self.codes[start:], np.int64)

    def is_read(self, model: LiveModel, slack: int) -> bool:
        """Whether `context` is of just this history and model."""
        wanted = (model.reading, self._start(model, slack), len(self.codes))
        if self.ahead is not None and self.ahead[1] == wanted:
            (self.context, self.read), self.ahead = self.ahead, None
        return self.context is not None and self.read == wanted

    def user_window(self, start: int) -> UserWindow:
        """For the head; `context` must be there."""
        assert self.context is not None
        weights = np.array(self.weights[start:], np.float32)
        return UserWindow(np.array(self.codes[start:], np.int64), weights, self.context)

    def with_session(self, events: Iterable[tuple[int, Meaning, float]]) -> "Person":
        """This one, and what they do now, which is stored nowhere."""
        other = Person(self.key, list(self.codes), list(self.weights), self.latest, set(self.seen), list(self.negative))
        other.blocked_items, other.blocked_categories = self.blocked_items, self.blocked_categories
        other.labels = self.labels
        for code, meaning, weight in events:
            other.note(code, meaning, weight, max(other.latest, 0.0))
        return other


def person_of(
    key: tuple[str, str],
    events: Sequence[Event],
    feedback: Feedback,
    find: Callable[[str], int | None],
    now: float = math.inf,
) -> Person:
    """From stored events in the order of time; those with items that nobody knows any more are left out."""
    person = Person(key)
    for event in events:
        if (code := find(event.item)) is not None:
            meaning = feedback.meaning(event.type, event.value)
            person.note_in_time(code, meaning, feedback.weight(event.type), event.timestamp, now)
    return person


class People:
    """The people of a tenant who were asked for latest. Changed by one thread."""

    def __init__(self, most: int = 100_000) -> None:
        self._people: OrderedDict[str, Person] = OrderedDict()
        self._most = most

    def __len__(self) -> int:
        return len(self._people)

    def find(self, user: str) -> Person | None:
        """If in memory."""
        person = self._people.get(user)
        if person is not None:
            self._people.move_to_end(user)
        return person

    def keep(self, user: str, person: Person) -> None:
        """Hold in memory; who was asked for longest ago goes if there are too many."""
        self._people[user] = person
        self._people.move_to_end(user)
        while len(self._people) > self._most:
            self._people.popitem(last=False)

    def forget(self, user: str) -> Person | None:
        """Drop from memory."""
        return self._people.pop(user, None)

    def everybody(self) -> list[Person]:
        """Those in memory, who was asked for last first."""
        return list(reversed(self._people.values()))
