"""Items that are held back and rules that wait, until a person has decided: the queue of one tenant."""

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from fedrec.errors import ConfigError, FedrecError
from fedrec.recommend.rules import Rule
from fedrec.recommend.shelf import Item, Json, Shelf
from fedrec.safety.screen import Flag, Screen, words_of
from fedrec_client.serving.errors import ConflictError, NotFoundError
from fedrec_client.serving.policy import Policy, rule_of
from fedrec_client.serving.settings import ReviewSettings
from fedrec_client.serving.store.review_book import Case, Decision, State
from fedrec_client.serving.store.store import TenantStore

_log = logging.getLogger(__name__)
SCREEN = "screen"  # who asks where nobody did
_HELD: tuple[State, ...] = ("waiting", "rejected")
_TOGETHER = 256
Put = Callable[[Sequence[Item]], Awaitable[int]]


class Reviewing:
    """See the module. Called on the event loop; what takes long runs in a thread, one at a time.

    Args:
        screen: what items are held against; it fails closed: an item that it cannot look at waits.
    """

    def __init__(
        self, store: TenantStore, shelf: Shelf, policy: Policy, screen: Screen, settings: ReviewSettings
    ) -> None:
        self._store, self._shelf, self._policy, self._screen = store, shelf, policy, screen
        self.settings = settings
        self._known: dict[str, tuple[State, str]] = {}
        self._one = asyncio.Lock()

    async def start(self) -> int:
        """Hold what was held before, then look at all that is there; how many are held. Before anybody is served."""
        self._known = await asyncio.to_thread(self._store.reviews.latest_items)
        for item, (state, _) in self._known.items():
            if state in _HELD:
                self._shelf.hold(item)
        items = self._shelf.items()
        for start in range(0, len(items), _TOGETHER):
            await self.look_at(items[start : start + _TOGETHER])
        return sum(self._shelf.is_held(item.id) for item in items)

    async def look_at(self, items: Sequence[Item]) -> None:
        """Hold back what must be, before it is put on the shelf. A decision on the very same words stands."""
        if self._screen.is_idle:
            items = [item for item in items if item.id in self._known]
        undecided = [item for item in items if self._known.get(item.id, ("", ""))[1] != digest_of(item)]
        if not undecided:
            return
        async with self._one:
            found = await asyncio.to_thread(self._flags, undecided)
            for item, flags in zip(undecided, found, strict=True):
                if self._known.get(item.id, ("", ""))[0] in _HELD:
                    flags = [*flags, Flag("again", "held before with other words")]
                if flags:
                    await self._ask(item, flags, SCREEN)

    async def flag(self, name: str, note: str, who: str) -> Case:
        """Somebody wants a person to look at an item. Raises NotFoundError."""
        item = await asyncio.to_thread(self._store.items.get, name)
        if item is None:
            raise NotFoundError("item")
        async with self._one:
            return await self._ask(item, [Flag("person", who, note)], who)

    async def propose(self, rule: Rule | None, removed: str, who: str) -> Case:
        """A rule that is to be made, or, by its name, one that is to go. Raises ConflictError, NotFoundError."""
        name = rule.name if rule else removed
        self._refuse_rule_of_file(name)
        content: Json = {"removes": removed} if rule is None else {"rule": _stored(rule)}
        digest = _hash(content)
        return await asyncio.to_thread(self._store.reviews.ask, "rule", name, digest, [], content, who, time.time())

    async def approve(self, number: int, who: str, note: str = "") -> Case:
        """The item may be shown, or the rule is in force. Raises NotFoundError; ConflictError: decided already."""
        case = await self._open(number, who)
        done = await self._decide(case, "approved", who, note)
        if case.kind == "rule":
            await self._use(case.content)
        return done

    async def reject(self, number: int, who: str, note: str = "") -> Case:
        """The item stays off all lists, or the rule is not made. Raises as `approve`."""
        return await self._decide(await self._open(number, who), "rejected", who, note)

    async def edit_item(
        self, number: int, changes: Mapping[str, Any], put: Put, who: str, note: str = ""
    ) -> tuple[Case, Item]:
        """Other words for an item, with which it may be shown. Raises as `approve`.

        Args:
            changes: by the names of `Item`.
            put: describes items anew.
        """
        case = await self._open(number, who)
        item = await asyncio.to_thread(self._store.items.get, case.subject)
        if case.kind != "item" or item is None:
            raise NotFoundError("item")
        after = replace(item, **changes)
        done = await self._decide(case, "edited", who, note, _content(after))
        self._known[item.id] = ("edited", digest_of(after))
        await put([after])
        self._shelf.let_go(item.id)  # not before: until then its old words stand there
        return done, after

    async def edit_rule(self, number: int, rule: Rule, who: str, note: str = "") -> Case:
        """Another rule in place of the proposed one; it is in force then. Raises as `approve`."""
        case = await self._open(number, who)
        if case.kind != "rule":
            raise NotFoundError("rule")
        self._refuse_rule_of_file(rule.name)
        done = await self._decide(case, "edited", who, note, {"rule": _stored(rule)})
        await self._use({"rule": _stored(rule)})
        return done

    def _refuse_rule_of_file(self, name: str) -> None:
        if any(known.name == name and is_in_file for known, is_in_file in self._policy.every()):
            raise ConflictError("the rules file has a rule of that name", "change it there")

    async def _open(self, number: int, who: str) -> Case:
        """Raises NotFoundError; ConflictError: whoever asked may not decide."""
        case = await asyncio.to_thread(self._store.reviews.get, number)
        if self.settings.four_eyes and case.asked_by == who:
            raise ConflictError("whoever asked does not decide: review.four_eyes", "another API key has to")
        if case.kind == "rule" and case.state == "waiting" and "rule" in case.content:
            self._refuse_rule_of_file(case.subject)
        return case

    async def _decide(self, case: Case, decision: Decision, who: str, note: str, after: Json = None) -> Case:
        done = await asyncio.to_thread(self._store.reviews.decide, case.id, decision, who, time.time(), note, after)
        if case.kind == "item" and self._known.get(case.subject, ("", ""))[1] in ("", case.digest):
            self._known[case.subject] = (decision, case.digest)
            if decision == "approved":
                self._shelf.let_go(case.subject)
        return done

    async def _use(self, content: Json) -> None:
        if "rule" in content:
            await self._policy.put(rule_of(content["rule"]))
        elif any(rule.name == content["removes"] for rule, _ in self._policy.every()):
            await self._policy.remove(content["removes"])

    async def _ask(self, item: Item, flags: Sequence[Flag], who: str) -> Case:
        """First in memory: should the store fail, it is held all the same."""
        digest = digest_of(item)
        self._shelf.hold(item.id)
        told = [flag.to_dict() for flag in flags]
        ask = self._store.reviews.ask
        case = await asyncio.to_thread(ask, "item", item.id, digest, told, _content(item), who, time.time())
        self._known[item.id] = ("waiting", digest)
        return case

    def _flags(self, items: Sequence[Item]) -> list[list[Flag]]:
        """In a thread. What cannot be screened waits for a person."""
        try:
            return self._screen.flags(items)
        except (FedrecError, RuntimeError, ValueError) as error:
            _log.error("items could not be screened: %s", type(error).__name__, extra={"event": "not_screened"})
        if len(items) > 1:  # so that one cannot hold the others
            return [self._flags([item])[0] for item in items]
        return [[Flag("unscreened", "the screen failed")]]


def digest_of(item: Item) -> str:
    """Of what is decided on: id and all words of an item."""
    return _hash([item.id, words_of(item)])


def _content(item: Item) -> Json:
    """What a person sees of it."""
    told = asdict(item)
    return {name: told[name] for name in ("title", "text")} | {"categories": list(item.categories)}


def _stored(rule: Rule) -> Json:
    return rule.model_dump(mode="json", exclude_defaults=True)


def _hash(content: Json) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()


def refuse_themes_without_encoder(screen: Sequence[str], *, has_sentences: bool) -> None:
    """Raises ConfigError: nothing could be held against the themes, and everything would wait."""
    if "themes" in screen and not has_sentences:
        raise ConfigError(
            'safety.screen names "themes", and this model has no sentence encoder', 'take it out, or "words" alone'
        )
