"""New users are asked about items: how good their list is after each question, by every way to choose questions.

A share of the users is withheld from training, as in a cold start. Of each of them the earlier half by time answers:
an item that they gave four stars or more is liked, one with fewer is known and not liked, any other one they do not
know, which costs a question like any other. To be found is what they liked of the later half, among all items but
those that they answered to know.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray

from fedrec.active.questions import BEST, STRATEGIES, Answers, Strategy, next_questions
from fedrec.data.interactions import InteractionTable
from fedrec.data.sequences import UserSequence
from fedrec.errors import ConfigError
from fedrec.evaluation.cold_start import NewUsers, withhold_users
from fedrec.evaluation.metrics import METRICS, metric_table, pad_ranks, target_ranks
from fedrec.recommend.live_model import LiveModel, as_window
from fedrec.tasks.stars import StarsOf
from fedrec_sim.run import Json
from fedrec_sim.world import World

QUESTIONS = 10
USERS_SHARE = 0.2
_LIKE = 4.0
_NDCG = METRICS.index("ndcg@10")
# One user in so many is in no figure: settings are chosen on those.
_TUNING = 3


@dataclass(frozen=True, repr=False)
class NewUser:
    """Somebody who is asked. Private.

    Attributes:
        likes: by item code, whether they liked what they know.
        wanted: item codes that are to be found.
    """

    name: str
    likes: dict[int, bool]
    wanted: NDArray[np.int64]


def withheld_users(world: World, seed: int) -> NewUsers:
    """Whom training does not see."""
    return withhold_users(list(world.sequences(seed)), USERS_SHARE, (1,), seed)


def new_users(world: World, withheld: NewUsers, *, tuning: bool) -> list[NewUser]:
    """Of the withheld those that figures are made of, or those that settings are chosen on; always the same ones."""
    if not isinstance(world.table, InteractionTable):
        raise ConfigError("questions need stars", "use a data set that has ratings, such as ml-100k")
    stars = StarsOf(world.table)
    chosen = [one for one in withheld.new if (crc32(one.user.encode()) % _TUNING == 0) is tuning]
    found = [_cut(one, stars) for one in chosen]
    return [one for one in found if len(one.wanted)]


def _cut(sequence: UserSequence, stars: StarsOf) -> NewUser:
    items, rated = sequence.items, stars.of(sequence.user, sequence.items)
    half = len(items) // 2
    likes = {int(item): bool(star >= _LIKE) for item, star in zip(items[:half], rated[:half], strict=True)}
    later = np.unique(items[half:][rated[half:] >= _LIKE])
    return NewUser(sequence.user, likes, np.setdiff1d(later, list(likes)).astype(np.int64))


@dataclass(frozen=True)
class Asked:
    """What came of asking, one row a user.

    Attributes:
        ndcg: NDCG@10 `[users, questions + 1]`, after none first.
        known: how many of the questions they knew an answer to, `[users]`.
    """

    ndcg: NDArray[np.float64] = field(repr=False)
    known: NDArray[np.float64] = field(repr=False)


def ask_everybody(
    model: LiveModel, users: Sequence[NewUser], strategy: Strategy, seed: int, questions: int = QUESTIONS
) -> Asked:
    """Ask each user one question after the other."""
    tables = [_ask(model, user, strategy, seed, questions) for user in users]
    return Asked(np.array([ndcg for ndcg, _ in tables]), np.array([known for _, known in tables], float))


def _ask(model: LiveModel, user: NewUser, strategy: Strategy, seed: int, questions: int) -> tuple[list[float], int]:
    own = [seed, crc32(user.name.encode())]
    ties, rng = np.random.default_rng([*own, 0]).random(model.n_items), np.random.default_rng([*own, 1])
    open_items = np.ones(model.n_items, bool)
    answers = Answers(model.prior_vector(), None, np.zeros(0, np.int64))
    liked, found = list[int](), [_ndcg(model, answers, user, ties)]
    for _ in range(questions):
        (item,) = next_questions(strategy, model, answers, open_items, 1, rng)
        open_items[item] = False
        if (likes := user.likes.get(int(item))) is not None:
            liked += [int(item)] if likes else []
            answers = _with_answer(model, answers, int(item), liked)
        found.append(_ndcg(model, answers, user, ties))
    return found, len(answers.known)


@torch.no_grad()
def _with_answer(model: LiveModel, answers: Answers, item: int, liked: list[int]) -> Answers:
    """After an item that they know; the LLM reads those that they like."""
    known = np.append(answers.known, item)
    if not liked:
        return Answers(answers.vector, None, known)
    tokens = model.item_tokens(np.array([liked], np.int64))
    hidden = model.tokens.backbone(inputs_embeds=tokens, use_cache=False).last_hidden_state[0, -1].float()
    context = model.tokens.context_of(hidden).cpu().numpy()
    window = as_window(liked, [1.0] * len(liked), context)
    return Answers(model.user_vector(window), window, known)


def _ndcg(model: LiveModel, answers: Answers, user: NewUser, ties: NDArray[np.float64]) -> float:
    scores = model.scores(answers.vector[None])[0]
    scores[answers.known] = -np.inf
    return float(metric_table(pad_ranks([target_ranks(scores, user.wanted, ties)]))[0, _NDCG])


def paired_interval(differences: NDArray[np.float64]) -> tuple[float, float]:
    """A 95% interval of the mean of paired differences, `[users]`, over redrawn users."""
    rng = np.random.default_rng(0)
    draws = differences[rng.integers(0, len(differences), (2000, len(differences)))].mean(1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def ask_by_every_strategy(
    model: LiveModel, users: Sequence[NewUser], seed: int, say: Callable[[str], None]
) -> dict[Strategy, Asked]:
    """One adapter, the same users, every way."""
    found = {}
    for strategy in STRATEGIES:
        say(f"seed {seed}: asking {len(users)} users by {strategy}")
        found[strategy] = ask_everybody(model, users, strategy, seed)
    return found


def seed_figures(model: LiveModel, users: Sequence[NewUser], seed: int, say: Callable[[str], None]) -> Json:
    """What one adapter's users got by every way, for the run's folder. Private: a row a user."""
    found = ask_by_every_strategy(model, users, seed, say)
    return {
        "users": [user.name for user in users],
        "strategies": {name: {"ndcg": a.ndcg.tolist(), "known": a.known.tolist()} for name, a in found.items()},
    }


def over_seeds(seeds: Sequence[int], results: Sequence[Json]) -> Json:
    """Means over seeds with their spread, and paired differences with intervals over users."""
    tables = {name: [np.array(one["strategies"][name]["ndcg"]) for one in results] for name in STRATEGIES}
    told: Json = {}
    for name in STRATEGIES:
        curves = np.array([table.mean(0) for table in tables[name]])
        known = [np.mean(one["strategies"][name]["known"]) for one in results]
        told[name] = {
            "ndcg@10": curves.mean(0).tolist(),
            "ndcg@10_std": curves.std(0, ddof=1 if len(seeds) > 1 else 0).tolist(),
            "over_all_questions": float(curves[:, 1:].mean()),
            "known": float(np.mean(known)),
            **{
                f"over_{other}": _over(results, tables[name], tables[other])
                for other in ("random", "popularity")
                if other != name
            },
        }
    return {
        "seeds": list(seeds),
        "users": [len(one["users"]) for one in results],
        "questions": QUESTIONS,
        "served": BEST,
        "strategies": told,
    }


def _over(results: Sequence[Json], own: list[NDArray[np.float64]], other: list[NDArray[np.float64]]) -> Json:
    """Differences paired by user; who was asked under several seeds counts once, with the mean."""
    names = np.concatenate([one["users"] for one in results])
    differences = np.concatenate(own) - np.concatenate(other)
    _, places = np.unique(names, return_inverse=True)
    columns = {"5": differences[:, 5], "10": differences[:, 10], "all": differences[:, 1:].mean(1)}
    found = {}
    for after, column in columns.items():
        of_users = np.bincount(places, column) / np.bincount(places)
        low, high = paired_interval(of_users)
        found[after] = {"mean": float(of_users.mean()), "low": low, "high": high}
    return found
