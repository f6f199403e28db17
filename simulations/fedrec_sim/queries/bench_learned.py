"""`fedrec bench requests-learned`: what requests of partners' users add to the public reader, without and with privacy.

All requests are made. The users' words are none that the public reader was taught, nor those of the published test.
"""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedrec.data.datasets import Say
from fedrec.data.splits import EvaluationSplit
from fedrec.errors import ModelError
from fedrec.evaluation.metrics import ndcg, target_ranks
from fedrec.model.shared import encoder_folder
from fedrec.query.query_model import PUBLIC_BATCH, QUERY_WEIGHT, QueryModel
from fedrec.query.request_rows import RequestRows
from fedrec.query.rule import CatalogFacts
from fedrec.tasks.examples import TaskExamples
from fedrec_sim.queries.learn_run import dealt, public_taking
from fedrec_sim.queries.learning import DIRECTIONS, PublicGround, learn, rounds_of
from fedrec_sim.queries.published import PublishedQuery, published_queries
from fedrec_sim.queries.searches import bm25_scores, encoder_scores, reader_scores
from fedrec_sim.queries.user_requests import Group, UserRequest, user_requests
from fedrec_sim.run import Json, commit_of_checkout, read_run
from fedrec_sim.serving import LoadedAdapter, load_adapter
from fedrec_sim.tasks.rounds import TaskPromise
from fedrec_sim.world import World

SEEDS = (1, 2, 3)
EPSILONS: dict[str, float | None] = {"plain": None, "epsilon 8": 8.0}
_K = 10
Scores = NDArray[np.floating]


@dataclass(frozen=True)
class _Bench:
    world: World = field(repr=False)
    model: QueryModel
    adapter: LoadedAdapter = field(repr=False)
    ground: PublicGround
    facts: CatalogFacts
    published: Sequence[PublishedQuery]
    splits: Sequence[EvaluationSplit] = field(repr=False)

    def requests(self, group: Group, seed: int) -> list[UserRequest]:
        return user_requests(self.world.catalog, self.splits, group, seed)

    def learnt(self, examples: TaskExamples, seed: int, epsilon: float | None) -> tuple[QueryModel, Json]:
        shares = dealt(examples, self.world.config.partners, seed)
        promise = None if epsilon is None else TaskPromise(epsilon, mode="secagg")
        found = learn(self.ground, shares, run=f"requests-{epsilon}-{seed}", seed=seed, promise=promise)
        return self.model.corrected_by(found.correction), found.statement

    def asked(self, requests: Sequence[UserRequest], worded: Scores) -> Json:
        """Figures of users' requests from their scores `[requests, items]`."""
        of_users = [request.place for request in requests]
        right = [self.facts.satisfied(request.rule) for request in requests]
        return {
            "precision_at_10": _of_users(_precisions(worded, right), of_users),
            "request_ndcg_at_10": _of_users(_gains(worded, requests), of_users),
        }

    def with_history(self, requests: Sequence[UserRequest], worded: Scores) -> float:
        """NDCG@10 with the adapter's score of the history beside; of a reader, whose scores are nats as those are."""
        base = self.adapter.recommender.score([request.history for request in requests]).astype(np.float64)
        return _of_users(_gains(base + QUERY_WEIGHT * worded, requests), [request.place for request in requests])

    def on_published(self, worded: Scores) -> Json:
        found = _precisions(worded, [self.facts.satisfied(query.rule) for query in self.published])
        words = np.array([query.words for query in self.published])
        return {"all": float(found.mean()), **{name: float(found[words == name].mean()) for name in ("seen", "new")}}

    def of_model(self, model: QueryModel, requests: Sequence[UserRequest]) -> Json:
        catalog = self.world.catalog
        worded = reader_scores(model, catalog, [request.text for request in requests])
        published = reader_scores(model, catalog, [query.text for query in self.published])
        personal = {"personal_ndcg_at_10": self.with_history(requests, worded)}
        return {**self.asked(requests, worded), **personal, "published": self.on_published(published)}


def bench_learned(world: World, run: Path, model: QueryModel, seeds: Sequence[int], say: Say) -> Iterator[Json]:
    """All figures after each seed, means and standard deviations; a seed draws users, requests, partners and noise.

    Raises: RunError: the run has no adapter.
    """
    held, commit = read_run(run), commit_of_checkout()  # before figures are written, which may be into the checkout
    encoder = encoder_folder(held.config.model)
    if encoder is None:
        raise ModelError("the run has no sentence encoder to compare with", "set model.sentence_encoder")
    bench = _Bench(
        world,
        model,
        load_adapter(held, world),
        PublicGround.of(model, world.catalog, public_taking(world, say)),
        CatalogFacts.of(world.catalog),
        published_queries(world.catalog),
        # The adapter's own split, whatever the seed: under another one ties in time fall otherwise, and it has been
        # trained on items that are asked for.
        world.corpus(held.config.seeds[0]).splits,
    )
    tests = {seed: bench.requests("test", seed) for seed in seeds}
    searched = encoder_scores(world.catalog, encoder, [request.text for of in tests.values() for request in of])
    by_encoder = dict(zip(seeds, np.split(searched, np.cumsum([len(of) for of in tests.values()])[:-1]), strict=True))
    found: dict[str, list[Json]] = {}
    for done, (seed, test) in enumerate(tests.items(), start=1):
        say(f"seed {seed}: reading requests")
        examples = rows_of(bench.requests("learn", seed)).examples(model, bench.ground.inputs, batch=PUBLIC_BATCH)
        by_words = bm25_scores(world.catalog, [request.text for request in test])
        each = {"public": bench.of_model(model, test), "encoder": bench.asked(test, by_encoder[seed])}
        each["bm25"] = bench.asked(test, by_words)
        statement: Json = {}
        for name, epsilon in EPSILONS.items():
            say(f"seed {seed}: learning, {name}")
            learnt, statement = bench.learnt(examples, seed, epsilon)
            each[name] = bench.of_model(learnt, test)
        for name, figures in each.items():
            found.setdefault(name, []).append(figures)
        yield {
            "protocol": "made requests; B: the test item, of users whose requests taught nobody, in other sentences",
            "seeds": list(seeds)[:done],
            "partners": world.config.partners,
            "of_the_last_seed": {"users": examples.n_users, "requests": examples.n_rows, "asked": len(test)},
            "rows": {name: over_seeds(of) for name, of in found.items()},
            "privacy": {key: statement[key] for key in ("mode", "epsilon", "delta", "other_partner_epsilon")},
            "settings": {name: repr(rounds_of(epsilon)) for name, epsilon in EPSILONS.items()},
            "directions": DIRECTIONS,
            "reader": model.reader_hash[:16],
            "run": run.name,
            "commit": commit,
        }


def rows_of(requests: Sequence[UserRequest]) -> RequestRows:
    """As a partner's file would have them."""
    items = np.array([request.item for request in requests], np.int32)
    return RequestRows(tuple(str(r.place) for r in requests), tuple(r.text for r in requests), items)


def over_seeds(each: Sequence[Json]) -> Json:
    """Mean, standard deviation and every seed's value of each figure."""
    found = Json()
    for name, value in each[0].items():
        if isinstance(value, dict):
            found[name] = over_seeds([one[name] for one in each])
            continue
        values = [round(one[name], 4) for one in each]
        found[name] = {
            "mean": round(statistics.fmean(values), 4),
            "std": round(statistics.stdev(values), 4) if len(values) > 1 else 0.0,
        }
        found[name]["seeds"] = values
    return found


def _precisions(scores: Scores, right: Sequence[NDArray[np.bool_]]) -> NDArray[np.float64]:
    """Share of the ten best that satisfy the rule; of fewer answers, of as many as there are. Ties at random."""
    ties = np.random.default_rng(1).permutation(scores.shape[1])
    found = [
        answers[np.lexsort((ties, -row))[:_K]].sum() / min(_K, answers.sum())
        for row, answers in zip(scores, right, strict=True)
    ]
    return np.array(found)


def _gains(scores: Scores, requests: Sequence[UserRequest]) -> NDArray[np.float64]:
    """NDCG@10 of each request's item among all that its user had not."""
    ties = np.random.default_rng(1).permutation(scores.shape[1]).astype(np.float64)
    found = []
    for row, request in zip(scores, requests, strict=True):
        open_row = np.array(row, np.float64)
        open_row[request.history] = -np.inf
        open_row[request.item] = max(open_row[request.item], -1e9)
        found.append(float(ndcg(target_ranks(open_row, np.array([request.item]), ties)[None], _K)[0]))
    return np.array(found)


def _of_users(values: NDArray[np.float64], users: Sequence[int]) -> float:
    """The mean over users of their own means."""
    _, places = np.unique(users, return_inverse=True)
    return float((np.bincount(places, values) / np.bincount(places)).mean())
