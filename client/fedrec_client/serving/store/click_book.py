"""What people did with the lists that they were shown: results of an A/B test, and rows to learn ranking from."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select, tuple_

from fedrec.database import Database
from fedrec_client.serving.records import Shown
from fedrec_client.serving.store.columns import CHUNK
from fedrec_client.serving.store.shown_book import shown_of
from fedrec_client.serving.store.tables import EVENTS, SHOWN

# An event that names no ranking answers lists of the same person that are not older.
ANSWER_S = 1800.0
# Whether an event of a type and value is a click.
Counts = Callable[[str, float], bool]


@dataclass(frozen=True)
class ArmClicks:
    """How the lists of an arm and an adapter did. Counts over people: stays with the partner.

    Attributes:
        lists, items: that were shown.
        clicked_lists: those with a click at least.
        clicked_items: places that were clicked, each once.
    """

    arm: str
    adapter: str
    lists: int
    items: int
    clicked_lists: int
    clicked_items: int


@dataclass(frozen=True, repr=False)
class Impression:
    """A list with what was clicked of it."""

    shown: str
    arm: str
    at: float
    items: tuple[str, ...]
    clicked: frozenset[str]


class ClickBook:
    """Shown lists joined with events. It reads some lists in a transaction, then the next.

    A click is an event on a shown item that names the list; or one that names none, of the same user or session, within
    half an hour after it. One that names none counts for each list that it fits. `types`: of events that count; all.

    Raises, in every method: StorageError.
    """

    def __init__(self, database: Database, tenant: str) -> None:
        self._database, self._tenant = database, tenant

    def by_arm(self, since: float = 0.0, types: Collection[str] | None = None) -> list[ArmClicks]:
        """How lists since a moment did, by arm and adapter."""
        sums: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
        for shown, clicked in self._every(since, types):
            counts = (1, len(shown.items), bool(clicked), len(clicked))
            key = (shown.arm, shown.adapter)
            sums[key] = [old + new for old, new in zip(sums[key], counts, strict=True)]
        return [ArmClicks(*key, *counts) for key, counts in sorted(sums.items())]

    def impressions(self, since: float, limit: int, types: Collection[str] | None = None) -> list[Impression]:
        """The first lists since a moment, oldest first."""
        found: list[Impression] = []
        for one, clicked in self._every(since, types):
            if len(found) >= limit:
                break
            found.append(Impression(one.id, one.arm, one.at, one.items, clicked))
        return found

    def clicked(self, arm: str, counts: Counts) -> Iterator[tuple[Shown, frozenset[str]]]:
        """Lists of an arm that have a click and features, with the items that were clicked, newest first."""
        for one, clicked in self._every(None, None, arm, counts):
            if clicked and one.features:
                yield one, clicked

    def newest_of_each(self, since: float, until: float, counts: Counts) -> dict[str, tuple[Shown, frozenset[str]]]:
        """The newest list of each named person after a moment and not after another, with the items clicked in it.

        Privacy: a person's entry depends on their own lists and events, and on nameless events of their session; no
            event of somebody else answers their list, whatever ranking it names.
        """
        found: dict[str, tuple[Shown, frozenset[str]]] = {}
        for one, clicked in self._every(since, None, counts=counts, is_own=True):
            if one.at > until:
                break
            if one.user:
                found[one.user] = (one, clicked)
        return found

    def _every(
        self,
        since: float | None,
        types: Collection[str] | None,
        arm: str | None = None,
        counts: Counts | None = None,
        *,
        is_own: bool = False,
    ) -> Iterator[tuple[Shown, frozenset[str]]]:
        """Oldest first from a moment on, or all of them, newest first."""
        place = (SHOWN.c.at, SHOWN.c.id)
        order = place if since is not None else tuple(column.desc() for column in place)
        chosen = select(SHOWN).where(SHOWN.c.tenant == self._tenant).order_by(*order).limit(CHUNK)
        chosen = chosen if arm is None else chosen.where(SHOWN.c.arm == arm)
        wanted = chosen if since is None else chosen.where(SHOWN.c.at >= since)
        while True:
            with self._database.begin() as connection:
                lists = [shown_of(row) for row in connection.execute(wanted).mappings()]
                clicked = _clicked(connection, self._tenant, [one.id for one in lists], types, counts, is_own=is_own)
            for one in lists:
                yield one, frozenset(clicked[one.id].intersection(one.items))
            if len(lists) < CHUNK:
                return
            here, last = tuple_(*place), tuple_(lists[-1].at, lists[-1].id)
            wanted = chosen.where(here < last if since is None else here > last)


def _clicked(
    connection: Connection,
    tenant: str,
    ids: Sequence[str],
    types: Collection[str] | None,
    counts: Counts | None = None,
    *,
    is_own: bool = False,
) -> defaultdict[str, set[str]]:
    """Items of events that answer lists, shown there or not.

    Args:
        is_own: an event that names a list answers it only if it is of the list's user, or a nameless one of its
            session.
    """
    e, s, found = EVENTS.c, SHOWN.c, defaultdict[str, set[str]](set)
    chosen = select(s.id, e.item, e.ranking, e.type, e.value)
    chosen = chosen.where(s.tenant == tenant, s.id.in_(ids), e.tenant == tenant)
    chosen = chosen if types is None else chosen.where(e.type.in_(types))
    soon = e.timestamp.between(s.at, s.at + ANSWER_S)
    of_user = chosen.where(e.user == s.user, s.user != "", soon)
    of_session = chosen.where(e.session == s.session, s.session != "", soon, (e.user == "") | (s.user == ""))
    named_it = chosen.where(e.ranking == s.id)
    if is_own:
        named_it = named_it.where((e.user == s.user) | ((e.user == "") & (e.session == s.session) & (s.session != "")))
    for wanted, is_named in ((named_it, True), (of_user, False), (of_session, False)):
        for ranking, item, named, kind, value in connection.execute(wanted) if ids else ():
            if (is_named or not named) and (counts is None or counts(kind, value)):
                found[ranking].add(item)
    return found
