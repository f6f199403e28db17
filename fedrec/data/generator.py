"""Made users: fitted to real ones as a crowd, none of them copied. What is kept and what not: docs/generated-data.md.

Made data of a private source would be a release of that source, to be charged like any other: nothing here adds noise.
It is fitted to MovieLens-100K, a public research data set, whole, test items included: train on it and test on
MovieLens-100K, and the figure is worth nothing.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fedrec.data.catalog import ItemCatalog
from fedrec.data.columns import write_parquet_parts
from fedrec.data.interactions import BY_USER, InteractionTable, stored_columns
from fedrec.data.sequences import build_sequences
from fedrec.data.stored import TableDigest
from fedrec.data.taste import Floats, Tastes, fit_tastes

SCHEME = "ml-100k-crowd-1"
"""Changes whenever the same seed would make other users."""

_TASTES, _STEPS, _SESSION_ITEMS = 40, 25, 12
# The fit takes chance for taste, in sessions of a dozen items above all: as fitted, EASE would find .28 of the test
# items where it finds .16 of the real ones. These factors on the concentrations were chosen by those figures.
_LOOSER_USERS, _LOOSER_SESSIONS = 2.0, 7.0
_BATCH_USERS = 256
_GRID = np.linspace(0, 1, 201)
# How much of a session's taste the next one keeps.
_KEPT_TASTE = 0.5
_POPULARITY_STEPS, _POPULARITY_USERS = 6, 1024
_RATING_WEIGHT = 20.0


@dataclass(frozen=True)
class Crowd:
    """All that is kept of real users.

    Attributes:
        source: name of the data.
        lengths, starts, spans, gaps: quantiles on an even grid: items a user, first time, seconds from the first to
            the last item, seconds to the next item.
        ratings: `[items, levels]`, probability of each of `levels`, drawn towards that of all items.
    """

    source: str
    tastes: Tastes
    lengths: Floats = field(repr=False)
    starts: Floats = field(repr=False)
    spans: Floats = field(repr=False)
    gaps: Floats = field(repr=False)
    levels: NDArray[np.float32] = field(repr=False)
    ratings: Floats = field(repr=False)


def fit(table: InteractionTable, catalog: ItemCatalog, *, source: str, seed: int = 0) -> Crowd:
    """Fit a crowd to all users of a table. Private until released: nothing is noised."""
    sequences = build_sequences(table, seed)
    pieces = [s.items[i : i + _SESSION_ITEMS] for s in sequences for i in range(0, len(s), _SESSION_ITEMS)]
    users = np.repeat(np.arange(len(sequences)), [-(-len(s) // _SESSION_ITEMS) for s in sequences])
    rows = np.repeat(np.arange(len(pieces)), [len(piece) for piece in pieces])
    shape = (len(pieces), len(catalog))
    sessions = sparse.csr_array((np.ones(len(rows)), (rows, np.concatenate(pieces))), shape=shape)
    levels, codes = np.unique(np.nan_to_num(table.rating), return_inverse=True)
    counts = np.zeros((len(catalog), len(levels)))
    np.add.at(counts, (table.item_codes, codes), 1)
    counts += _RATING_WEIGHT * counts.sum(0) / counts.sum()
    gaps = np.concatenate([np.diff(s.timestamps) for s in sequences])
    crowd = Crowd(
        source=source,
        tastes=_looser(fit_tastes(sessions, users, tastes=_TASTES, steps=_STEPS, seed=seed)),
        lengths=np.quantile([len(s) for s in sequences], _GRID),
        starts=np.quantile([s.timestamps[0] for s in sequences], _GRID),
        spans=np.quantile([s.timestamps[-1] - s.timestamps[0] for s in sequences], _GRID),
        gaps=np.quantile(gaps, _GRID),
        levels=levels.astype(np.float32),
        ratings=counts / counts.sum(1, keepdims=True),
    )
    return _as_popular(crowd, np.bincount(table.item_codes, minlength=len(catalog)) / table.n_rows)


def _looser(tastes: Tastes) -> Tastes:
    return replace(
        tastes,
        spread_users=_LOOSER_USERS * tastes.spread_users,
        spread_sessions=_LOOSER_SESSIONS * tastes.spread_sessions,
    )


def _as_popular(crowd: Crowd, popularity: Floats) -> Crowd:
    """Nobody has an item twice, which takes from the popular ones; tastes are reweighted until they have their due."""
    for step in range(_POPULARITY_STEPS):
        rng = np.random.default_rng([step, 1])
        _, _, items = _histories(crowd, _POPULARITY_USERS, rng)
        found = (np.bincount(items, minlength=len(popularity)) + 0.5) / (len(items) + 0.5 * len(popularity))
        weights = crowd.tastes.items * (np.maximum(popularity, 1e-9) / found) ** 0.7
        tastes = replace(crowd.tastes, items=weights / weights.sum(1, keepdims=True))
        crowd = replace(crowd, tastes=tastes)
    return crowd


def made_users(crowd: Crowd, catalog: ItemCatalog, *, users: int, seed: int) -> Iterator[InteractionTable]:
    """Users `g0000000`, `g0000001`, ... in tables of some each. The first ones are the same however many are made."""
    for start in range(0, users, _BATCH_USERS):
        rng = np.random.default_rng([seed, start])
        owners, lengths, items = _histories(crowd, _BATCH_USERS, rng)
        times = _times(crowd, lengths, rng)
        ratings = _ratings(crowd, items, rng)
        kept = owners < min(_BATCH_USERS, users - start)
        ids = tuple(f"g{number:07d}" for number in range(start, min(start + _BATCH_USERS, users)))
        yield InteractionTable(owners[kept], items[kept], ratings[kept], times[kept], ids, catalog.ids)


def write_generated(crowd: Crowd, path: Path, catalog: ItemCatalog, *, users: int, seed: int) -> None:
    """Write made users as Parquet, some at a time, marked as generated. Raises StorageError."""
    digest = TableDigest()

    def parts() -> Iterator[dict[str, object]]:
        for table in made_users(crowd, catalog, users=users, seed=seed):
            digest.add(table)
            yield stored_columns(table)

    def facts() -> dict[str, str]:
        made = {"fitted_to": crowd.source, "scheme": SCHEME, "users": users, "seed": seed}
        marks = {"content": "interactions", "hash": digest.hexdigest(catalog.ids)}
        return {**BY_USER, **marks, "generated": json.dumps(made, sort_keys=True)}

    write_parquet_parts(path, parts(), facts)


def _histories(
    crowd: Crowd, users: int, rng: np.random.Generator
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int32]]:
    """(user of each row, items a user, item codes), users one after the other, each oldest first."""
    tastes, n_items = crowd.tastes, crowd.tastes.items.shape[1]
    drawn = np.exp(np.interp(rng.random(users), _GRID, np.log(crowd.lengths)))
    lengths = np.clip(np.rint(drawn), 1, n_items).astype(np.int64)
    mixtures = _dirichlet(np.broadcast_to(tastes.spread_users * tastes.mean, (users, len(tastes.mean))), rng)
    session, free = mixtures, np.ones((users, n_items), np.bool_)
    owners, found = list[NDArray[np.int64]](), list[NDArray[np.int64]]()
    for start in range(0, int(lengths.max()), _SESSION_ITEMS):
        still = np.flatnonzero(lengths > start)
        about = (1 - _KEPT_TASTE) * mixtures[still] + _KEPT_TASTE * session[still]
        session[still] = _dirichlet(tastes.spread_sessions * about, rng)
        # The item with the smallest exponential draw over its weight comes next, and so on: sampling without return.
        waits = rng.standard_exponential((len(still), n_items), np.float32)
        waits /= (session[still] @ tastes.items).astype(np.float32) + np.float32(1e-12)
        waits[~free[still]] = np.inf
        first = np.argpartition(waits, _SESSION_ITEMS - 1, axis=1)[:, :_SESSION_ITEMS]
        first = np.take_along_axis(first, np.argsort(np.take_along_axis(waits, first, 1), axis=1), 1)
        free[still[:, None], first] = False
        taken = np.arange(start, start + _SESSION_ITEMS) < lengths[still, None]
        owners.append(np.broadcast_to(still[:, None], first.shape)[taken])
        found.append(first[taken])
    everyone = np.concatenate(owners)
    order = np.argsort(everyone, kind="stable")
    return everyone[order].astype(np.int32), lengths, np.concatenate(found)[order].astype(np.int32)


def _dirichlet(weights: Floats, rng: np.random.Generator) -> Floats:
    draws = rng.standard_gamma(weights) + 1e-12
    return np.asarray(draws / draws.sum(1, keepdims=True))


def _times(crowd: Crowd, lengths: NDArray[np.int64], rng: np.random.Generator) -> Floats:
    """Whole seconds; a user's longest pauses stand between sessions."""
    rows, firsts = int(lengths.sum()), np.cumsum(lengths) - lengths
    owners = np.repeat(np.arange(len(lengths)), lengths)
    places = np.arange(rows) - firsts[owners]
    gaps = np.interp(rng.random(rows), _GRID, crowd.gaps)
    gaps[firsts] = 0
    spans = np.interp(rng.random(len(lengths)), _GRID, crowd.spans)
    gaps *= (spans / np.maximum(np.add.reduceat(gaps, firsts), 1))[owners]
    # Sessions' first rows come first in the one order, the longest gaps in the other; both user by user.
    is_inside = (places % _SESSION_ITEMS != 0) | (places == 0)
    longest = np.lexsort((-gaps, owners))
    slots = np.lexsort((rng.random(rows), places == 0, is_inside & (places > 0), owners))
    placed = np.empty(rows)
    placed[slots] = gaps[longest]
    placed[firsts] = 0
    elapsed = np.cumsum(np.ceil(placed))  # what was no pause stays none
    starts = np.floor(np.interp(rng.random(len(lengths)), _GRID, crowd.starts))
    return np.asarray(starts[owners] + elapsed - elapsed[firsts][owners], np.float64)


def _ratings(crowd: Crowd, items: NDArray[np.int32], rng: np.random.Generator) -> NDArray[np.float32]:
    bounds = np.cumsum(crowd.ratings, axis=1)[items]
    codes = (rng.random(len(items))[:, None] > bounds[:, :-1]).sum(1)
    return np.asarray(crowd.levels[codes])
