"""BM25, the floor that matching by meaning must beat: words that a query shares with a document, rare ones first."""

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_WORD = re.compile(r"\w+")


def words_of(text: str) -> list[str]:
    """Words in small letters.

    >>> words_of("Can't log in?")
    ['can', 't', 'log', 'in']
    """
    return _WORD.findall(text.lower())


class Bm25:
    """An index of documents.

    Args:
        documents: at least one.
        k1: how soon a repeated word says no more.
        b: how far long documents are held back, 0 to 1.
    Reference: Robertson and Zaragoza 2009, doi:10.1561/1500000019; idf as in Lucene, so that none is negative.

    >>> Bm25(["how to pay", "how to return"]).scores("return it").round(2).tolist()
    [0.0, 0.32]
    """

    def __init__(self, documents: Sequence[str], k1: float = 1.2, b: float = 0.75) -> None:
        counts = [Counter(words_of(document)) for document in documents]
        lengths = np.array([sum(count.values()) for count in counts], np.float64)
        damping = k1 * (1 - b + b * lengths / max(float(lengths.mean()), 1.0))
        self._n = len(documents)
        self._postings: dict[str, list[tuple[int, float]]] = {}
        for place, count in enumerate(counts):
            for word, times in count.items():
                self._postings.setdefault(word, []).append((place, times / (times + damping[place])))

    def scores(self, query: str) -> NDArray[np.float64]:
        """`[documents]`, 0 where no word is shared."""
        scores = np.zeros(self._n)
        for word, times in Counter(words_of(query)).items():
            postings = self._postings.get(word, [])
            idf = math.log(1 + (self._n - len(postings) + 0.5) / (len(postings) + 0.5))
            for place, share in postings:
                scores[place] += times * idf * share
        return scores
