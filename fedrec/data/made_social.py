"""Made members of a social service: posts that grow old, authors who are followed, and what members do with them.

Everything is stated here and nothing is fitted to anybody. Authors write on a topic or two for thirty days. A member
has a taste over topics, drawn around that of their community, follows some authors, and looks in every day or two until
the end. A visit shows some posts of the last days: fresh ones first, those of followed authors above all. What the
member then does depends on the topic, the author and how good the post is.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedrec.data.catalog import ItemCatalog
from fedrec.data.events import EventLog
from fedrec.data.scene import Scene

KINDS = ("view", "like", "reply", "share", "follow", "hide")
COMMUNITIES = {"alder": 0.45, "birch": 0.3, "cedar": 0.15, "dogwood": 0.1}
"""Share of the members by community."""

_TOPICS = {
    "astronomy": ("a comet", "the telescope", "Saturn's rings", "a meteor shower", "the lunar eclipse"),
    "baking": ("sourdough", "rye bread", "the oven spring", "croissants", "a birthday cake"),
    "chess": ("an endgame", "the Sicilian", "a brilliant sacrifice", "the tournament", "opening traps"),
    "cycling": ("the mountain pass", "a puncture", "bikepacking", "winter tyres", "the city race"),
    "gardening": ("tomato seedlings", "compost", "the first frost", "roses", "raised beds"),
    "history": ("a Roman road", "the old archive", "a shipwreck", "medieval maps", "the railway age"),
    "photography": ("long exposure", "street portraits", "film grain", "a macro lens", "the golden hour"),
    "programming": ("a race condition", "type systems", "the compiler", "code review", "a memory leak"),
    "running": ("the marathon", "interval training", "new shoes", "a trail run", "recovery days"),
    "travel": ("the night train", "a tiny island", "packing light", "the border crossing", "street food"),
}
_OPENINGS = ("Thoughts on", "Finally tried", "A question about", "What I learnt from", "Photos of", "Do not miss")
_AUTHORS, _POSTS, _DAYS = 60, 700, 30.0
_SHOWN, _FRESH_DAYS, _OLDEST_DAYS = 7, 1.5, 6.0
_DAY_S, _START = 86_400.0, 1.7e9
_TOLD = (
    "Made: posts, authors, members and all they did come from a generator (fedrec/data/made_social.py) that is fitted "
    "to nobody; no real feed is to be had here. A user is one made member of one community. Figures tell how the "
    "machinery behaves on posts that grow old and authors who are followed, not how people behave."
)


@dataclass(frozen=True)
class _Posts:
    """All posts as columns."""

    author: NDArray[np.int64] = field(repr=False)
    topic: NDArray[np.int64] = field(repr=False)
    quality: NDArray[np.float64] = field(repr=False)
    day: NDArray[np.float64] = field(repr=False)
    is_reply: NDArray[np.bool_] = field(repr=False)
    reports: NDArray[np.int64] = field(repr=False)


def social_scene(users: int, seed: int = 1) -> Scene:
    """So many made members; the same seed makes the same ones.

    Args:
        users: at most 10,000.
    """
    rng = np.random.default_rng([seed, 0x50C1A1])
    posts = _posts(rng)
    catalog = _catalog(posts, rng)
    communities = rng.choice(list(COMMUNITIES), users, p=list(COMMUNITIES.values()))
    leanings = {name: rng.dirichlet(np.full(len(_TOPICS), 1.0)) for name in COMMUNITIES}
    rows, labels = list[tuple[str, int, str, float]](), dict[str, dict[str, str | float | bool]]()
    for number, community in enumerate(communities.tolist()):
        user = f"m{number:04d}"
        labels[user] = {"community": community}
        rows += [(user, *event) for event in _visits(posts, leanings[community], rng)]
    return Scene(
        catalog,
        EventLog.of(rows, catalog.ids, KINDS),
        tuple(
            {"author": _name(posts.author[p]), "reply": bool(posts.is_reply[p]), "reports": float(posts.reports[p])}
            for p in range(_POSTS)
        ),
        _START + posts.day * _DAY_S,
        labels,
        _TOLD,
        f"made members, seed {seed}",
    )


def _name(author: int) -> str:
    return f"author-{author:02d}"


def _posts(rng: np.random.Generator) -> _Posts:
    fame = 1 / np.arange(1, _AUTHORS + 1) ** 0.7
    first, second = rng.integers(len(_TOPICS), size=(2, _AUTHORS))
    author = rng.choice(_AUTHORS, _POSTS, p=fame / fame.sum())
    topic = np.where(rng.random(_POSTS) < 0.75, first[author], second[author])
    quality = 0.5 * np.log(fame[author]) + 0.8 * rng.standard_normal(_POSTS)
    is_reply = rng.random(_POSTS) < 0.25
    reports = rng.poisson(np.where(rng.random(_POSTS) < 0.05, 4.0, 0.1))
    return _Posts(author, topic, quality, np.sort(rng.uniform(0, _DAYS, _POSTS)), is_reply, reports)


def _catalog(posts: _Posts, rng: np.random.Generator) -> ItemCatalog:
    topics, titles = list(_TOPICS), list[str]()
    for post in range(_POSTS):
        about = _TOPICS[topics[posts.topic[post]]]
        opening = "Re:" if posts.is_reply[post] else _OPENINGS[int(rng.integers(len(_OPENINGS)))]
        titles.append(f"{opening} {about[int(rng.integers(len(about)))]} (day {int(posts.day[post]) + 1})")
    named = zip(titles, posts.author, posts.topic, strict=True)
    return ItemCatalog(
        tuple(f"p{post:04d}" for post in range(_POSTS)),
        tuple(titles),
        tuple(f"{title}. {topics[topic].capitalize()}, by {_name(author)}." for title, author, topic in named),
        tuple((topics[topic],) for topic in posts.topic),
        (None,) * _POSTS,
    )


def _visits(posts: _Posts, leaning: NDArray[np.float64], rng: np.random.Generator) -> Iterator[tuple[int, str, float]]:
    """One member's events: (post, kind, time)."""
    taste = rng.dirichlet(5 * leaning + 0.05)
    liking = np.log(taste[posts.topic] + 1e-2) + posts.quality
    of_author = np.array(
        [
            liking[posts.author == author].mean() if (posts.author == author).any() else -9.0
            for author in range(_AUTHORS)
        ]
    )
    followed = set(np.argsort(-(of_author + rng.gumbel(size=_AUTHORS)))[: int(rng.integers(3, 10))].tolist())
    is_seen, day = np.zeros(_POSTS, bool), float(rng.uniform(0, 18))
    while day < _DAYS:
        age = day - posts.day
        is_open = (age > 0) & (age < _OLDEST_DAYS) & ~is_seen
        is_followed = np.isin(posts.author, list(followed))
        weight = -age / _FRESH_DAYS + 0.8 * liking + 2.0 * is_followed + rng.gumbel(size=_POSTS)
        shown = np.argsort(-np.where(is_open, weight, -np.inf))[: min(_SHOWN, int(is_open.sum()))]
        for place, post in enumerate(shown.tolist()):
            is_seen[post] = True
            at = _START + (day + place / 2000) * _DAY_S
            yield post, "view", at
            yield from ((post, kind, at + 1) for kind in _reactions(posts, liking, post, followed, rng))
        day += float(rng.exponential(1.3))


def _reactions(
    posts: _Posts, liking: NDArray[np.float64], post: int, followed: set[int], rng: np.random.Generator
) -> Iterator[str]:
    author = int(posts.author[post])
    pleased = 1 / (1 + np.exp(-(liking[post] + 1.5 + 1.5 * (author in followed))))
    if posts.reports[post] >= 2 or rng.random() > pleased + 0.35:
        if rng.random() < 0.3:
            yield "hide"
        return
    for kind, chance in (("like", 0.75), ("reply", 0.15), ("share", 0.1)):
        if rng.random() < chance * pleased:
            yield kind
    if author not in followed and rng.random() < 0.08 * pleased:
        followed.add(author)
        yield "follow"
