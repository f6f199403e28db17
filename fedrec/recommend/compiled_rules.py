"""Rules as masks and columns over a shelf, made once for each version of it and each set of rules that is in force."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import ConfigError
from fedrec.recommend.filters import MINUTE_S, Filters
from fedrec.recommend.rules import EACH, Rule, RuleBook
from fedrec.recommend.shelf import Json, Shelf

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Quota:
    """At most so many items of some in a list.

    Attributes:
        limit: items; None: no such limit.
        share: of the list's length, rounded down; None likewise.
    """

    rule: str
    limit: int | None = None
    share: float | None = None

    def most(self, n: int) -> int:
        """Items of a list of n."""
        by_share = n if self.share is None else int(self.share * n + 1e-9)
        return min(by_share, n if self.limit is None else self.limit)


@dataclass(frozen=True)
class Pin:
    """An item's place, from 1."""

    rule: str
    code: int
    position: int


@dataclass(frozen=True)
class CompiledRules:
    """What the rules in force say of each item of one version of a shelf. Not to be written to.

    Attributes:
        open: bool `[items]`: there, not hidden, kept by every filter, and excluded by no rule.
        boost: float32 `[items]`, nats.
        pins: by position, then in the order of the rules; all open.
        quotas: in the order of the rules.
        limited: bool `[quotas, items]`, which items each quota is about.
        acted: rules that boost or bury, with their items.
    """

    open: Mask = field(repr=False)
    boost: NDArray[np.float32] = field(repr=False)
    pins: tuple[Pin, ...] = ()
    quotas: tuple[Quota, ...] = ()
    limited: Mask = field(default_factory=lambda: np.zeros((0, 0), bool), repr=False)
    acted: tuple[tuple[str, Mask], ...] = field(default=(), repr=False)

    def for_given(self) -> "CompiledRules":
        """For candidates that somebody else chose: boosts hold, but none is taken away, added or limited."""
        return CompiledRules(np.ones(len(self.open), bool), self.boost, acted=self.acted)

    def names_of(self, code: int) -> tuple[str, ...]:
        """Rules that boost, bury or pin an item; a filter acts on all that is not shown, a quota on none that is."""
        return (
            *(name for name, mask in self.acted if mask[code]),
            *(pin.rule for pin in self.pins if pin.code == code),
        )


class RuleTable:
    """The rules of a shelf, compiled as they are needed. Safe to share between threads.

    Args:
        filters: of the shelf: its masks of expressions are shared with what queries ask.
        kept: sets of rules in force that are kept: one for each kind of user.
    """

    def __init__(self, shelf: Shelf, filters: Filters, book: RuleBook | None = None, kept: int = 64) -> None:
        self._shelf = shelf
        self._filters = filters
        self._rules = (book or RuleBook()).rules
        self._capacity = kept
        self._compiled: OrderedDict[tuple[int, ...], tuple[tuple[int, float], CompiledRules]] = OrderedDict()
        self._due: tuple[float, tuple[int, ...]] = (-1.0, ())
        self._categories: tuple[int, dict[str, NDArray[np.int64]]] = (-1, {})
        self._lock = threading.Lock()

    def replace(self, book: RuleBook) -> None:
        """Other rules from now on."""
        with self._lock:
            self._rules, self._due = book.rules, (-1.0, ())
            self._compiled.clear()

    def in_force(self, now: float, labels: Json = None, arm: str = "") -> CompiledRules:
        """The rules for a user of these labels, in this arm, in this minute.

        Raises: ConfigError: a rule's expression takes too long over these items.
        """
        with self._lock:
            minute = now // MINUTE_S * MINUTE_S
            if self._due[0] != minute:
                self._due = (minute, tuple(at for at, rule in enumerate(self._rules) if rule.is_due(minute)))
            chosen = tuple(at for at in self._due[1] if self._rules[at].is_for(labels, arm))
            rules = [self._rules[at] for at in chosen]
            moment = (self._shelf.version, minute if any("now" in rule.where for rule in rules) else 0.0)
            known = self._compiled.get(chosen)
            if known is None or known[0] != moment:
                known = self._compiled[chosen] = (moment, compile_rules(rules, self._shelf, self._filters, minute))
            self._compiled.move_to_end(chosen)
            if len(self._compiled) > self._capacity:
                self._compiled.popitem(last=False)
            return known[1]

    def blocked(self, items: Sequence[str], categories: Sequence[str] = ()) -> Mask:
        """A user's own list of what they do not want: `[items]`; names that nothing has block nothing."""
        mask = np.zeros(len(self._shelf), bool)
        mask[[code for item in items if (code := self._shelf.find(item)) is not None]] = True
        if categories:
            by_category = self._by_category()
            for category in categories:
                mask[by_category.get(category, [])] = True
        return mask

    def _by_category(self) -> dict[str, NDArray[np.int64]]:
        version, found = self._categories
        if version != self._shelf.version:
            version = self._shelf.version
            found = {name: np.flatnonzero(mask) for name, mask in category_masks(self._shelf).items()}
            self._categories = (version, found)
        return found


def compile_rules(rules: Sequence[Rule], shelf: Shelf, filters: Filters, now: float) -> CompiledRules:
    """What these rules say together; filters and exclusions before all others, so no pin brings back what they took.

    Raises: ConfigError: naming the rules whose expression takes too long.
    """
    masks, problems = [], []
    for rule in rules:
        try:
            masks.append(selected(rule, shelf, filters, now))
        except ConfigError as error:
            problems.append(error.problem)
    if problems:
        raise ConfigError.of_all(
            problems, "make these expressions simpler, or put what they find into a field", "rules"
        )
    is_open, boost = shelf.recommendable().copy(), np.zeros(len(shelf), np.float32)
    acted: list[tuple[str, Mask]] = []
    for rule, mask in zip(rules, masks, strict=True):
        match rule.action:
            case "filter":
                is_open &= mask
            case "exclude":
                is_open &= ~mask
            case "boost" | "bury":
                boost[mask] += np.float32((rule.amount or 0.0) * (1 if rule.action == "boost" else -1))
                acted.append((rule.name, mask))
            case "pin" | "quota":
                pass
    pins = [pin for rule, mask in zip(rules, masks, strict=True) for pin in _pins(rule, mask & is_open, shelf)]
    quotas, limited = _quotas(rules, masks, shelf)
    for column in (is_open, boost, limited):
        column.flags.writeable = False
    pins.sort(key=lambda pin: pin.position)
    return CompiledRules(is_open, boost, tuple(pins), quotas, limited, tuple(acted))


def selected(rule: Rule, shelf: Shelf, filters: Filters, now: float) -> Mask:
    """Which items a rule is about: `[items]`."""
    mask = np.ones(len(shelf), bool)
    if rule.items:
        mask[:] = False
        mask[[code for item in rule.items if (code := shelf.find(item)) is not None]] = True
    if rule.category not in ("", EACH):
        mask &= shelf.in_category(rule.category)
    if rule.field:
        mask &= _by_field(rule, shelf)
    if rule.where:
        mask &= filters.mask(rule.where, now, f"rule {rule.name}: where")
    return mask


def _by_field(rule: Rule, shelf: Shelf) -> Mask:
    mask = np.ones(len(shelf), bool)
    numbers = shelf.numbers(rule.field)
    if rule.at_least is not None:
        mask &= numbers >= rule.at_least
    if rule.at_most is not None:
        mask &= numbers <= rule.at_most
    if rule.equals is not None:
        wanted, is_truth = rule.equals, isinstance(rule.equals, bool)
        values = [shelf.item(code).fields.get(rule.field) for code in range(len(shelf))]
        mask &= np.array([value == wanted and isinstance(value, bool) == is_truth for value in values], bool)
    return mask


def _pins(rule: Rule, mask: Mask, shelf: Shelf) -> list[Pin]:
    """Its items one after another. Where one is open to nobody the next moves up.

    Where one is closed to one person its place goes to what is not pinned, so that positions are the same on all pages.
    """
    if rule.action != "pin" or rule.position is None:
        return []
    codes = [shelf.find(item) for item in dict.fromkeys(rule.items)]
    there = [code for code in codes if code is not None and mask[code]]
    return [Pin(rule.name, code, rule.position + step) for step, code in enumerate(there)]


def _quotas(rules: Sequence[Rule], masks: Sequence[Mask], shelf: Shelf) -> tuple[tuple[Quota, ...], Mask]:
    found: list[tuple[Quota, Mask]] = []
    for rule, mask in zip(rules, masks, strict=True):
        if rule.action == "quota":
            parts = [mask & own for own in category_masks(shelf).values()] if rule.category == EACH else [mask]
            found += [(Quota(rule.name, rule.limit, rule.share), part) for part in parts]
    limited = np.stack([mask for _, mask in found]) if found else np.zeros((0, len(shelf)), bool)
    return tuple(quota for quota, _ in found), limited


def category_masks(shelf: Shelf) -> dict[str, Mask]:
    """The items of each category that there is, by name."""
    found: dict[str, list[int]] = {}
    for code in range(len(shelf)):
        for category in shelf.item(code).categories:
            found.setdefault(category, []).append(code)
    masks = {name: np.zeros(len(shelf), bool) for name in found}
    for name, codes in found.items():
        masks[name][codes] = True
    return masks
