"""Requests as users of a simulation might have made them: made, in words that the public reader was never taught."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedrec.data.catalog import ItemCatalog
from fedrec.data.partition import deal_users
from fedrec.data.splits import EvaluationSplit
from fedrec.query.rule import QueryRule
from fedrec_sim.queries.published import SentenceMaker, both_words, phrases_of

Group = Literal["learn", "validation", "test"]
# Of the users in tenths: who teaches, who chooses settings, who asks the test.
_TENTHS: dict[Group, tuple[int, int]] = {"learn": (0, 7), "validation": (7, 8), "test": (8, 10)}
KINDS = ("one", "one", "two", "one_not", "decade", "since", "until")
# Of a user; and of sentences, those with words that the reader was never taught.
_MOST_REQUESTS, _NEW_WORDS = 10, 0.7
# Requests about one held-out item, so that figures hang less on which words were drawn.
_ABOUT_ONE: dict[Group, int] = {"learn": 1, "validation": 10, "test": 3}


@dataclass(frozen=True)
class UserRequest:
    """What somebody asked for, and the item that they took then. Private as its owner's, though it is made.

    Attributes:
        place: of the user among the splits.
        rule: what was meant; nobody is taught it, precision is judged by it.
        history: the user's items before it, oldest first.
    """

    place: int
    text: str = field(repr=False)
    item: int = field(repr=False)
    rule: QueryRule = field(repr=False)
    history: NDArray[np.int32] = field(repr=False)


@cache
def _phrases() -> Mapping[str, Any]:
    return phrases_of("user_phrases.toml")


def user_requests(
    catalog: ItemCatalog, splits: Sequence[EvaluationSplit], group: Group, seed: int
) -> list[UserRequest]:
    """Requests of one group of users, about their own latest items; no two groups share users or sentences.

    Those who teach ask once about each of their latest ten training items of which something can be said; those who
    choose settings ask ten times about the validation item of protocol B, those who ask the test three times about the
    test item.
    """
    phrases = _phrases()
    maker = SentenceMaker(catalog, phrases["sentences"][group], both_words(phrases["words"]))
    first, last = _TENTHS[group]
    places = np.sort(np.concatenate(deal_users(len(splits), 10, seed)[first:last]))
    made = []
    for place in places:
        split, rng = splits[place], np.random.default_rng([seed, int(place), first])
        for item, history in _taken(split, group) * _ABOUT_ONE[group]:
            said = maker.asked(item, KINDS, rng, _NEW_WORDS)
            if said is not None:
                made.append(UserRequest(int(place), said[0], item, said[1], history))
    return made


def _taken(split: EvaluationSplit, group: Group) -> list[tuple[int, NDArray[np.int32]]]:
    """Items with what came before each."""
    if group == "learn":
        first = max(0, len(split.train) - _MOST_REQUESTS)
        return [(int(split.train[n]), split.train[:n]) for n in range(first, len(split.train))]
    return [(int(item), split.history(group)) for item in getattr(split, group)[:1]]


def as_lines(catalog: ItemCatalog, splits: Sequence[EvaluationSplit], seed: int) -> list[str]:
    """Requests of those who teach, as lines of a JSON-lines file; times are places in the user's history."""
    lines = []
    for request in user_requests(catalog, splits, "learn", seed):
        row = {"user": splits[request.place].user, "request": request.text, "item": catalog.ids[request.item]}
        lines.append(json.dumps({**row, "timestamp": len(request.history), "made": True}, ensure_ascii=False))
    return lines
