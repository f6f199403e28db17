"""Which answer a request means: cosine of sentence vectors with question and answer, and when none of them is meant."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedrec.model.sentences import Vectors, at_length_one

Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Match:
    """An answer that a request may mean.

    Attributes:
        id: of the answer.
        score: -1 to 1.
    """

    id: str
    score: float


@dataclass(frozen=True)
class Matching:
    """How requests are compared with answers. Public: chosen on shipped validation requests, or trained under DP.

    Attributes:
        question_weight: 0 to 1, how much the pair's question counts beside its answer.
        threshold: a best score below it means "I do not know".
        turn, shift: `[width, width]` and `[width]`; turn times the request's vector, and shift, are added to it.
            None: nothing is.
    """

    question_weight: float
    threshold: float
    turn: Vectors | None = field(default=None, repr=False)
    shift: Vectors | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.question_weight <= 1:
            raise ValueError(f"question_weight = {self.question_weight} is not within 0..1")

    def turned(self, requests: Vectors) -> Vectors:
        """The requests' vectors as they are compared, at length 1."""
        if self.turn is None:
            return requests
        return at_length_one(requests + requests @ self.turn.T + (0 if self.shift is None else self.shift))


class AnswerIndex:
    """Answers of one desk, compared all at once.

    Args:
        ids: of the answers, each once.
        questions, answers: sentence vectors `[answers, width]` at length 1.
    """

    def __init__(self, ids: Sequence[str], questions: Vectors, answers: Vectors) -> None:
        if len(set(ids)) != len(ids) or questions.shape != answers.shape or len(questions) != len(ids):
            raise ValueError(f"{len(ids)} ids, each once, for vectors {questions.shape} and {answers.shape}")
        self.ids = tuple(ids)
        self._questions, self._answers = questions, answers

    def __len__(self) -> int:
        return len(self.ids)

    def scores(self, requests: Vectors, matching: Matching) -> Scores:
        """`[requests, answers]`; a weighted mean of two cosines."""
        weight = matching.question_weight
        mixed = weight * self._questions + (1 - weight) * self._answers
        found: Scores = matching.turned(requests) @ mixed.T
        return found

    def best(self, request: Vectors, matching: Matching, k: int) -> list[Match]:
        """The k likeliest for one request `[width]`, best first; none if the desk is empty. Ties go by place."""
        if not self.ids:
            return []
        scores = self.scores(request[None], matching)[0]
        order = np.argsort(-scores, kind="stable")[:k]
        return [Match(self.ids[place], float(scores[place])) for place in order]


def is_known(matches: Sequence[Match], matching: Matching) -> bool:
    """Whether the best match is good enough to be told as the answer.

    >>> is_known([Match("a", 0.6)], Matching(0.7, 0.5)), is_known([], Matching(0.7, 0.5))
    (True, False)
    """
    return bool(matches) and matches[0].score >= matching.threshold
