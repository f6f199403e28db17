"""Conditions on an item in CEL, the Common Expression Language: `item.price < 20 && "Drama" in categories`.

Whoever asks may send them, so nothing is compiled to Python: celpy parses and interprets, and every evaluation is
counted. Three answers: true, false, and unknown where an item lacks a field or has it of another kind; `&&`, `||` and
`!` treat unknown as CEL treats an error, and an item of which the whole is unknown does not match.
Reference: https://github.com/google/cel-spec, "Gradual type checking" for numbers of different types.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sized
from dataclasses import dataclass
from typing import Any, cast

from celpy import Environment
from celpy.adapter import json_to_cel
from celpy.celparser import CELParseError
from celpy.celtypes import BoolType, DoubleType, IntType
from celpy.evaluation import Activation, CELEvalError, Evaluator, base_functions
from lark import Token, Tree

from fedrec.errors import ConfigError
from fedrec.recommend.shelf import Item

MAX_CHARACTERS = 1000
MAX_DEPTH = 400  # of the parse tree: some 30 brackets within each other
MAX_STEPS = 5000  # of one condition on one item
MAX_SIZE = 10_000  # characters or elements of what `+` makes
NAMES = frozenset({"id", "title", "categories", "timestamp", "is_hidden", "item", "now"})
_MACROS = frozenset({"all", "exists", "exists_one", "map", "filter"})
_METHODS = frozenset({"contains", "startsWith", "endsWith", "matches", "size"})
_FUNCTIONS = frozenset({"has", "size", "double", "int", "string", "bool", "matches"})
# Levels of the grammar that say nothing where they have one child.
_LEVELS = frozenset({"expr", "conditionalor", "conditionaland", "relation", "addition", "multiplication", "unary"})
_REMEDY = "mend the expression; it may use " + ", ".join(sorted(NAMES)) + " and CEL's operators"
_ENVIRONMENT = Environment()


class TooLongError(Exception):
    """An evaluation has used up its steps."""


@dataclass(frozen=True)
class Condition:
    """A part of an expression that is true, false or unknown of an item.

    Attributes:
        tree: as celpy evaluates it.
        reads: what its answer depends on: names, and `item.price` for a field.
    """

    tree: Tree[Token]
    reads: tuple[str, ...]

    def values(self, item: Item, now: float) -> dict[str, Any]:
        """What it reads, by its name; what the item lacks is not there."""
        found: dict[str, Any] = {}
        for name in self.reads:
            if name.startswith("item."):
                key = name.removeprefix("item.")
                if key in item.fields and _is_there(item.fields[key]):
                    found[name] = item.fields[key]
            elif name == "item":
                found[name] = {key: value for key, value in item.fields.items() if _is_there(value)}
            else:
                found[name] = now if name == "now" else getattr(item, name)
        return found

    def answer(self, values: Mapping[str, Any], steps: int = MAX_STEPS) -> tuple[object, int]:
        """Of these values: True, False, None for unknown, or what it gives instead; and the steps it took.

        Raises: TooLongError: after so many steps.
        """
        context: dict[str, Any] = {"item": dict(values.get("item", {}))}
        for name, value in values.items():
            if name.startswith("item."):
                context["item"][name.removeprefix("item.")] = value
            elif name != "item":
                context[name] = value
        evaluator = _Counted(self.tree, Activation(functions=_OPERATORS), _Steps(steps))
        try:
            value = evaluator.evaluate({name: json_to_cel(_as_doubles(value)) for name, value in context.items()})
        except (CELEvalError, ValueError, TypeError, KeyError, OverflowError, ArithmeticError):
            return None, evaluator.count.taken
        return bool(value) if isinstance(value, BoolType | bool) else value, evaluator.count.taken


def _is_there(value: object) -> bool:
    return not (isinstance(value, float) and not math.isfinite(value))


def _as_doubles(value: Any) -> Any:
    """JSON has one kind of number, and so have fields."""
    match value:
        case bool():
            return value
        case int():
            return float(value)
        case list() | tuple():
            return [_as_doubles(part) for part in value]
        case Mapping():
            return {str(key): _as_doubles(part) for key, part in value.items()}
        case str() | float() | None:
            return value
        case _:
            return str(value)


class _Steps:
    def __init__(self, left: int) -> None:
        self.limit = left
        self.taken = 0

    def take(self) -> None:
        self.taken += 1
        if self.taken > self.limit:
            raise TooLongError


class _Counted(Evaluator):
    """celpy's interpreter, which stops when its steps are used up."""

    def __init__(self, ast: Tree[Token], activation: Activation, count: _Steps) -> None:
        super().__init__(ast, activation)
        self.count = count

    def sub_evaluator(self, ast: Tree[Token]) -> Evaluator:
        return _Counted(ast, self.activation, self.count)

    def visit_children(self, tree: Tree[Token]) -> list[Any]:
        self.count.take()
        return super().visit_children(tree)


def _number(value: object) -> bool:
    return isinstance(value, IntType | DoubleType)


def _over_numbers(name: str) -> Callable[[Any, Any], Any]:
    """celpy's operator of a name, taking 1 and 1.0 for the same number, and stopped before it makes something huge."""
    plain = cast(Callable[[Any, Any], Any], base_functions[name])

    def operate(left: Any, right: Any) -> Any:
        if _number(left) and _number(right) and type(left) is not type(right):
            return plain(DoubleType(left), DoubleType(right))
        if isinstance(left, BoolType) != isinstance(right, BoolType):
            return CELEvalError("no such overload", TypeError, ())
        if name == "_+_" and isinstance(left, Sized) and isinstance(right, Sized) and len(left) + len(right) > MAX_SIZE:
            raise TooLongError
        return plain(left, right)

    return operate


_OPERATORS: dict[str, Any] = {
    name: _over_numbers(name)
    for name in ("_<_", "_<=_", "_>_", "_>=_", "_==_", "_!=_", "_+_", "_-_", "_*_", "_/_", "_%_")
}


def parse(text: str, place: str) -> Tree[Token]:
    """The tree of an expression, without levels that say nothing. Raises ConfigError, which names the place.

    >>> parse("item.price < < 3", "rule cheap")
    Traceback (most recent call last):
    ...
    fedrec.errors.ConfigError: rule cheap: line 1, column 14: not CEL
      remedy: mend the expression; it may use categories, id, is_hidden, item, now, timestamp, title and CEL's operators
    """
    if not 0 < len(text) <= MAX_CHARACTERS:
        raise ConfigError(f"{place}: an expression has 1 to {MAX_CHARACTERS} characters, this {len(text)}", _REMEDY)
    try:
        tree = cast("Tree[Token]", _ENVIRONMENT.compile(text))
    except CELParseError as error:
        where = f"line {error.line}, column {error.column}" if error.line else "at its end"
        raise ConfigError(f"{place}: {where}: not CEL", _REMEDY) from error
    if _depth(tree) > MAX_DEPTH:
        raise ConfigError(f"{place}: brackets or operators within each other go too deep", _REMEDY)
    tree = _without_levels(tree)
    problems = sorted(set(_faults(tree, frozenset())))
    if problems:
        raise ConfigError(f"{place}: " + "; ".join(problems), _REMEDY)
    return tree


def reads(tree: Tree[Token]) -> tuple[str, ...]:
    """Names that a part of an expression depends on, a field as `item.price`."""
    return tuple(sorted(set(_read(tree, frozenset()))))


def _depth(tree: Tree[Token]) -> int:
    """Without recursion, since it is what bounds the recursion of everything else."""
    deepest, open_nodes = 0, [(tree, 1)]
    while open_nodes:
        node, depth = open_nodes.pop()
        deepest = max(deepest, depth)
        open_nodes += [(child, depth + 1) for child in node.children if isinstance(child, Tree)]
    return deepest


def _without_levels(tree: Tree[Token]) -> Tree[Token]:
    children = [_without_levels(child) if isinstance(child, Tree) else child for child in tree.children]
    if tree.data in _LEVELS and len(children) == 1 and isinstance(children[0], Tree):
        return children[0]
    return Tree(tree.data, children, tree.meta)


def _is_macro(tree: Tree[Token]) -> bool:
    return tree.data == "member_dot_arg" and str(tree.children[1]) in _MACROS


def _macro_parts(tree: Tree[Token]) -> tuple[Tree[Token], str, Tree[Token]]:
    """What a macro goes over, its variable ("" if it has none), and what it asks of each."""
    over = cast("Tree[Token]", tree.children[0])
    arguments = cast("list[Tree[Token]]", cast("Tree[Token]", tree.children[2]).children) if tree.children[2:] else []
    return over, name_of(arguments[0]) if len(arguments) == 2 else "", arguments[-1]


def _faults(tree: Tree[Token], bound: frozenset[str]) -> Iterator[str]:
    """What an expression may not have: names nobody knows, functions that are not offered, messages."""
    kind = str(tree.data)
    if kind in ("member_object", "dot_ident", "dot_ident_arg"):
        yield "messages and names from the root are not offered"
    elif kind == "ident" and str(tree.children[0]) not in NAMES | bound:
        yield f"unknown name {str(tree.children[0])!r}"
    elif kind == "ident_arg" and str(tree.children[0]) not in _FUNCTIONS:
        yield f"unknown function {str(tree.children[0])!r}"
    elif kind == "member_dot_arg" and str(tree.children[1]) not in _METHODS | _MACROS:
        yield f"unknown method {str(tree.children[1])!r}"
    elif kind == "member_dot_arg" and _is_macro(tree):
        if len(tree.children) < 3 or (parts := _macro_parts(tree))[1] in NAMES | {""}:
            yield f"{tree.children[1]} wants a new name and a condition"
            return
        yield from _faults(parts[0], bound)
        yield from _faults(parts[2], bound | {parts[1]})
        return
    for child in tree.children:
        if isinstance(child, Tree):
            yield from _faults(child, bound)


def _read(tree: Tree[Token], bound: frozenset[str]) -> Iterator[str]:
    if field := field_of(tree):
        yield f"item.{field}"
        return
    if tree.data == "ident" and str(tree.children[0]) not in bound:
        yield str(tree.children[0])
    if _is_macro(tree):
        over, name, asked = _macro_parts(tree)
        yield from _read(over, bound)
        yield from _read(asked, bound | {name})
        return
    for child in tree.children:
        if isinstance(child, Tree):
            yield from _read(child, bound)


def field_of(tree: Tree[Token]) -> str:
    """`price` of `item.price`; "" of anything else."""
    tree = bare(tree)
    if tree.data != "member_dot" or name_of(cast("Tree[Token]", tree.children[0])) != "item":
        return ""
    return str(tree.children[1])


def name_of(tree: Tree[Token]) -> str:
    """A name that stands alone; "" of anything else."""
    tree = bare(tree)
    return str(tree.children[0]) if tree.data == "ident" else ""


def bare(tree: Tree[Token]) -> Tree[Token]:
    """What stands in brackets, or alone in its level."""
    while tree.data in ("paren_expr", "member", "primary") and len(tree.children) == 1:
        tree = cast("Tree[Token]", tree.children[0])
    return tree
