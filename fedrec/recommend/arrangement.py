"""From scored candidates to the list that is shown. Deterministic: equal scores go by code.

The order of the steps:
1. Candidates that are hidden, filtered out, excluded or blocked go.
2. The final ranking weighs features; boosts add nats; what is like unwanted things loses nats.
3. Pins that are open take their places, and count in everything that follows.
4. Places that are left are given one by one, by score, difference and calibration together. Quotas are hard limits: an
   item whose quota is full is passed over, whatever its score, and the list goes on with others; it is shorter than n
   only if nothing more may be in it. (With quotas that overlap, another choice might have found one more.) A pin stands
   even where a quota is full, and leaves less for others. Floors of exposure come after quotas: among what these leave
   open, groups get the places that they are owed; or, amortised, their price is among the boosts.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import DataError
from fedrec.recommend.compiled_rules import CompiledRules
from fedrec.recommend.diversity import Dpp, Gain, Mmr, Plain, Scaled, choose
from fedrec.recommend.feedback import less_like
from fedrec.recommend.final import FinalWeights, feature_columns, final_scores, standardised
from fedrec.recommend.floors import FairShares, Floors
from fedrec.recommend.popularity import Calibration, Popularity
from fedrec.recommend.shelf import Shelf

Codes = NDArray[np.int32]
Floats = NDArray[np.float64]
Vectors = Callable[[Codes], NDArray[np.float32]]
# Where relevance or scores are to count nothing they still decide between equals.
_LEAST = 1e-6


@dataclass(frozen=True)
class ArrangementSettings:
    """How a list is made of candidates.

    Attributes:
        relevance: of mmr and dpp, 0..1: 1 is relevance alone.
        calibration: 0..1, how far the share of popular items follows the history's.
        negative: nats that something quite like an unwanted thing loses.
    """

    weights: FinalWeights = field(default_factory=FinalWeights)
    diversity: Literal["none", "mmr", "dpp"] = "none"
    relevance: float = 0.7
    calibration: float = 0.0
    negative: float = 1.0

    @property
    def is_by_score(self) -> bool:
        """Whether nothing but the score decides among candidates."""
        return (self.diversity == "none" or self.relevance >= 1) and self.calibration == 0


@dataclass(frozen=True, repr=False)
class Audience:
    """For whom a list is. Private.

    Attributes:
        history: codes.
        blocked: bool `[items]`, not to be shown: seen, on an earlier page, on the person's own list; None: nothing.
        unwanted: vectors `[things, d]` of what was disliked; None: nothing.
    """

    history: Codes = field(default_factory=lambda: np.zeros(0, np.int32))
    blocked: NDArray[np.bool_] | None = None
    unwanted: NDArray[np.float32] | None = None


@dataclass(frozen=True, repr=False)
class Placed:
    """A place of a list.

    Attributes:
        score: of the final ranking, nats; of a pinned item that was no candidate the mean of the others'.
        rules: names of those that boosted, buried or pinned it.
    """

    code: int
    score: float
    rules: tuple[str, ...] = ()
    is_pinned: bool = False


def arrange(
    shelf: Shelf,
    candidates: Codes,
    scores: NDArray[np.float32],
    vectors: Vectors,
    n: int,
    settings: ArrangementSettings,
    rules: CompiledRules,
    popularity: Popularity,
    person: Audience,
    now: float,
    offset: int = 0,
    fair: FairShares | None = None,
) -> list[Placed]:
    """Up to n places, best first, no item twice.

    Args:
        candidates, scores: `[m]`; a code that stands twice counts once, with its first score.
        vectors: of codes, for difference; asked only if it is wanted.
        offset: places on earlier pages: a pin's position counts from the first of them.
        fair: what groups of items are to get of the places; None: nothing.
    Raises: DataError: lengths that do not fit.
    """
    if candidates.shape != scores.shape or candidates.ndim != 1:
        raise DataError("candidates and scores have different lengths", "give one score for each")
    is_open = rules.open if person.blocked is None else rules.open & ~person.blocked
    codes, first = np.unique(candidates, return_index=True)
    kept = is_open[codes]
    codes, model = codes[kept], scores[first][kept]
    pins = _places(rules, is_open, n, offset)
    final = _final(settings.weights, shelf, codes, model, popularity, now)
    extra = np.setdiff1d(np.array(list(pins.values()), codes.dtype), codes) if pins else codes[:0]
    final = np.append(final, np.full(len(extra), final.mean() if len(final) else 0.0))
    codes = np.append(codes, extra)
    found = _vectors_of(codes, vectors, settings, person)
    final = final + rules.boost[codes] - _likeness(found, settings, person)
    final = final if fair is None else final + fair.boost(codes)
    at = {place: int((codes == code).argmax()) for place, code in pins.items()}
    if settings.is_by_score and not rules.quotas and not (fair and fair.is_each):
        chosen = _highest(final, n - len(pins), list(at.values()))
    else:
        limits = _Limits(rules, codes, n)
        gains: list[Gain] = [limits, *_gains(codes, final, found, settings, popularity, person)]
        floors = Floors(fair, codes, n) if fair and fair.is_each else None
        gains += [floors] if floors else []
        may_take = (lambda: floors.may_take(limits.may_take())) if floors else limits.may_take
        chosen = choose(n - len(pins), gains, may_take, list(at.values()))
    return [
        Placed(int(codes[index]), float(final[index]), rules.names_of(int(codes[index])), is_pinned)
        for index, is_pinned in _merged(chosen, at, n)
    ]


def _final(
    weights: FinalWeights,
    shelf: Shelf,
    codes: Codes,
    model: NDArray[np.float32],
    popularity: Popularity,
    now: float,
) -> Floats:
    """The final ranking, `[candidates]`; with the model's weight alone it is the model's score."""
    if weights.is_model_alone and np.isfinite(model).all():
        return model.astype(np.float64)
    return final_scores(feature_columns(weights, shelf, codes, model, popularity, now), weights)


def _highest(final: Floats, n: int, taken: list[int]) -> list[int]:
    """What `choose` gives where the score alone decides: candidates are in the order of their codes."""
    order = np.argsort(-final, kind="stable")[: n + len(taken)].tolist()
    return [index for index in order if index not in taken][:n]


def _places(rules: CompiledRules, is_open: NDArray[np.bool_], n: int, offset: int) -> dict[int, int]:
    """Codes of pins by their place on this page, from 0; where one is taken the next free one is given."""
    places: dict[int, int] = {}
    for pin in rules.pins:
        place = pin.position - 1 - offset
        if place < 0 or not is_open[pin.code] or pin.code in places.values():
            continue
        while place in places:
            place += 1
        if place < n:
            places[place] = pin.code
    return dict(sorted(places.items()))


def _has_unwanted(settings: ArrangementSettings, person: Audience) -> bool:
    return person.unwanted is not None and len(person.unwanted) > 0 and settings.negative > 0


def _vectors_of(codes: Codes, vectors: Vectors, settings: ArrangementSettings, person: Audience) -> NDArray[np.float32]:
    """Of each candidate, if anything asks for them: `[candidates, d]`."""
    is_asked = (settings.diversity != "none" and settings.relevance < 1) or _has_unwanted(settings, person)
    return vectors(codes) if len(codes) and is_asked else np.zeros((len(codes), 1), np.float32)


def _likeness(found: NDArray[np.float32], settings: ArrangementSettings, person: Audience) -> Floats:
    """Nats that candidates lose for being like unwanted things: `[candidates]`."""
    if person.unwanted is None or not len(found) or not _has_unwanted(settings, person):
        return np.zeros(len(found))
    return settings.negative * less_like(person.unwanted, found)


def _gains(
    codes: Codes,
    final: Floats,
    vectors: NDArray[np.float32],
    settings: ArrangementSettings,
    popularity: Popularity,
    person: Audience,
) -> list[Gain]:
    wanted = popularity.share_of(person.history) if settings.calibration > 0 else None
    relevance = max(settings.relevance, _LEAST)
    scores = standardised(final[:, None])[:, 0]
    match settings.diversity if settings.relevance < 1 else "none":
        case "mmr":
            gain: Gain = Mmr(scores, vectors, relevance)
        case "dpp":
            gain = Dpp(scores, vectors, relevance)
        case _:
            gain = Plain(scores)
    if wanted is None:
        return [gain]
    calibration = Calibration(popularity.classes[codes], wanted, settings.calibration)
    return [Scaled(gain, max(1 - settings.calibration, _LEAST)), calibration]


class _Limits:
    """Quotas as a gain that adds nothing and closes what is full."""

    def __init__(self, rules: CompiledRules, codes: Codes, n: int) -> None:
        self._limited = rules.limited[:, codes] if rules.quotas else np.zeros((0, len(codes)), bool)
        self._left = np.array([quota.most(n) for quota in rules.quotas], np.int64)
        self._zero = np.zeros(len(codes))
        self._open = self._not_full()

    def gain(self) -> Floats:
        return self._zero

    def take(self, candidate: int) -> None:
        hit = self._limited[:, candidate]
        self._left -= hit
        if (self._left[hit] <= 0).any():
            self._open = self._not_full()

    def may_take(self) -> NDArray[np.bool_]:
        return self._open

    def _not_full(self) -> NDArray[np.bool_]:
        return ~np.asarray(self._limited[self._left <= 0].any(0), bool)


def _merged(chosen: list[int], pins: dict[int, int], n: int) -> list[tuple[int, bool]]:
    """Pins at their places, the others in between; a pin whose place lies beyond a short list ends it."""
    others, waiting = iter(chosen), dict(pins)
    listed: list[tuple[int, bool]] = []
    while len(listed) < n:
        if (index := waiting.pop(len(listed), None)) is not None:
            listed.append((index, True))
        elif (index := next(others, None)) is not None:
            listed.append((index, False))
        else:
            break
    return listed + [(index, True) for index in waiting.values()]
