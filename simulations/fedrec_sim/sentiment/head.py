"""A sentiment head of six partners, each with reviews of one source, trained federated with and without privacy."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedrec.aggregation.server_optimizer import ServerOptimizer
from fedrec.data.movie_reviews import Review, pick
from fedrec.model.sentences import SentenceEncoder, Vectors, encode_kept
from fedrec.sentiment.head import LABELS, HeadInputs, last_words
from fedrec.tasks.classes import Classes
from fedrec.tasks.examples import TaskExamples
from fedrec.tasks.terms import TaskTerms
from fedrec.tasks.training import PlainWork
from fedrec_sim.tasks.federation import TrainedHead, federate_head
from fedrec_sim.tasks.rounds import TaskPromise, TaskRounds

PARTNERS = {"rotten_tomatoes": (2, 2000), "imdb": (4, 500)}  # partners, and reviews of each
_READ, _ROUNDS = 240, 12
_SCALE = 3.0


def inputs_of(encoder: str, width: int) -> HeadInputs:
    """What the example's head reads of a text.

    Args:
        encoder: `SentenceEncoder.name`.
        width: of its vectors.
    """
    return HeadInputs(encoder=encoder, width=width, scale=_SCALE, last_letters=_READ)


@dataclass(frozen=True)
class Reviews:
    """Reviews of all partners with their vectors, split 7:2:1 by a hash of their texts.

    Attributes:
        vectors: `[reviews, width]`.
        is_negative: `[reviews]`; partner: `[reviews]`; part: `[reviews]`, 0 train, 1 validation, 2 test.
    """

    vectors: Vectors = field(repr=False)
    is_negative: NDArray[np.bool_] = field(repr=False)
    partner: NDArray[np.int64] = field(repr=False)
    part: NDArray[np.int64] = field(repr=False)

    @classmethod
    def read(
        cls, reviews: list[Review], encoder: SentenceEncoder, cache: Path, progress: Callable[[int, int], None]
    ) -> "Reviews":
        """Those that the example uses: the last words of each, as a short message has."""
        chosen: list[Review] = []
        owners: list[int] = []
        vectors: list[Vectors] = []
        for source, (partners, each) in PARTNERS.items():
            some, first = pick(reviews, source, partners * each), len(set(owners))
            vectors.append(encode_kept(encoder, [last_words(one.text, _READ) for one in some], cache, progress))
            chosen += some
            owners += [first + at % partners for at in range(len(some))]
        drawn = [_split(one) for one in chosen]
        return cls(
            np.concatenate(vectors),
            np.array([one.is_negative for one in chosen]),
            np.array(owners),
            np.array(drawn),
        )

    def of(self, part: int, partner: int | None = None) -> NDArray[np.int64]:
        """Places of the reviews of a part."""
        chosen = (self.part == part) & (True if partner is None else self.partner == partner)
        return np.flatnonzero(chosen)


def _split(review: Review) -> int:
    """0, 1 or 2. Another hash than the one by which reviews are picked."""
    place = int.from_bytes(hashlib.sha256(f"split {review.text}".encode()).digest()[:6]) / 2**48
    return 0 if place < 0.7 else 1 if place < 0.9 else 2


def train_head(reviews: Reviews, encoder: str, promise: TaskPromise | None, seed: int) -> TrainedHead:
    """A linear head over the vectors; one text is one unit, since the data name no authors."""
    n_partners = int(reviews.partner.max()) + 1
    terms = TaskTerms.fresh(
        Classes(LABELS),
        reviews.vectors.shape[1],
        inputs="sentences/minilm-l6-v2",
        inputs_hash=hashlib.sha256(f"{encoder}|{_SCALE}|{_READ}".encode()).hexdigest(),
        user_is="one text",
    )
    shares = []
    for partner in range(n_partners):
        mine = reviews.of(0, partner)
        shares.append(
            TaskExamples.of(_SCALE * reviews.vectors[mine], reviews.is_negative[mine].astype(np.float32), mine)
        )
    if promise is None:
        optimizer, epochs = ServerOptimizer("sgd", 1.0, 0.0), 1
    else:
        optimizer, epochs = ServerOptimizer("sgd", 4.0, 0.5), 1
    work = PlainWork(learning_rate=0.02, most_rows=1, batch_users=256)
    rounds = TaskRounds(_ROUNDS, optimizer, work, local_epochs=epochs)
    return federate_head(terms, shares, rounds, run=f"sentiment-{seed}", seed=seed, promise=promise)


def negative(head: TrainedHead, vectors: Vectors) -> NDArray[np.float64]:
    """How likely each text is negative, `[texts]`."""
    return np.asarray(head.predict(_SCALE * vectors)[:, 1])


def quality(reviews: Reviews, probability: NDArray[np.float64], part: int) -> dict[str, Any]:
    """Accuracy over a part, and of each partner."""
    right = (probability > 0.5) == reviews.is_negative
    chosen = reviews.of(part)
    return {
        "texts": len(chosen),
        "accuracy": round(float(right[chosen].mean()), 4),
        "by_partner": [
            round(float(right[reviews.of(part, one)].mean()), 4) for one in range(int(reviews.partner.max()) + 1)
        ],
    }
