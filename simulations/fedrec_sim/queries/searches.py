"""How searches fare on the published requests: the trained reader, BM25, and plain sentence-encoder search."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedrec.data.catalog import ItemCatalog
from fedrec.evaluation.bm25 import Bm25
from fedrec.model.features import TextReader, pooled_states
from fedrec.query.query_model import QueryModel
from fedrec.query.rule import CatalogFacts
from fedrec_sim.queries.published import PublishedQuery

Scores = NDArray[np.floating]
_K, _RESAMPLES = 10, 2000


def reader_scores(model: QueryModel, catalog: ItemCatalog, texts: Sequence[str]) -> Scores:
    """`[requests, items]` by the trained reader."""
    items = model.space.of_catalog(catalog)
    return np.stack([model.scores(model.understand(text), items) for text in texts])


def bm25_scores(catalog: ItemCatalog, texts: Sequence[str]) -> Scores:
    """`[requests, items]` by words shared with title, categories and year."""
    documents = [f"{text} {' '.join(of)}" for text, of in zip(catalog.texts, catalog.categories, strict=True)]
    index = Bm25(documents)
    return np.stack([index.scores(text) for text in texts])


def encoder_scores(catalog: ItemCatalog, encoder: Path, texts: Sequence[str]) -> Scores:
    """`[requests, items]` by the cosine of sentence vectors."""
    reader = TextReader.load(encoder, 10_000)
    rows, asked = (pooled_states(reader, some)[1] for some in (catalog.texts, texts))
    lengths = [np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (rows, asked)]
    return (asked / lengths[1]) @ (rows / lengths[0]).T  # type: ignore[no-any-return]


def precision_of(scores: Scores, queries: Sequence[PublishedQuery], facts: CatalogFacts, seed: int) -> Scores:
    """Share of the ten best that satisfy the rule, for each request; equal scores in a random order."""
    ties = np.random.default_rng(seed).permutation(scores.shape[1])
    found = []
    for row, query in zip(scores, queries, strict=True):
        best = np.lexsort((ties, -row))[:_K]
        found.append(facts.satisfied(query.rule)[best].mean())
    return np.array(found)


def table(precisions: Mapping[str, Scores], queries: Sequence[PublishedQuery]) -> dict[str, dict[str, object]]:
    """Mean precision of each search with a 95% interval over requests, and by kind of sentence and by words."""
    return {
        name: {
            "precision_at_10": round(float(values.mean()), 4),
            "interval": _interval(values),
            "by_words": _means(values, [query.words for query in queries]),
            "by_kind": _means(values, [query.kind for query in queries]),
        }
        for name, values in precisions.items()
    }


def _means(values: Scores, groups: Sequence[str]) -> dict[str, float]:
    of = np.array(groups)
    return {name: round(float(values[of == name].mean()), 4) for name in sorted(set(groups))}


def _interval(values: Scores) -> list[float]:
    """By bootstrap over requests."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(len(values), size=(_RESAMPLES, len(values)))].mean(1)
    return [round(float(bound), 4) for bound in np.quantile(means, (0.025, 0.975))]
