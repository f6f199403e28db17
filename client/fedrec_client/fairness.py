"""Figures of fairness over a node's own service: who is shown and who is served, noised and paid for by the ledger.

Each person who is named counts once, by the newest list that they had time to answer. Loads torch.
"""

import math
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedrec.errors import ConfigError
from fedrec.fairness.figures import NOTHING, Served
from fedrec.fairness.groups import NO_GROUP, ItemGroups, PeopleGroups, by_label, by_labels
from fedrec.fairness.release import PART, FairnessQuery, figures_of, release_fairness, threshold
from fedrec.privacy.noise import NoiseSource
from fedrec.privacy.plan import PrivacyPlan
from fedrec.recommend.shelf import Item, Json
from fedrec_client.serving.people import Feedback
from fedrec_client.serving.records import Shown
from fedrec_client.serving.settings import ServingSettings, read_serving
from fedrec_client.serving.store.click_book import ANSWER_S
from fedrec_client.serving.store.store import ServingStore, TenantStore, store_url
from fedrec_client.settings import Node
from fedrec_client.worker_process import open_ledger

_PLACES, _MOST_GROUPS, _TOGETHER, _DAY_S = 10, 100, 1000, 86_400.0
OTHER, EVERYBODY = "other", "everybody"
METRIC = f"click@{_PLACES}"
MECHANISM = "one Gaussian mechanism over a sum of one row for each person, of bounded norm"
NOT_COVERED = (
    "what a person's events did to the lists of others: popular, trending, learnt weights, prices of floors",
    "an id that the caller gave to lists or events of two people: only the one that came first is noted",
    "a person who is here under several names, or at several partners: counts once at each",
    "names and categories of items, which everybody may see",
)


@dataclass(frozen=True)
class FairnessQuestion:
    """What a partner wants to know of its own service. Public; the answers are not before they are noised.

    Attributes:
        epsilon: that it may cost.
        items: how items are divided: "category", or the name of a field, "brand".
        people: labels by which people are divided, each with the values that are told apart; the others are `other`.
        days: lists of so many are looked at.
        tenant: "": the first.
    """

    epsilon: float
    items: tuple[str, ...] = ("category",)
    people: Mapping[str, tuple[str, ...]] | None = None
    days: float = 30.0
    tenant: str = ""

    def __post_init__(self) -> None:
        """Raises ConfigError: an epsilon or days that are no number above 0."""
        named = (("--epsilon", self.epsilon), ("--days", self.days))
        problems = [f"{name} {value}" for name, value in named if not (math.isfinite(value) and value > 0)]
        if problems:
            raise ConfigError.of_all(problems, "give finite numbers above 0; nothing was read or paid", "fairness")


def read_people(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Divisions of people as a person writes them. Raises ConfigError: naming all that cannot be read.

    >>> read_people(["gender=f,m"])
    {'gender': ('f', 'm')}
    """
    found: dict[str, tuple[str, ...]] = {}
    problems = []
    for text in texts:
        name, _, rest = text.partition("=")
        values = tuple(value.strip() for value in rest.split(",") if value.strip())
        if not name.strip() or not values or len(set(values)) < len(values) or OTHER in values or name.strip() in found:
            problems.append(f"{text!r} is no label with values, each once")
        found[name.strip()] = values
    if problems:
        raise ConfigError.of_all(problems, "write --people gender=f,m; what is not named is `other`", "--people")
    return found


def measure(node: Node, asked: FairnessQuestion, *, pays: bool) -> dict[str, Any]:
    """Pay, read, noise, tell; without `pays` only what it would cost and show, of what is public.

    Raises: BudgetError: the ledger's budget does not cover it; nobody's data are read then. ConfigError: no service
        has run here, or a wrong question. LedgerError: there is no ledger, or a damaged one.
    Privacy: one Gaussian mechanism, charged durably before a list or event is read. A call that dies after that has
        cost its epsilon and told nothing; each call is a question of its own with noise of its own.
    """
    settings, ledger = read_serving(node.serving), open_ledger(node)
    tenant = asked.tenant or settings.tenant_names[0]
    if tenant not in settings.tenant_names:
        raise ConfigError(f"no tenant {tenant!r}", f"name one of {', '.join(settings.tenant_names)}")
    url = store_url(node.serving, settings.store.database)
    if settings.store.database == "sqlite" and not (node.serving / "serving.sqlite").is_file():
        raise ConfigError(f"{node.serving}: no service has run here", "flower-client serve; figures are of its lists")
    store = ServingStore.open(url)
    try:
        books = store.of(tenant)
        shelf = list(books.items.every())
        query, delta = _query(shelf, asked), ledger.budget.delta
        plan = query.plan(asked.epsilon, delta)
        told = {**_promise(plan, query, asked, delta), "tenant": tenant, "days": asked.days}
        if not pays:
            return {**told, "is_paid": False, "epsilon_left": ledger.remaining()}
        event = f"fairness-{secrets.token_hex(16)}"  # never the same: other data under the same noise would unmask it
        released = release_fairness(
            query,
            lambda: _read(books, settings, shelf, query, asked),
            plan,
            ledger,
            NoiseSource.fresh(event.encode()),
            run=event,
            event=event,
        )
        return {**told, "is_paid": True, "epsilon_left": ledger.remaining(), **figures_of(query, released)}
    finally:
        store.close()


def _promise(plan: PrivacyPlan, query: FairnessQuery, asked: FairnessQuestion, delta: float) -> dict[str, Any]:
    (part,) = plan.parts
    return {
        "metric": query.metric,
        "epsilon": asked.epsilon,
        "delta": delta,
        "unit": "user",
        "mechanism": MECHANISM,
        "sensitivity": part.l2_clip_norm,
        "noise_std": plan.noise_std(PART),
        "people_needed": math.ceil(threshold(plan.noise_std(PART))),
        "does_not_cover": list(NOT_COVERED),
    }


def _query(shelf: Sequence[Item], asked: FairnessQuestion) -> FairnessQuery:
    """Raises ConfigError: too many groups, or none."""
    if not shelf:
        raise ConfigError("the store has no items", "put some in first")
    groups = tuple(_groups(shelf, name) for name in asked.items)
    for one in groups:
        if len(one.names) > _MOST_GROUPS:
            raise ConfigError(f"{one.name}: {len(one.names)} groups of items", f"divide them into {_MOST_GROUPS}")
        if one.names == (NO_GROUP,):
            raise ConfigError(f"{one.name}: no item has this field", "name category, or a field that items have")
    people = [(name, (*values, OTHER)) for name, values in (asked.people or {}).items()]
    return FairnessQuery(METRIC, groups, tuple(people) or ((EVERYBODY, (EVERYBODY,)),))


def _groups(shelf: Sequence[Item], name: str) -> ItemGroups:
    labels = [item.categories if name == "category" else _values(item.fields.get(name)) for item in shelf]
    return by_labels(name, [tuple(dict.fromkeys(own)) or (NO_GROUP,) for own in labels])


def _values(value: Json) -> tuple[str, ...]:
    """A field as groups: each of a list; nothing nested."""
    every = value if isinstance(value, list | tuple) else [value]
    return tuple(str(one) for one in every if isinstance(one, str | int | float) and str(one))


def _read(
    books: TenantStore, settings: ServingSettings, shelf: Sequence[Item], query: FairnessQuery, asked: FairnessQuestion
) -> Served:
    """Everybody's newest list, whether a click answered it, and their groups. Private."""
    now, feedback = time.time(), Feedback(settings.feedback)
    found = books.clicks.newest_of_each(now - _DAY_S * asked.days, now - ANSWER_S, feedback.is_positive)
    codes = {item.id: code for code, item in enumerate(shelf)}
    lists = np.full((len(found), _PLACES), NOTHING, np.int64)
    quality = np.zeros(len(found))
    for row, (shown, clicked) in enumerate(found.values()):
        first = shown.items[:_PLACES]
        lists[row, : len(first)] = [codes.get(item, NOTHING) for item in first]
        quality[row] = float(bool(clicked.intersection(first)))
    return Served(lists, quality, _people(books, found, query))


def _people(
    books: TenantStore, found: Mapping[str, tuple[Shown, frozenset[str]]], query: FairnessQuery
) -> tuple[PeopleGroups, ...]:
    if query.people == ((EVERYBODY, (EVERYBODY,)),):
        return (by_label(EVERYBODY, [EVERYBODY] * len(found), (EVERYBODY,)),)
    labels = _labels(books)
    return tuple(
        by_label(name, [_label(labels.get(user), name, names) for user in found], names) for name, names in query.people
    )


def _labels(books: TenantStore) -> dict[str, Json]:
    found: dict[str, Json] = {}
    cursor = ""
    while True:
        users, cursor = books.users.page(_TOGETHER, cursor)
        found |= {user.id: user.labels for user in users}
        if not cursor:
            return found


def _label(labels: Json, name: str, names: Sequence[str]) -> str:
    value = labels.get(name) if isinstance(labels, Mapping) else None
    return str(value) if isinstance(value, str | int) and str(value) in names else OTHER
