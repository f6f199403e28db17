"""Made listeners of a music service: sessions with a mood, tracks finished, skipped, liked and played again.

Everything is stated here and nothing is fitted to anybody. Tracks are of artists, artists of a genre. A listener has a
taste over genres, drawn around that of their service's market, and some favourite artists. A session keeps to one
genre for the most part. What is played next is a track heard before, one of a favourite, or one of the genre by how
popular it is. Whether it is finished depends on the taste, the favourites and the track.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedrec.data.catalog import ItemCatalog
from fedrec.data.events import EventLog
from fedrec.data.scene import Scene

KINDS = ("finish", "skip", "replay", "like", "playlist")
SERVICES = {"aria": 0.4, "beat": 0.25, "chord": 0.18, "duet": 0.1, "echo": 0.07}
"""Share of the listeners by service."""

_GENRES = ("ambient", "blues", "classical", "country", "electronic", "folk", "hip-hop", "jazz", "metal", "pop", "soul")
_FIRST = ("Silver", "Paper", "Northern", "Velvet", "Hollow", "Golden", "Distant", "Electric", "Wooden", "Crimson")
_SECOND = ("Rivers", "Lanterns", "Foxes", "Engines", "Gardens", "Tides", "Mirrors", "Sparrows", "Avenues", "Harbours")
_VERBS = ("Waiting for", "Leaving", "Dreaming of", "Under", "Back to", "Dancing with", "Letters from", "Beyond")
_NOUNS = ("the Rain", "Tomorrow", "the Station", "Summer", "a Stranger", "the Coast", "Midnight", "Home", "the Moon")
_ARTISTS, _TRACKS = 90, 700
_FAVOURITES, _SESSIONS, _PLAYS = 5, (4, 12), (5, 13)
_AGAIN, _OF_FAVOURITE = 0.15, 0.3
_DAY_S, _START = 86_400.0, 1.7e9
_TOLD = (
    "Made: tracks, artists, listeners and all they did come from a generator (fedrec/data/made_music.py) that is "
    "fitted to nobody; no real listening log is to be had here. A user is one made listener of one service. Figures "
    "tell how the machinery behaves on sessions, skips and repeats, not how people like music."
)


@dataclass(frozen=True)
class _Tracks:
    """All tracks as columns."""

    artist: NDArray[np.int64] = field(repr=False)
    genre: NDArray[np.int64] = field(repr=False)
    popular: NDArray[np.float64] = field(repr=False)
    is_explicit: NDArray[np.bool_] = field(repr=False)
    year: NDArray[np.int64] = field(repr=False)


def music_scene(users: int, seed: int = 1) -> Scene:
    """So many made listeners; the same seed makes the same ones.

    Args:
        users: at most 10,000.
    """
    rng = np.random.default_rng([seed, 0x3051C])
    tracks = _tracks(rng)
    names = [f"{first} {second}" for second in _SECOND for first in _FIRST]
    artists = [names[at] for at in rng.permutation(len(names))[:_ARTISTS]]
    catalog = _catalog(tracks, artists)
    services = rng.choice(list(SERVICES), users, p=list(SERVICES.values()))
    markets = {name: rng.dirichlet(np.full(len(_GENRES), 0.8)) for name in SERVICES}
    rows, labels = list[tuple[str, int, str, float]](), dict[str, dict[str, str | float | bool]]()
    for number, service in enumerate(services.tolist()):
        user, is_family = f"l{number:04d}", bool(rng.random() < 0.25)
        labels[user] = {"service": service, "plan": "family" if is_family else "single"}
        rows += [(user, *event) for event in _listening(tracks, markets[service], is_family, rng)]
    return Scene(
        catalog,
        EventLog.of(rows, catalog.ids, KINDS),
        tuple(
            {
                "artist": artists[tracks.artist[t]],
                "explicit": bool(tracks.is_explicit[t]),
                "year": float(tracks.year[t]),
            }
            for t in range(_TRACKS)
        ),
        np.zeros(_TRACKS),
        labels,
        _TOLD,
        f"made listeners, seed {seed}",
    )


def _tracks(rng: np.random.Generator) -> _Tracks:
    of_artist = rng.integers(len(_GENRES), size=_ARTISTS)
    fame = 1 / np.arange(1, _ARTISTS + 1) ** 0.6
    artist = np.concatenate([np.arange(_ARTISTS), rng.choice(_ARTISTS, _TRACKS - _ARTISTS, p=fame / fame.sum())])
    popular = np.log(fame[artist]) + 0.8 * rng.standard_normal(_TRACKS)
    genre = of_artist[artist]
    explicit = rng.random(_TRACKS) < np.where(genre == _GENRES.index("hip-hop"), 0.5, 0.1)
    return _Tracks(artist, genre, popular, explicit, rng.integers(1975, 2024, size=_TRACKS))


def _catalog(tracks: _Tracks, artists: list[str]) -> ItemCatalog:
    titles = list[str]()
    for track in range(_TRACKS):
        verb, noun = _VERBS[track % len(_VERBS)], _NOUNS[track // len(_VERBS) % len(_NOUNS)]
        titles.append(f"{verb} {noun} - {artists[tracks.artist[track]]}")
    kinds = [_GENRES[code] for code in tracks.genre]
    return ItemCatalog(
        tuple(f"t{track:04d}" for track in range(_TRACKS)),
        tuple(titles),
        tuple(
            f"{title}. {kind.capitalize()} music, {year}."
            for title, kind, year in zip(titles, kinds, tracks.year, strict=True)
        ),
        tuple((kind,) for kind in kinds),
        tuple(int(year) for year in tracks.year),
    )


def _listening(
    tracks: _Tracks, market: NDArray[np.float64], is_family: bool, rng: np.random.Generator
) -> Iterator[tuple[int, str, float]]:
    """One listener's events: (track, kind, time)."""
    taste = rng.dirichlet(4 * market + 0.05)
    liking = np.log(taste[tracks.genre] + 1e-3) + tracks.popular
    if is_family:
        liking = liking - 3.0 * tracks.is_explicit
    favourites = tracks.artist[np.argsort(-(liking + rng.gumbel(size=_TRACKS)))[: 4 * _FAVOURITES]]
    is_favourite = np.isin(tracks.artist, list(dict.fromkeys(favourites.tolist()))[:_FAVOURITES])
    days, finished = np.sort(rng.uniform(0, 60, size=int(rng.integers(*_SESSIONS)))), dict[int, int]()
    for day in days:
        mood = rng.choice(len(_GENRES), p=taste)
        in_mood = np.where(tracks.genre == mood, 2.5, 0.0)
        at = _START + float(day) * _DAY_S
        for _ in range(int(rng.integers(*_PLAYS))):
            at += float(rng.integers(120, 300))
            if finished and rng.random() < _AGAIN:
                track = int(rng.choice(list(finished)))
                yield track, "replay", at
                continue
            bonus = in_mood + np.where(is_favourite, 3.0 if rng.random() < _OF_FAVOURITE else 0.5, 0.0)
            track = int(np.argmax(liking + bonus + rng.gumbel(size=_TRACKS)))
            pleased = (
                1.5 * is_favourite[track] + 0.6 * (tracks.genre[track] == mood) + 0.4 * tracks.popular[track] + 0.9
            )
            is_refused = is_family and tracks.is_explicit[track]
            if rng.random() > 1 / (1 + np.exp(-pleased)) or is_refused:
                yield track, "skip", at
                continue
            finished[track] = finished.get(track, 0) + 1
            yield track, "finish", at
            if rng.random() < 0.15:
                yield track, "like", at
            if rng.random() < 0.05:
                yield track, "playlist", at
