"""The support example: words, meaning, and meaning with a federated adapter, on the shipped open set."""

import hashlib
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedrec.aggregation.server_optimizer import ServerOptimizer
from fedrec.data.sources import cache_dir
from fedrec.model.sentences import SentenceEncoder, encode_kept
from fedrec.support.matching import Matching
from fedrec.support.turning import MatchTask, directions, turn_of, untrained
from fedrec.tasks.examples import TaskExamples
from fedrec.tasks.terms import TaskTerms
from fedrec.tasks.training import PlainWork
from fedrec_sim.support.desks import OpenSet
from fedrec_sim.support.measuring import best_and_ranks, figures, recall_in
from fedrec_sim.tasks.federation import TrainedHead, federate_head
from fedrec_sim.tasks.rounds import TaskPromise, TaskRounds

Say = Callable[[str], None]
WEIGHTS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
DIRECTIONS = 16
_ROUNDS = 20
_NOT_SAID = -2.0  # a threshold that refuses nothing, where only ranks matter


@dataclass(frozen=True)
class Promise:
    """What the adapter's training promises, and over which seeds it is repeated."""

    epsilon: float = 8.0
    delta: float = 1e-3
    seeds: tuple[int, ...] = (1, 2, 3)


def run_support(encoder: SentenceEncoder, promise: Promise, say: Say) -> dict[str, Any]:
    """All figures of the example. Under a minute of training; reading the texts takes longer."""
    began = time.monotonic()
    say("reading answers and requests")
    open_set = OpenSet.read(lambda texts: encode_kept(encoder, texts, cache_dir()))
    weight = choose_weight(open_set)
    plain = Matching(weight, _NOT_SAID)
    rows: dict[str, Any] = {"bm25": _row(open_set, open_set.by_words())}
    rows["question_only"] = _row(open_set, open_set.by_meaning(Matching(1.0, _NOT_SAID)))
    rows["encoder"] = _row(open_set, open_set.by_meaning(plain))
    pooled = {
        name: figures(open_set, scores, pooled=True) for name, scores in (("encoder", open_set.by_meaning(plain)),)
    }
    trained: dict[str, list[TrainedHead]] = {}
    for name, private in (("adapter", None), ("adapter_private", promise)):
        trained[name] = []
        for seed in promise.seeds:
            say(f"training {name}, seed {seed}")
            trained[name].append(train_turn(open_set, private, seed))
        rows[name] = _over_seeds(open_set, weight, trained[name])
    return {
        "question_weight": weight,
        "desks": {desk: sum(pair.partner == desk for pair in open_set.pairs) for desk in open_set.desks},
        "requests": _counts(open_set),
        "rows": rows,
        "misses": misses(open_set, weight),
        "all_desks_pooled": pooled,
        "other_languages": {
            language: recall_in(open_set, open_set.by_meaning(plain), language) for language in ("de", "zh")
        },
        "privacy": trained["adapter_private"][0].statement,
        "seeds": list(promise.seeds),
        "seconds": round(time.monotonic() - began, 1),
    }


def choose_weight(open_set: OpenSet) -> float:
    """On validation: the best mean of recall@1 and AUROC; of equals the first."""

    def quality(weight: float) -> float:
        found = figures(open_set, open_set.by_meaning(Matching(weight, _NOT_SAID)), split="validation")
        return float(found["recall@1"][0] + found["auroc"][0])

    return max(WEIGHTS, key=quality)


def train_turn(open_set: OpenSet, promise: Promise | None, seed: int) -> TrainedHead:
    """An adapter trained by the desks on what they have: their own questions, each with its answer. No written
    request is in it. A pair plays one past request; it is one unit."""
    basis = directions(open_set.answers, DIRECTIONS)
    task = MatchTask((open_set.answers @ basis.T).astype(np.float32))
    shape, initial = untrained(DIRECTIONS)
    recipe = hashlib.sha256(task.answers.tobytes() + basis.tobytes()).hexdigest()
    terms = TaskTerms(task, shape, initial, "sentences/minilm-l6-v2", recipe, user_is="one request with its answer")
    inputs = (open_set.questions @ basis.T).astype(np.float32)
    places = np.arange(len(open_set.pairs))
    owners = np.array([pair.partner for pair in open_set.pairs])
    mine = [places[owners == desk] for desk in open_set.desks]
    shares = [TaskExamples.of(inputs[some], some, some) for some in mine]
    work = PlainWork(learning_rate=0.01, most_rows=1, batch_users=32)
    rounds = TaskRounds(_ROUNDS, ServerOptimizer("sgd", 1.0 if promise is None else 0.3, 0.0), work)
    asked = None if promise is None else TaskPromise(promise.epsilon, promise.delta, "secagg")
    return federate_head(terms, shares, rounds, run=f"support-{seed}", seed=seed, promise=asked)


def _over_seeds(open_set: OpenSet, weight: float, trained: list[TrainedHead]) -> dict[str, Any]:
    """Figures of the first seed, and the spread of recall@1 and refusal over all."""
    basis = directions(open_set.answers, DIRECTIONS)
    rows = []
    for head in trained:
        turn, shift = turn_of(head.state, basis)
        rows.append(_row(open_set, open_set.by_meaning(Matching(weight, _NOT_SAID, turn, shift))))
    spread = {}
    for figure in ("recall@1", "recall@5", "auroc", "refusal_balanced"):
        values = [row[figure][0] for row in rows]
        spread[figure] = {"mean": round(statistics.mean(values), 4), "std": round(statistics.pstdev(values), 4)}
    return {**rows[0], "over_seeds": spread}


def _row(open_set: OpenSet, scores: Any) -> dict[str, Any]:
    validation = figures(open_set, scores, split="validation")
    return {
        **figures(open_set, scores),
        "validation": {name: validation[name][0] for name in ("recall@1", "auroc", "refusal_balanced")},
    }


def _counts(open_set: OpenSet) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for one in open_set.requests:
        name = one.kind if one.language == "en" else f"{one.kind}, {one.language}"
        counts.setdefault(one.split, {}).setdefault(name, 0)
        counts[one.split][name] += 1
    return counts


def misses(open_set: OpenSet, weight: float, n: int = 12) -> list[dict[str, Any]]:
    """Test requests whose right answer is not the first one: requests and answers are shipped, nothing is private."""
    scores = open_set.by_meaning(Matching(weight, _NOT_SAID))
    _, ranks = best_and_ranks(open_set, scores)
    masked = np.where(open_set.same_desk, scores, -np.inf)
    wrong = [at for at in open_set.which("test") if ranks[at] > 1][:n]
    return [
        {
            "desk": open_set.requests[at].partner,
            "request": open_set.requests[at].request,
            "found": open_set.pairs[int(masked[at].argmax())].question,
            "right": open_set.pairs[int(open_set.targets[at])].question,
            "rank": int(ranks[at]),
        }
        for at in wrong
    ]
