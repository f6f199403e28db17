"""Items and users that training never met: which are withheld, and what is asked of whom.

Both experiments are leave-one-out by time. Nothing that is trained sees a withheld item or user in any part, nor what
came after a question about a user that it is trained on.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fedrec.data.sequences import UserSequence
from fedrec.data.splits import EvaluationSplit, leave_one_out
from fedrec.errors import DataError
from fedrec.evaluation.metrics import MetricSums
from fedrec.evaluation.protocol import Items, Scorer, Scores, evaluate_users

# Trains on the training parts, may choose on the validation parts, and must not look at the test parts.
Fit = Callable[[Sequence[EvaluationSplit]], Scorer]

_NOTHING = np.zeros(0, np.int32)


def on_histories(fit: Callable[[list[Items]], Scorer]) -> Fit:
    """What trains on histories and chooses nothing, as a `Fit`."""
    return lambda splits: fit([split.train for split in splits])


@dataclass(frozen=True, repr=False)
class NewItems:
    """Items withheld from training, and users who turned to them. Private.

    Attributes:
        withheld: bool `[items]`.
        training: one a user, protocol B on what the user had before turning to the new item asked for; no withheld
            item in any part. Its test items are the known items that new ones are compared with.
        questions: one a user; the test is the latest withheld item, the history all before, withheld ones included,
            so that they are no candidates.
    """

    withheld: np.ndarray
    training: list[EvaluationSplit]
    questions: list[EvaluationSplit]


def withhold_items(sequences: Sequence[UserSequence], n_items: int, share: float, seed: int) -> NewItems:
    """Withhold a share of the items that anybody had, drawn at random.

    A user is asked for the last withheld item that is new to the user, if a known one came before it.

    Args:
        share: above 0 and below 1; one item at least is withheld and one is kept.
    Raises: DataError: fewer than two items that anybody had.
    """
    had = np.unique(np.concatenate([_NOTHING, *(sequence.items for sequence in sequences)]))
    if len(had) < 2:
        raise DataError("fewer than two items that anybody had", "use more interactions")
    withheld = np.zeros(n_items, np.bool_)
    withheld[_drawn(had, share, seed, purpose=0)] = True
    training, questions = [], []
    for sequence in sequences:
        items, places = np.unique(sequence.items, return_index=True)
        place = int(places[withheld[items]].max(initial=-1))
        until = place if place >= 0 else len(sequence)
        known = ~withheld[sequence.items[:until]]
        before = UserSequence(sequence.user, sequence.items[:until][known], sequence.timestamps[:until][known])
        training.append(before)
        asked = sequence.items[place : place + 1] if place >= 0 and len(before) else _NOTHING
        questions.append(EvaluationSplit(sequence.user, sequence.items[:until], _NOTHING, asked))
    return NewItems(withheld, leave_one_out(training), questions)


def evaluate_new_items(fit: Fit, found: NewItems, tie_seed: int) -> dict[str, MetricSums]:
    """Train without the withheld items, then ask for known and for new ones.

    Args:
        fit: gives a scorer of the whole catalogue; it is given known items only to read.
        tie_seed: as in `evaluate`.
    Returns: `known_items` and `new_items` are ranked among all that the user has not seen, `among_new_items` among the
        withheld alone.
    """
    n_items, scorer = len(found.withheld), fit(found.training)
    reader = _WithoutItems(scorer, found.withheld)
    among = _Among(reader, found.withheld)
    asked = {
        "known_items": (scorer, found.training),
        "new_items": (reader, found.questions),
        "among_new_items": (among, found.questions),
    }
    return {name: _sums(*of, n_items, tie_seed) for name, of in asked.items()}


@dataclass(frozen=True, repr=False)
class NewUsers:
    """Users withheld from training. Private.

    Attributes:
        known: protocol B of those who are trained on.
        new: whole sequences of the withheld that are long enough for every number of shots.
        shots: how many of their latest items are known, ascending.
    """

    known: list[EvaluationSplit]
    new: list[UserSequence]
    shots: tuple[int, ...]

    def questions(self, shots: int | None) -> list[EvaluationSplit]:
        """The new users' last items, after so many items, or after all."""
        start = None if shots is None else -1 - shots
        return [EvaluationSplit(s.user, s.items[start:-1], _NOTHING, s.items[-1:]) for s in self.new]


def withhold_users(sequences: Sequence[UserSequence], share: float, shots: Sequence[int], seed: int) -> NewUsers:
    """Withhold a share of the users, drawn at random; the same of them are asked whatever the number of shots.

    Args:
        share: above 0 and below 1; one user at least is withheld and one is kept.
        shots: each 1 or more.
    Raises: DataError: no withheld user has more items than the most shots, or fewer than two users.
    """
    if len(sequences) < 2:
        raise DataError("fewer than two users", "use more interactions")
    drawn = set(_drawn(np.arange(len(sequences)), share, seed, purpose=1).tolist())
    new = [sequences[user] for user in sorted(drawn) if len(sequences[user]) > max(shots)]
    if not new:
        raise DataError(f"no withheld user has more than {max(shots)} items", "ask after fewer shots")
    known = [sequence for user, sequence in enumerate(sequences) if user not in drawn]
    return NewUsers(leave_one_out(known), new, tuple(sorted(shots)))


def evaluate_new_users(fit: Fit, found: NewUsers, n_items: int, tie_seed: int) -> dict[str, MetricSums]:
    """Train on the known users, then ask for their last items and for those of the new ones.

    Returns: `known_users` and `new_users` with whole histories. `new_users@k`: the history is cut to k items, and what
        the user had before is ranked like anything else, so that a right guess of it costs a place.
        `new_users_unseen@k`: the scorer reads as little, but what the user had is no candidate, as for known users.
    """
    scorer, whole = fit(found.known), found.questions(None)
    sums = {
        "known_users": _sums(scorer, found.known, n_items, tie_seed),
        "new_users": _sums(scorer, whole, n_items, tie_seed),
    }
    for k in found.shots:
        sums[f"new_users@{k}"] = _sums(scorer, found.questions(k), n_items, tie_seed)
        sums[f"new_users_unseen@{k}"] = _sums(_Latest(scorer, k), whole, n_items, tie_seed)
    return sums


def _drawn(of: np.ndarray, share: float, seed: int, purpose: int) -> np.ndarray:
    count = min(max(1, round(share * len(of))), len(of) - 1)
    return np.random.default_rng([seed, purpose]).permutation(of)[:count]


def _sums(scorer: Scorer, splits: Sequence[EvaluationSplit], n_items: int, tie_seed: int) -> MetricSums:
    return evaluate_users(scorer, splits, "test", n_items=n_items, tie_seed=tie_seed).sums()


@dataclass(frozen=True)
class _WithoutItems:
    """A scorer that reads histories without some items."""

    scorer: Scorer
    withheld: np.ndarray = field(repr=False)

    def score(self, histories: Sequence[Items]) -> Scores:
        return self.scorer.score([history[~self.withheld[history]] for history in histories])


@dataclass(frozen=True)
class _Among:
    """A scorer that ranks some items before all others."""

    scorer: Scorer
    first: np.ndarray = field(repr=False)

    def score(self, histories: Sequence[Items]) -> Scores:
        scores = np.array(self.scorer.score(histories), np.float64)
        scores[:, ~self.first] = scores.min(initial=0.0) - 1.0
        return scores


@dataclass(frozen=True)
class _Latest:
    """A scorer that reads the k latest items only."""

    scorer: Scorer
    k: int

    def score(self, histories: Sequence[Items]) -> Scores:
        return self.scorer.score([history[-self.k :] for history in histories])


def means_of(sums: Mapping[str, MetricSums]) -> dict[str, dict[str, float]]:
    """Means over users by what was asked, with the number of users.

    Raises: DataError: nobody could be asked.
    """
    return {name: {"users": one.n_users, **one.means()} for name, one in sums.items()}
