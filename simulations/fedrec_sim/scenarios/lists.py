"""Lists of a scenario: a row's scores, arranged by the scenario's rules as a service would arrange them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fedrec.config import ScenarioConfig
from fedrec.data.scene import Fields, Scene
from fedrec.fairness.figures import NOTHING
from fedrec.recommend.arrangement import ArrangementSettings, Audience, arrange
from fedrec.recommend.compiled_rules import CompiledRules, RuleTable
from fedrec.recommend.filters import Filters
from fedrec.recommend.popularity import Popularity
from fedrec.recommend.rules import RuleBook
from fedrec.recommend.shelf import Item, Shelf
from fedrec.rows import row_mode

PLACES = 10
Lists = NDArray[np.int64]


@dataclass(frozen=True)
class Questions:
    """Whom lists are for. Private.

    Attributes:
        scores: float32 `[people, items]`, nats; -inf of what is not to be shown again.
        histories: catalogue codes, oldest first.
        labels: what is known of each.
    """

    scores: NDArray[np.float32] = field(repr=False)
    histories: Sequence[NDArray[np.int32]] = field(repr=False)
    labels: Sequence[Fields] = field(repr=False)

    def of(self, chosen: NDArray[np.int64]) -> "Questions":
        """Some of the people."""
        places = chosen.tolist()
        some = ([own[at] for at in places] for own in (self.histories, self.labels))
        return Questions(self.scores[chosen], *some)


def in_nats(scores: NDArray[np.float32], row: str) -> NDArray[np.float32]:
    """Scores to which a boost in nats can be added.

    A federated row's are logits. A baseline's are counts or sums of likenesses, which no boost fits: their order is
    kept, and minus the logarithm of the rank stands for the score.
    """
    if row_mode(row):
        return scores
    order = np.argsort(-scores, axis=1, kind="stable")
    ranks = np.empty(scores.shape, np.float32)
    np.put_along_axis(ranks, order, np.arange(1, scores.shape[1] + 1, dtype=np.float32)[None], 1)
    return np.where(np.isfinite(scores), -np.log(ranks), -np.inf).astype(np.float32)


class Lister:
    """Makes lists of ten as a service of this scenario would.

    Args:
        popularity: interactions per item in training, `[items]`.
    """

    def __init__(self, scene: Scene, scenario: ScenarioConfig, popularity: NDArray[np.float64]) -> None:
        self.now = float(scene.log.timestamps.max())
        self.book = scenario.book()
        self._shelf = Shelf(_items(scene, scenario.fields))
        self._filters = Filters(self._shelf)
        self._popularity = Popularity.of(popularity)
        self._settings = ArrangementSettings(calibration=scenario.calibration)

    @cached_property
    def _none(self) -> CompiledRules:
        n_items = len(self._shelf)
        return CompiledRules(np.ones(n_items, bool), np.zeros(n_items, np.float32))

    def plain(self, asked: Questions) -> Lists:
        """By score alone, `[people, PLACES]`."""
        settings = ArrangementSettings()
        return self._every(asked, [self._none] * len(asked.histories), settings)

    def ruled(self, asked: Questions, without: str = "") -> Lists:
        """By the rules and the calibration, `[people, PLACES]`; a short list ends in `NOTHING`.

        Args:
            without: name of a rule that is left out, to see what it does.
        """
        kept = RuleBook(rules=tuple(rule for rule in self.book.rules if rule.name != without))
        table = RuleTable(self._shelf, self._filters, kept)
        return self._every(asked, [table.in_force(self.now, own) for own in asked.labels], self._settings)

    def _every(self, asked: Questions, rules: Sequence[CompiledRules], settings: ArrangementSettings) -> Lists:
        lists = np.full((len(asked.histories), PLACES), NOTHING, np.int64)
        for row, own, scores, history in zip(lists, rules, asked.scores, asked.histories, strict=True):
            codes = np.flatnonzero(np.isfinite(scores)).astype(np.int32)
            placed = arrange(
                self._shelf,
                codes,
                scores[codes],
                lambda some: np.zeros((len(some), 1), np.float32),
                PLACES,
                settings,
                own,
                self._popularity,
                Audience(history, blocked=~np.isfinite(scores)),
                self.now,
            )
            row[: len(placed)] = [one.code for one in placed]
        return lists


def _items(scene: Scene, fields: tuple[str, ...]) -> list[Item]:
    """The catalogue as a service has it, with the fields that the scenario names and no others."""
    catalog = scene.catalog
    columns = zip(catalog.ids, catalog.titles, catalog.categories, scene.appeared.tolist(), scene.fields, strict=True)
    return [
        Item(name, title, "", kinds, at, fields={key: value for key, value in own.items() if key in fields})
        for name, title, kinds, at, own in columns
    ]
