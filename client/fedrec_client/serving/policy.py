"""A tenant's business rules: those of its file and those made by API, as one table that lists are held against."""

import asyncio
from pathlib import Path

from pydantic import ValidationError

from fedrec.errors import ConfigError
from fedrec.recommend.compiled_rules import RuleTable
from fedrec.recommend.filters import Filters
from fedrec.recommend.rules import MAX_RULES, Rule, RuleBook, read_rules
from fedrec.recommend.shelf import Json, Shelf
from fedrec_client.serving.errors import ConflictError, NotFoundError
from fedrec_client.serving.store.store import TenantStore


class Policy:
    """See the module. Rules of the file come first; a rule made by API may not take the name of one of them.

    Args:
        path: of the rules file, which need not be there.
    Attributes:
        filters: masks of expressions, shared with what queries ask.
        table: what lists are held against.
    """

    def __init__(self, path: Path, store: TenantStore, shelf: Shelf) -> None:
        self._store, self._path = store, path
        self.filters = Filters(shelf)
        self.table = RuleTable(shelf, self.filters)
        self._in_file = read_rules(path)
        self._made: dict[str, Rule] = {}
        self.reload()

    def reload(self) -> None:
        """Read file and store again. Raises ConfigError: the file is faulty; the rules before stay in force."""
        self._in_file = read_rules(self._path)
        self._made = {name: Rule.model_validate(rule) for name, rule in self._store.rules.every().items()}
        self._use()

    def every(self) -> list[tuple[Rule, bool]]:
        """All rules, and of each whether it stands in the file."""
        return [(rule, True) for rule in self._in_file.rules] + [(rule, False) for rule in self._made.values()]

    def find(self, name: str) -> Rule:
        """Raises NotFoundError."""
        for rule, _ in self.every():
            if rule.name == name:
                return rule
        raise NotFoundError("rule")

    async def put(self, rule: Rule) -> None:
        """Have a rule from now on. Raises ConflictError: the file has one of that name."""
        if any(rule.name == other.name for other in self._in_file.rules):
            raise ConflictError("the rules file has a rule of that name", f"change it in {self._path.name}")
        if rule.name not in self._made and len(self.every()) >= MAX_RULES:
            raise ConflictError(f"there are {MAX_RULES} rules already", "remove one")
        stored: Json = rule.model_dump(mode="json", exclude_defaults=True)
        await asyncio.to_thread(self._store.rules.put, rule.name, stored)
        self._made[rule.name] = rule
        self._use()

    async def remove(self, name: str) -> None:
        """Raises NotFoundError; ConflictError: it stands in the file."""
        if name not in self._made:
            self.find(name)
            raise ConflictError("this rule stands in the rules file", f"remove it in {self._path.name}")
        await asyncio.to_thread(self._store.rules.remove, name)
        del self._made[name]
        self._use()

    def _use(self) -> None:
        self.table.replace(RuleBook(rules=(*self._in_file.rules, *self._made.values())))


def rule_of(values: Json) -> Rule:
    """A rule that somebody sent. Raises ConfigError with all that is wrong."""
    try:
        return Rule.model_validate(values)
    except ValidationError as error:
        problems = [
            ".".join(map(str, one["loc"])) + ": " + one["msg"].removeprefix("Value error, ") for one in error.errors()
        ]
        raise ConfigError.of_all(problems, "mend the rule; nothing was changed", "rule") from error
