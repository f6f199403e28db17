"""A tenant's lists: who is asked for, which items may be shown, who fills the list, and in which order."""

import asyncio
import hashlib
import math
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedrec.active.questions import BEST, Answers, next_questions
from fedrec.query.query_model import QUERY_WEIGHT, QueryModel
from fedrec.recommend.arms import arm_of
from fedrec.recommend.arrangement import Audience, Placed, arrange
from fedrec.recommend.compiled_rules import CompiledRules
from fedrec.recommend.cursor import EMPTY, Cursor, read_cursor, write_cursor
from fedrec.recommend.floors import FairShares
from fedrec.recommend.index import Codes
from fedrec.recommend.live_model import Floats, LiveModel
from fedrec.recommend.shelf import Item
from fedrec_client.serving.errors import NotFoundError
from fedrec_client.serving.explaining import Explaining
from fedrec_client.serving.exposure import Exposure, Score
from fedrec_client.serving.people import Meaning, Person
from fedrec_client.serving.policy import Policy
from fedrec_client.serving.ranking import Ranking
from fedrec_client.serving.records import Answer, Query, Ranked, Shown, Source
from fedrec_client.serving.sources import Sources
from fedrec_client.serving.tenant import SESSION, Tenant
from fedrec_client.serving.tracing import span
from fedrec_client.serving.wording import Worded, Wording

Mask = NDArray[np.bool_]


@dataclass(frozen=True, repr=False)
class _Request:
    """A query, and all that was looked up for it; it holds while the answer is made, whatever changes meanwhile.

    Attributes:
        found: who asks, as the tenant knows them; `person`: the same with the events of the query.
        near: codes that the graph of items found, if it was asked.
        worded: of a request in words.
    """

    query: Query
    found: Person
    person: Person
    model: LiveModel
    vector: Floats
    arm: str
    rules: CompiledRules
    now: float
    began: float
    cursor: Cursor = field(default=EMPTY)
    near: Codes | None = None
    worded: Worded | None = None


class Lists:
    """Answers queries of one tenant. Called on the event loop.

    Args:
        cursor_key: 32 secret bytes; cursors outlive a restart with the same ones.
        queries: reads requests in words; None: they are refused.
    """

    def __init__(self, tenant: Tenant, policy: Policy, cursor_key: bytes, queries: QueryModel | None = None) -> None:
        self._tenant, self._policy, self._cursor_key = tenant, policy, cursor_key
        self.wording = Wording(tenant, queries)
        self.sources = Sources(tenant)
        self.ranking = Ranking(tenant)
        self.explaining = Explaining(tenant)
        self.exposure = Exposure(tenant.settings.fairness, tenant.shelf, self.ranking.popularity)

    async def recommend(self, query: Query) -> Answer:
        """The best items for somebody, from the first of the sources that have any; the others fill up.

        Of a request in words the items that answer it, by how well they do and by how well they suit.

        Raises: DataError: the cursor is none, or somebody else's. ConfigError: the filter is faulty, or nobody taught
            a reader of requests.
        """
        wanted = query.n + query.offset
        request = await self._request(query, 0 if query.words else wanted)
        blocked = self._blocked(request) | ~self._asked_for(request)
        with span("arrange"):
            ranked = self._chain(request, blocked, wanted)[query.offset :]
        if query.is_recorded:
            self.exposure.note([one.item.id for one in ranked])
        return self._answer(request, ranked)

    async def rank(self, query: Query) -> Answer:
        """The given candidates, best first; those that nobody knows come last, in their order.

        Those that are held back until a person decides are left out: whoever asks would show them.

        Raises: as `recommend`.
        """
        assert query.candidates is not None
        request = await self._request(query)
        asked_for = [item for item in dict.fromkeys(query.candidates) if not self._tenant.shelf.is_held(item)]
        known = [code for item in asked_for if (code := self._tenant.shelf.find(item)) is not None]
        codes = np.array(list(dict.fromkeys(known)), np.int64)
        scores = request.model.score_rows[codes] @ request.vector
        placed = self._arrange(request, codes, scores, len(codes), request.rules.for_given(), None)
        source: Source = "model" if request.person.codes else "popular"
        ranked = self._listed(request, placed, _by_code(codes, scores), source)
        there = set(codes.tolist())
        lowest = min((one.score for one in ranked), default=0.0)
        missing = [item for item in asked_for if self._tenant.shelf.find(item) not in there]
        ranked += [Ranked(Item(item), lowest - 1.0 - place, "given") for place, item in enumerate(missing)]
        return self._answer(request, ranked)

    async def similar(self, item: str, query: Query) -> Answer:
        """Items like one. Where `query` names a user, without what they had. Raises NotFoundError: no such item."""
        code = self._tenant.shelf.find(item)
        if code is None or item not in self._tenant.shelf or self._tenant.shelf.is_held(item):
            raise NotFoundError("item")
        request = await self._request(query)
        blocked = self._blocked(request) | ~self._asked_for(request)
        blocked[code] = True
        scores = self.sources.alike(request.model, [code])
        return self._answer(request, self._plain(request, scores, blocked, query, "similar"))

    async def questions(self, query: Query) -> list[Item]:
        """The `query.n` items to ask somebody about, the most telling first; none that they had, or may not be shown.

        Privacy: reads the adapter and this person's own events; nobody else's, and nothing leaves.
        """
        request = await self._request(query)
        person, window = request.person, None
        if person.codes and person.read is not None:
            window = person.user_window(person.read[1])
        answers = Answers(request.vector, window, np.array(sorted(person.seen), np.int64))
        open_items = request.rules.open & ~self._blocked(request)
        rng = np.random.default_rng(0)  # the way that is served draws nothing
        codes = await asyncio.to_thread(next_questions, BEST, request.model, answers, open_items, query.n, rng)
        return [self._tenant.shelf.item(int(code)) for code in codes]

    async def from_source(self, source: Source, query: Query) -> Answer:
        """What one of the sources has, without the others; nothing, if it does not speak for this user."""
        request = await self._request(query)
        blocked = self._blocked(request) | ~self._asked_for(request)
        if source in ("model", "session"):
            is_theirs = source == _speaker(query, request.person)
            scores = request.model.scores(request.vector[None])[0] if is_theirs else None
        else:
            scores = self.sources.scores(source, request.model, request.person)
        if scores is None:
            return self._answer(request, [])
        return self._answer(request, self._plain(request, scores, blocked, query, source))

    async def neighbours(self, user: str, n: int) -> list[tuple[str, float]]:
        """People in memory whose vectors are most like somebody's, with the cosine; best first. Private."""
        person = await self._tenant.person(user)
        if not person.codes:
            return []
        model, vector = await self._tenant.engine.user_vector(person)
        others = [p for p in self._tenant.people.everybody() if p.key[1] != user and not p.key[1].startswith(SESSION)]
        slack = self._tenant.settings.model.window_slack
        ready = [p for p in others if p.codes and p.is_read(model, slack) and p.read is not None]
        if not ready:
            return []
        rows = np.stack([model.user_vector(p.user_window(p.read[1])) for p in ready if p.read])[:, :-1]
        own = vector[:-1]
        lengths = np.maximum(np.linalg.norm(rows, axis=1) * np.linalg.norm(own), 1e-9)
        cosines = rows @ own / lengths
        order = np.argsort(-cosines, kind="stable")[:n]
        return [(ready[place].key[1], float(cosines[place])) for place in order]

    async def _request(self, query: Query, wanted: int = 0) -> _Request:
        """All that has to be waited for; after it an answer is made at one go, so that no codes or lengths change.

        Args:
            wanted: items of the model's list; 0 if there will be none.
        """
        began, tenant = time.perf_counter(), self._tenant
        now = time.time()
        if query.filter:  # a new expression takes its time over all items; then it is known
            await asyncio.to_thread(self._policy.filters.mask, query.filter, now)
        cursor = read_cursor(query.cursor, _owner(query), now, self._cursor_key) if query.cursor else EMPTY
        key = query.user or (SESSION + query.session_id if query.session_id else "")
        with span("person"):
            person = await tenant.person(key) if key else Person((tenant.name, ""))
        found = person
        if query.session:
            person = person.with_session(self._session(query))
        arm = query.arm or arm_of(key or uuid.uuid4().hex, self._shares, "fedrec")
        understood = await self.wording.read(query.words) if query.words else None
        model, vector, near = await self._vector(query, person, arm, wanted)
        rules = self._policy.table.in_force(now, person.labels, arm)
        worded = self.wording.worded(understood) if understood else None
        return _Request(query, found, person, model, vector, arm, rules, now, began, cursor, near, worded)

    async def _vector(
        self, query: Query, person: Person, arm: str, wanted: int
    ) -> tuple[LiveModel, Floats, Codes | None]:
        """By the model that serves when this returns: items may join another one while a graph is asked."""
        engine, is_kept = self._tenant.engine, bool(query.user or query.session_id) and not query.session
        while True:
            with span("read"):
                model, vector = await engine.user_vector(person, is_kept=is_kept)
            if not wanted or _speaker(query, person) not in self._tenant.settings.fallback.chain:
                return model, vector, None
            with span("search"):
                near = await self.ranking.near(model, vector, arm, wanted)
            if model is engine.model:
                return model, vector, near

    @property
    def _shares(self) -> list[tuple[str, float]]:
        return [(arm.name, arm.share) for arm in self._tenant.settings.arms]

    def _session(self, query: Query) -> list[tuple[int, Meaning, float]]:
        feedback = self._tenant.feedback
        return [
            (code, feedback.meaning(event.type, event.value), feedback.weight(event.type))
            for event in query.session
            if (code := self._tenant.shelf.find(event.item)) is not None
        ]

    def _blocked(self, request: _Request) -> Mask:
        """What this person is not to be shown again: seen, disliked, blocked by them, on an earlier page, excluded."""
        person, shelf = request.person, self._tenant.shelf
        blocked = self._policy.table.blocked(
            [*request.query.exclude, *person.blocked_items], sorted(person.blocked_categories)
        )
        if not self._tenant.settings.feedback.repeats and person.seen:
            blocked[list(person.seen)] = True
        if person.negative:
            blocked[person.negative] = True
        if len(request.cursor.shown):
            blocked |= request.cursor.is_shown(shelf)
        return blocked

    def _asked_for(self, request: _Request) -> Mask:
        """What the query's categories and filter let through."""
        mask = np.ones(len(self._tenant.shelf), bool)
        for category in request.query.categories:
            mask &= self._tenant.shelf.in_category(category)
        if request.query.filter:
            mask &= self._policy.filters.mask(request.query.filter, request.now)
        return mask

    def _chain(self, request: _Request, blocked: Mask, wanted: int) -> list[Ranked]:
        """Sources in the order of `[fallback]`, until the list is full; the model alone for a request in words."""
        ranked: list[Ranked] = []
        blocked, before, fair = blocked.copy(), len(request.cursor.shown), self.exposure.fair()
        chain: Sequence[Source] = self._tenant.settings.fallback.chain
        if request.worded is not None:
            chain = [_speaker(request.query, request.person) or "popular"]
        for source in chain:
            n = wanted - len(ranked)
            found = self._candidates(source, request, blocked, n, fair) if n > 0 else None
            if found is None:
                continue
            codes, scores = found
            placed = self._arrange(request, codes, scores, n, request.rules, blocked, before + len(ranked), fair)
            of_model = _by_code(codes, scores) if source in ("model", "session") else {}
            ranked += self._listed(request, placed, of_model, source)
            blocked[[one.code for one in placed]] = True
        return ranked

    def _candidates(
        self, source: Source, request: _Request, blocked: Mask, n: int, fair: FairShares | None
    ) -> tuple[Codes, NDArray[np.floating]] | None:
        """Codes of one source with their scores; None if it has nothing to say."""
        if request.worded is not None:  # of somebody without a history, the model tells popularity
            scores = (
                request.model.scores(request.vector[None])[0]
                + QUERY_WEIGHT * request.worded.scores[: request.model.n_items]
            )
            codes = self.ranking.candidates(request, scores, blocked, n)
            return codes, scores[codes]
        if source in ("model", "session"):
            if source != _speaker(request.query, request.person):
                return None
            codes, scores = self.ranking.of_model(request, request.model, request.vector, blocked, n)
            if fair is None:
                return codes, scores
            of: Score = lambda some: request.model.score_rows[some] @ request.vector  # noqa: E731
        else:
            every = self.sources.scores(source, request.model, request.person)
            if every is None:
                return None
            codes, of = self.ranking.candidates(request, every, blocked, n), every.__getitem__
        if fair is not None:
            codes = self.exposure.widen(codes, fair, request.rules.open & ~blocked, of, n)
        return codes, of(codes)

    def _plain(
        self, request: _Request, scores: NDArray[np.floating], blocked: Mask, query: Query, source: Source
    ) -> list[Ranked]:
        """By these scores alone; filters hold, but nothing is pinned or mixed in."""
        wanted = query.n + query.offset
        codes = self.ranking.best(scores, request.rules.open & ~blocked, wanted)[query.offset :]
        placed = [Placed(int(code), float(scores[code])) for code in codes]
        return self._listed(request, placed, {}, source)

    def _arrange(
        self,
        request: _Request,
        codes: Codes,
        scores: NDArray[np.floating],
        n: int,
        rules: CompiledRules,
        blocked: Mask | None,
        offset: int = 0,
        fair: FairShares | None = None,
    ) -> list[Placed]:
        vectors = self.sources.vectors(request.model)
        unwanted = vectors[request.person.negative[-20:]] if request.person.negative else None
        return arrange(
            self._tenant.shelf,
            codes.astype(np.int32),
            scores.astype(np.float32),
            lambda some: vectors[some],
            n,
            self.ranking.settings(request.arm),
            rules,
            self.ranking.popularity(),
            Audience(np.array(request.person.codes, np.int32), blocked, unwanted),
            request.now,
            offset,
            fair,
        )

    def _listed(
        self, request: _Request, placed: Sequence[Placed], scores: Mapping[int, float], source: Source
    ) -> list[Ranked]:
        """With features, where somebody will want them. `scores`: the model's, by code."""
        shelf = self._tenant.shelf
        features: list[dict[str, float | None]] = [{} for _ in placed]
        if request.query.explain or self.ranking.learns(request.arm):
            codes = [one.code for one in placed]
            told = [scores.get(code, math.nan) for code in codes]
            features = self.ranking.features(request.arm, codes, told, request.now)
        return [
            Ranked(shelf.item(one.code), one.score, "pinned" if one.is_pinned else source, one.rules, None, known)
            for one, known in zip(placed, features, strict=True)
        ]

    def _answer(self, request: _Request, ranked: Sequence[Ranked]) -> Answer:
        query, tenant = request.query, self._tenant
        if query.explain:
            with span("explain"):
                ranked = self.explaining.with_reasons(request.person, request.model, ranked)
        ids = tuple(one.item.id for one in ranked)
        cursor = ""
        if ids and len(ids) == query.n and query.candidates is None:
            cursor = write_cursor(request.cursor, ids, _owner(query), request.now, self._cursor_key)
        name = query.ranking or uuid.uuid4().hex
        if query.is_recorded and ids:
            sources = tuple(one.source for one in ranked)
            features = _columns(ranked) if self.ranking.learns(request.arm) else {}
            shown = Shown(
                name,
                query.user,
                query.session_id,
                request.now,
                request.arm,
                request.model.version,
                ids,
                sources,
                features,
            )
            tenant.note_shown(shown, request.found)
        took_ms = 1000 * (time.perf_counter() - request.began)
        understood = request.worded.understood if request.worded else None
        return Answer(name, tuple(ranked), request.arm, request.model.version, cursor, took_ms, understood)


def _columns(ranked: Sequence[Ranked]) -> dict[str, tuple[float | None, ...]]:
    """Features by name, in the order of the list."""
    names = next((one.features for one in ranked if one.features), {})
    return {name: tuple(one.features.get(name) for one in ranked) for name in names}


def _by_code(codes: Codes, scores: NDArray[np.floating]) -> dict[int, float]:
    return dict(zip(codes.tolist(), scores.tolist(), strict=True))


def _speaker(query: Query, person: Person) -> Source | None:
    """Whose the model's list would be: that of a user's history, or of a session; of neither without one."""
    if not person.codes:
        return None
    return "session" if query.session or query.session_id else "model"


def _owner(query: Query) -> str:
    """Whose list, and of what: other filters make another list, in which a cursor of this one has no place."""
    events = hashlib.sha256("\0".join(f"{e.type} {e.item}" for e in query.session).encode()).hexdigest()
    return "\0".join([query.user, query.session_id, *query.categories, query.filter, query.arm, query.words, events])
