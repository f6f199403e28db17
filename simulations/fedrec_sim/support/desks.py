"""The shipped open set: answers of six products' own FAQs, and requests that were written for fedrec."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedrec.evaluation.bm25 import Bm25
from fedrec.model.sentences import Vectors
from fedrec.support.answers import PairRow, RequestRow, read_pairs, read_requests
from fedrec.support.matching import Matching

_HERE = Path(__file__).parent
Encode = Callable[[Sequence[str]], Vectors]
Floats = NDArray[np.floating]


def shipped_pairs() -> list[PairRow]:
    """Answers of all desks; LICENCES.md beside the file says whose they are."""
    return read_pairs(_HERE / "faq.jsonl")


def shipped_requests() -> list[RequestRow]:
    """Written for fedrec, not by customers: see docs/support.md."""
    return read_requests(_HERE / "requests.jsonl")


@dataclass(frozen=True)
class OpenSet:
    """Answers and requests with their sentence vectors.

    Attributes:
        questions, answers: `[pairs, width]`; asked: `[requests, width]`.
    """

    pairs: Sequence[PairRow]
    requests: Sequence[RequestRow]
    questions: Vectors = field(repr=False)
    answers: Vectors = field(repr=False)
    asked: Vectors = field(repr=False)

    @classmethod
    def read(cls, encode: Encode) -> "OpenSet":
        """All that is shipped."""
        pairs, requests = shipped_pairs(), shipped_requests()
        both = encode([pair.question for pair in pairs] + [pair.answer for pair in pairs])
        asked = encode([one.request for one in requests])
        return cls(pairs, requests, both[: len(pairs)], both[len(pairs) :], asked)

    @cached_property
    def desks(self) -> list[str]:
        """Whose answers there are."""
        return sorted({pair.partner for pair in self.pairs})

    @cached_property
    def same_desk(self) -> NDArray[np.bool_]:
        """`[requests, pairs]`: whether the request went to the desk that has the answer."""
        asked = np.array([one.partner for one in self.requests])
        return np.asarray(asked[:, None] == np.array([pair.partner for pair in self.pairs])[None])

    @cached_property
    def targets(self) -> NDArray[np.int64]:
        """Place of the right answer of each request; -1 where there is none."""
        places = {pair.id: place for place, pair in enumerate(self.pairs)}
        return np.array([-1 if one.answer is None else places[one.answer] for one in self.requests])

    def which(self, split: str, language: str = "en") -> NDArray[np.int64]:
        """Places of the requests of a split."""
        return np.array(
            [at for at, one in enumerate(self.requests) if (one.split, one.language) == (split, language)], np.int64
        )

    def by_meaning(self, matching: Matching) -> Floats:
        """Scores `[requests, pairs]` over all desks."""
        weight = matching.question_weight
        mixed = weight * self.questions + (1 - weight) * self.answers
        return np.asarray(matching.turned(self.asked) @ mixed.T)

    def by_words(self) -> Floats:
        """BM25 over question and answer; each desk has an index of its own, so that its words are rare or not there."""
        scores = np.zeros((len(self.requests), len(self.pairs)))
        for desk in self.desks:
            mine = [at for at, pair in enumerate(self.pairs) if pair.partner == desk]
            index = Bm25([f"{self.pairs[at].question} {self.pairs[at].answer}" for at in mine])
            for row, one in enumerate(self.requests):
                if one.partner == desk:
                    scores[row, mine] = index.scores(one.request)
        return scores
