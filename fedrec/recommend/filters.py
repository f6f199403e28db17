"""Which items of a shelf match an expression: worked out once per version of the shelf, and kept.

An expression is taken apart at `&&`, `||` and `!`. A comparison of numbers is done on whole columns; any other
condition is asked of celpy, once for each distinct thing that it reads, and its answers are kept over versions.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from lark import Token, Tree
from numpy.typing import NDArray

from fedrec.errors import ConfigError
from fedrec.recommend.expression import MAX_STEPS, Condition, TooLongError, bare, field_of, name_of, parse, reads
from fedrec.recommend.shelf import Shelf

Truth = NDArray[np.int8]  # 1 true, 0 false, -1 unknown
MINUTE_S = 60.0
_OTHER = -2  # neither true nor false nor unknown
_Answers = dict[int, dict[tuple[str, ...], int]]  # of each condition, by what it read
_COMPARISONS: dict[str, Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.bool_]]] = {
    "relation_lt": np.less,
    "relation_le": np.less_equal,
    "relation_gt": np.greater,
    "relation_ge": np.greater_equal,
    "relation_eq": np.equal,
    "relation_ne": np.not_equal,
}
_SUMS: dict[str, Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]] = {
    "addition_add": np.add,
    "addition_sub": np.subtract,
    "multiplication_mul": np.multiply,
}


@dataclass
class _Kept:
    """An expression with what is known of it."""

    tree: Tree[Token]
    uses_now: bool
    version: int = -1
    minute: float = -1.0
    mask: NDArray[np.bool_] | None = None
    refused: ConfigError | None = None
    answers: _Answers = field(default_factory=dict)


class Filters:
    """Masks of expressions over one shelf; the longest unused are forgotten. Safe to share between threads.

    Args:
        shelf: what is filtered.
        capacity: expressions that are kept.
        steps: of celpy's interpreter for one mask, some 12 microseconds each; an expression that needs more is refused.
    """

    def __init__(self, shelf: Shelf, capacity: int = 256, steps: int = 100_000) -> None:
        self._shelf = shelf
        self._capacity = capacity
        self._steps = steps
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._lock = threading.Lock()

    def mask(self, text: str, now: float, place: str = "filter") -> NDArray[np.bool_]:
        """Which items match: `[items]`, not to be written to; `now` counts in minutes.

        Raises: ConfigError: the expression is faulty, gives no truth value, or takes too long. Names the place.
        """
        with self._lock:
            kept = self._kept.get(text) or _parsed(text, place)
            self._kept[text] = kept
            self._kept.move_to_end(text)
            if len(self._kept) > self._capacity:
                self._kept.popitem(last=False)
            minute = now // MINUTE_S * MINUTE_S if kept.uses_now else 0.0
            if (kept.version, kept.minute) != (self._shelf.version, minute):
                kept.version, kept.minute = self._shelf.version, minute
                kept.mask, kept.refused = None, None
                try:
                    truth = _Reading(self._shelf, minute, self._steps, kept.answers).truth(kept.tree)
                    kept.mask = truth == 1
                    kept.mask.flags.writeable = False
                except _RefusedError as error:
                    kept.refused = ConfigError(str(error), "make the expression simpler, or put it into a field")
            if kept.refused is not None or kept.mask is None:
                problem = kept.refused.problem if kept.refused else "no answer"
                raise ConfigError(f"{place}: {problem}", kept.refused.remedy if kept.refused else "")
            return kept.mask


def _parsed(text: str, place: str) -> _Kept:
    tree = parse(text, place)
    return _Kept(tree, "now" in reads(tree))


class _RefusedError(Exception):
    pass


class _Reading:
    """One expression over all items of one version of a shelf."""

    def __init__(self, shelf: Shelf, now: float, steps: int, answers: _Answers) -> None:
        self._shelf = shelf
        self._items = [shelf.item(code) for code in range(len(shelf))]
        self._now = now
        self._steps = steps
        self._answers = answers

    def truth(self, tree: Tree[Token]) -> Truth:
        """True, false or unknown of each item."""
        inner = bare(tree)  # celpy evaluates no name without its level, so what is asked is the whole
        match str(inner.data), [child for child in inner.children if isinstance(child, Tree)]:
            case "conditionaland", [left, right]:
                return _negation(_either(_negation(self.truth(left)), _negation(self.truth(right))))
            case "conditionalor", [left, right]:
                return _either(self.truth(left), self.truth(right))
            case "unary", [sign, of] if sign.data == "unary_not":
                return _negation(self.truth(of))
            case "relation", [left, right] if str(left.data) in _COMPARISONS and left.children:
                return self._comparison(inner, left, right)
            case _:
                return self._asked(tree)

    def _comparison(self, tree: Tree[Token], left: Tree[Token], right: Tree[Token]) -> Truth:
        """Numbers as columns. Where one is not a number celpy says what that means."""
        one, other = self._column(cast("Tree[Token]", left.children[0])), self._column(right)
        if one is None or other is None or not reads(tree):
            return self._asked(tree)
        truth = _COMPARISONS[str(left.data)](one, other).astype(np.int8)
        odd = np.isnan(one) | np.isnan(other)
        if str(left.data) in ("relation_eq", "relation_ne") and odd.any():
            return self._asked(tree)
        truth[odd] = -1
        return truth

    def _column(self, tree: Tree[Token]) -> NDArray[np.float64] | None:
        """A number of each item, NaN where it has none; None if it is no such thing."""
        tree = bare(tree)
        if key := field_of(tree):
            return self._numbers(key)
        match name_of(tree), str(tree.data), [child for child in tree.children if isinstance(child, Tree)]:
            case "now", _, _:
                return np.full(len(self._items), self._now)
            case "timestamp", _, _:
                return np.array([item.timestamp for item in self._items], np.float64)
            case "", "literal", _ if cast(Token, tree.children[0]).type in ("INT_LIT", "FLOAT_LIT"):
                return _literal(str(tree.children[0]), len(self._items))
            case "", "addition" | "multiplication", [left, right] if str(left.data) in _SUMS and left.children:
                one, other = self._column(cast("Tree[Token]", left.children[0])), self._column(right)
                return None if one is None or other is None else _SUMS[str(left.data)](one, other)
            case _:
                return None

    def _numbers(self, key: str) -> NDArray[np.float64] | None:
        """A field's numbers; None if an ordering of its other values means something to celpy."""
        values = [item.fields.get(key) for item in self._items]
        if any(
            value is not None and (isinstance(value, bool) or not isinstance(value, int | float)) for value in values
        ):
            return None
        column = np.array([np.nan if value is None else float(value) for value in values], np.float64)
        column[~np.isfinite(column)] = np.nan
        return column

    def _asked(self, tree: Tree[Token]) -> Truth:
        """What celpy says of each distinct thing that a condition reads."""
        condition = Condition(tree, reads(tree))
        known = self._answers.setdefault(id(tree), {})
        if "now" in condition.reads or len(known) > 4 * len(self._items) + 1000:
            known.clear()
        truth = np.full(len(self._items), -1, np.int8)
        for code, item in enumerate(self._items):
            values = condition.values(item, self._now)
            key = tuple(f"{name}={value!r}" for name, value in values.items())
            if (found := known.get(key)) is None:
                found = known[key] = self._ask(condition, values)
            truth[code] = found
        if (truth == _OTHER).any() and not (truth >= 0).any():
            raise _RefusedError("gives something else than true or false")
        truth[truth == _OTHER] = -1
        return truth

    def _ask(self, condition: Condition, values: dict[str, object]) -> int:
        try:
            answer, taken = condition.answer(values, min(MAX_STEPS, self._steps))
        except (TooLongError, RecursionError) as error:
            raise _RefusedError("takes too long to evaluate over these items") from error
        self._steps -= taken
        if answer is None:
            return -1
        return int(answer) if isinstance(answer, bool) else _OTHER


def _literal(text: str, n: int) -> NDArray[np.float64]:
    return np.full(n, float(int(text, 0)) if text.lower().lstrip("-").startswith("0x") else float(text))


def _negation(truth: Truth) -> Truth:
    return np.where(truth < 0, truth, 1 - truth).astype(np.int8)


def _either(left: Truth, right: Truth) -> Truth:
    """True if one is, false if both are, else unknown."""
    unknown = (left < 0) | (right < 0)
    return np.where((left == 1) | (right == 1), 1, np.where(unknown, -1, 0)).astype(np.int8)
