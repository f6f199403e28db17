"""A request and a history together: where the item that somebody had next comes, among those that they asked for."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fedrec.data.catalog import ItemCatalog
from fedrec.data.splits import EvaluationSplit
from fedrec.evaluation.metrics import ndcg, target_ranks
from fedrec.query.query_model import QueryModel
from fedrec.recommend.recommender import Recommender
from fedrec_sim.queries.published import SentenceMaker

_WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
_KINDS = ("one", "decade", "one_not", "two", "since", "until")
Scores = NDArray[np.floating]
Which = Literal["validation", "test"]


@dataclass(frozen=True)
class Asked:
    """What somebody asked for and then had. Private, though the request is made."""

    text: str = field(repr=False)
    target: int = field(repr=False)
    history: NDArray[np.int32] = field(repr=False)


def personal_figures(
    model: QueryModel,
    recommender: Recommender,
    catalog: ItemCatalog,
    splits: Sequence[EvaluationSplit],
    popularity: Scores,
    seed: int,
) -> dict[str, object]:
    """NDCG@10 of the held-out item by request, by history, and by both; the weight of the request from validation.

    The request is made: a sentence of the published test's about facts that the held-out item has, so it says of it
    what its owner might have said. Protocol B: all unseen items are ranked.
    """
    found: dict[str, dict[str, float]] = {}
    weights = {"popular": 1.0, "personal": 1.0}
    for which in get_args(Which):
        asked = asked_of(catalog, splits, which, seed)
        base = {
            "popular": np.tile(np.log(popularity + 1.0), (len(asked), 1)),
            "personal": recommender.score([one.history for one in asked]).astype(np.float64),
        }
        items = model.space.of_catalog(catalog)
        worded = np.stack([model.scores(model.understand(one.text), items) for one in asked])
        if which == "validation":
            weights = {name: best_weight(scores, worded, asked, seed) for name, scores in base.items()}
            continue
        rows = {"request": worded, "popular": base["popular"], "history": base["personal"]}
        rows |= {f"request_{name}": base[name] + weight * worded for name, weight in weights.items()}
        found = {name: ndcg_of(scores, asked, seed) for name, scores in rows.items()}
    return {"users": len(asked), "weights": weights, "ndcg_at_10": found}


def asked_of(catalog: ItemCatalog, splits: Sequence[EvaluationSplit], which: Which, seed: int) -> list[Asked]:
    maker, rng = SentenceMaker.published(catalog), np.random.default_rng([seed, which == "test"])
    asked = []
    for split in splits:
        targets = split.validation if which == "validation" else split.test
        if not len(targets):
            continue
        target = int(targets[0])
        text = maker.about(target, _KINDS, rng)
        if text is not None:
            asked.append(Asked(text, target, split.history(which)))
    return asked


def best_weight(base: Scores, worded: Scores, asked: Sequence[Asked], seed: int) -> float:
    found = {weight: ndcg_of(base + weight * worded, asked, seed)["mean"] for weight in _WEIGHTS}
    return max(found, key=lambda weight: found[weight])


def ndcg_of(scores: Scores, asked: Sequence[Asked], seed: int) -> dict[str, float]:
    ties = np.random.default_rng(seed).permutation(scores.shape[1]).astype(np.float64)
    values: list[float] = []
    for row, one in zip(scores, asked, strict=True):
        open_row = np.array(row, np.float64)
        open_row[one.history] = -np.inf
        open_row[one.target] = max(open_row[one.target], -1e9)
        values.append(float(ndcg(target_ranks(open_row, np.array([one.target]), ties)[None], 10)[0]))
    per_user = np.array(values)
    return {
        "mean": round(float(per_user.mean()), 4),
        "standard_error": round(float(per_user.std() / len(per_user) ** 0.5), 4),
    }
