"""The rules editor: a form's fields as a rule and back, and which items a rule is about."""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedrec.errors import ConfigError
from fedrec.recommend.compiled_rules import selected
from fedrec.recommend.rules import Rule
from fedrec_client.serving.pages.asked import Fields
from fedrec_client.serving.policy import rule_of
from fedrec_client.serving.service import TenantService

# What has a field of its own in the form; all else is written as JSON.
_NUMBERS: dict[str, Callable[[str], float]] = {"position": int, "amount": float, "limit": int, "share": float}
_TEXTS = ("name", "action", "category", "where")
_SHOWN = 8
BLANK: Fields = {
    **dict.fromkeys((*_TEXTS, *_NUMBERS), ""), "action": "pin", "items": "", "more": "", "enabled": "yes", "was": "",
}  # fmt: skip


@dataclass(frozen=True)
class Tried:
    """What a rule is about now.

    Attributes:
        titles: of the first items.
        is_due: whether it is in force at this moment.
    """

    n_items: int
    titles: tuple[str, ...]
    is_due: bool


def read_form(fields: Fields) -> Rule:
    """The rule that a form describes. Raises ConfigError with all that is wrong."""
    values, problems = _more(fields.get("more", ""))
    given = {name: fields[name].strip() for name in _TEXTS if fields.get(name, "").strip()}
    if items := [line.strip() for line in fields.get("items", "").replace(",", "\n").split("\n") if line.strip()]:
        given["items"] = items  # type: ignore[assignment]
    for name, kind in _NUMBERS.items():
        if text := fields.get(name, "").strip():
            try:
                given[name] = kind(text)  # type: ignore[assignment]
            except ValueError:
                problems.append(f"{name}: {text[:40]!r} is no {'whole ' if kind is int else ''}number")
    problems += [f"{name}: stands in the form and in the JSON" for name in sorted(given.keys() & values.keys())]
    values = {**values, **given}
    if fields.get("enabled") != "yes":
        values["enabled"] = False
    try:
        rule = rule_of(values)
    except ConfigError as error:
        raise ConfigError("\n".join([*problems, *_listed(error)]), error.remedy) from error
    if problems:
        raise ConfigError("\n".join(problems), "mend the rule; nothing was changed")
    return rule


def problems_of(error: ConfigError) -> list[str]:
    """Each as a line."""
    return [line.removeprefix("  - ") for line in error.problem.split("\n")]


def _listed(error: ConfigError) -> list[str]:
    """Without the heading, which counts them."""
    return [part.strip().removeprefix(": ") for line in error.problem.split("\n  - ")[1:] for part in line.split("; ")]


def _more(text: str) -> tuple[dict[str, Any], list[str]]:
    if not text.strip():
        return {}, []
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        place = f"line {error.lineno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else "no JSON"
        return {}, [f"JSON: {place}"]
    if not isinstance(values, dict):
        return {}, ["JSON: it must be an object, as {…}"]
    return values, []


def form_of(rule: Rule) -> Fields:
    """A rule as the form has it."""
    values = rule.model_dump(mode="json", exclude_defaults=True)
    form = BLANK | {name: str(values.pop(name)) for name in (*_TEXTS, *_NUMBERS) if name in values}
    form |= {"items": "\n".join(values.pop("items", ())), "enabled": "yes" if rule.enabled else "no", "was": rule.name}
    values.pop("enabled", None)
    return form | {"more": json.dumps(values, indent=2, ensure_ascii=False) if values else ""}


async def try_rule(one: TenantService, rule: Rule) -> Tried:
    """Raises ConfigError: its expression takes too long over these items."""
    shelf, now = one.tenant.shelf, time.time()
    mask = await asyncio.to_thread(selected, rule, shelf, one.policy.filters, now)
    codes = np.flatnonzero(mask[: len(shelf)] & shelf.recommendable()[: len(mask)])
    titles = tuple(shelf.item(int(code)).title or shelf.item(int(code)).id for code in codes[:_SHOWN])
    return Tried(len(codes), titles, rule.is_due(now))
