"""What every row of a simulation shares: data, frozen model, item features. Loaded once a process."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from peft import PeftModel

from fedrec.config import ScenarioConfig, ShapeConfig, SimulationConfig
from fedrec.data.catalog import ItemCatalog
from fedrec.data.datasets import MADE, Interactions, Say, generated_from, load_data, load_media
from fedrec.data.events import positives
from fedrec.data.media import ItemMedia
from fedrec.data.partition import Places, deal_by_label, deal_users
from fedrec.data.scene import Scene
from fedrec.data.scenes import MADE_SCENES, load_scene
from fedrec.data.sequences import UserSequence, build_sequences
from fedrec.data.splits import EvaluationSplit, leave_one_out, split_by
from fedrec.data.stored import Derived, StoredInteractions
from fedrec.errors import ConfigError
from fedrec.model.backbone import Backbone, pick_device, pick_dtype
from fedrec.model.features import ItemFeatures
from fedrec.model.shared import SharedModel, load_shared

_COUNTED_USERS = 4096


@dataclass(frozen=True)
class Corpus:
    """One seed's view of the data: ties in time are broken by the seed. Private.

    Attributes:
        splits: by the configuration's protocol, one per user; read from the disk one by one where the data are stored
            by user.
        histories: int32 training codes per user, in the same order; empty for who came after training.
        popularity: interactions per item in training, `[items]`.
        n_trained: users with a training history.
    """

    splits: Sequence[EvaluationSplit] = field(repr=False)
    histories: Sequence[np.ndarray] = field(repr=False)
    popularity: np.ndarray = field(repr=False)
    n_trained: int

    @classmethod
    def of(cls, splits: Sequence[EvaluationSplit], n_items: int) -> "Corpus":
        """The view that splits give; a list is held, what is made when asked for stays so."""
        kept = isinstance(splits, list)
        histories = [s.train for s in splits] if kept else Derived(splits, lambda split: split.train)
        popularity, n_trained = np.zeros(n_items), 0
        for start in range(0, len(histories), _COUNTED_USERS):
            some = histories[start : start + _COUNTED_USERS]
            popularity += np.bincount(np.concatenate(some), minlength=n_items)
            n_trained += sum(len(history) > 0 for history in some)
        return cls(splits, histories, popularity, n_trained)

    def trained_on(self, users: Iterable[int]) -> list[np.ndarray]:
        """Histories of those of the users who have one: the others are nobody's users while training goes on."""
        return [history for history in map(self.histories.__getitem__, users) if len(history)]


@dataclass(frozen=True)
class World:
    """Data and frozen model of a simulation.

    Attributes:
        table: what is positive.
        scene: of a scenario: the events behind the table, and what rules read; None without one.
    """

    config: SimulationConfig
    catalog: ItemCatalog
    table: Interactions = field(repr=False)
    shared: SharedModel = field(repr=False)
    scene: Scene | None = field(default=None, repr=False)

    @property
    def backbone(self) -> Backbone:
        """Frozen."""
        return self.shared.backbone

    @property
    def features(self) -> ItemFeatures:
        """Of the catalogue's items."""
        return self.shared.features

    def sequences(self, seed: int) -> Sequence[UserSequence]:
        """Every user's whole history, ties in time broken by the seed; or of as many users as are drawn."""
        table = self.table
        every = table.sequences(seed) if isinstance(table, StoredInteractions) else build_sequences(table, seed)
        wanted = drawn_users(self.config)
        if not wanted:
            return every
        if wanted > len(every):
            raise ConfigError(f"data.users is {wanted}, the data have {len(every)}", "ask for fewer, or 0 for all")
        # The first of one shuffled order, so that fewer users are always among more.
        order = np.random.default_rng([seed, 0x5E1EC7]).permutation(len(every))
        return [every[place] for place in sorted(order[:wanted].tolist())]

    def corpus(self, seed: int) -> Corpus:
        """Split the data for one seed by the configuration's protocol."""
        protocol, n_items, sequences = self.config.evaluation.protocol, len(self.catalog), self.sequences(seed)
        if isinstance(sequences, list) or protocol != "B":  # the others are not made to stream
            return Corpus.of(split_by(protocol, list(sequences), seed), n_items)
        return Corpus.of(Derived(sequences, lambda s: leave_one_out([s])[0]), n_items)

    @property
    def made(self) -> str | None:
        """In words, what made users were made from; None if they are real."""
        return self.scene.made if self.scene else generated_from(self.table)

    def shares(self, corpus: Corpus, seed: int) -> list[Places]:
        """Each partner's users, as places in the corpus: at random and alike, or as the scenario says."""
        n_users, partners, scenario = len(corpus.histories), self.config.partners, self.config.scenario
        if scenario is None or self.scene is None or not (scenario.partners_by or scenario.shares):
            return deal_users(n_users, partners, seed)
        labels, by = self.scene.labels, scenario.partners_by
        known = [labels[split.user][by] if by else "" for split in corpus.splits]
        return deal_by_label(known, scenario.shares, partners, seed)

    def model(self, shape: ShapeConfig, seed: int) -> PeftModel:
        """A fresh adapter around the shared frozen backbone. LoRA layers of an earlier adapter are taken off first."""
        return self.shared.with_adapter(shape, seed)


def settle_hardware(config: SimulationConfig) -> SimulationConfig:
    """`auto` and 0 replaced by what this machine has, once a run: a resumed run needs the same for the same bits.

    The dtype is measured, and sums depend on how many threads share them.

    Raises: ModelError: a device that this machine lacks.
    """
    device = pick_device(config.model.device)
    dtype = str(pick_dtype(config.model.dtype, device)).removeprefix("torch.")
    threads = config.model.threads or max(1, torch.get_num_threads() // config.jobs)
    settled = {"device": device.type, "dtype": dtype, "threads": threads}
    return config.model_copy(update={"model": config.model.model_copy(update=settled)})


def on_any_device(config: SimulationConfig) -> SimulationConfig:
    """For reading a run's adapter: not only on a machine with the device that it was trained on."""
    return config.model_copy(update={"model": config.model.model_copy(update={"device": "auto"})})


def load_world(config: SimulationConfig, say: Say = lambda _: None) -> World:
    """Fetch (or take from the cache) and load everything that the rows share; this process gets the run's threads."""
    scene = None
    catalog: ItemCatalog
    table: Interactions
    if config.scenario is not None:
        scene = load_scene(config.data.source, config.data.users, say)
        _refuse_unknown(config.scenario, scene)
        catalog, table = scene.catalog, positives(scene.log, config.scenario.weights, config.scenario.positive_from)
    else:
        catalog, table = load_data(config.data.source, say, config.data.users)
    media = load_media(config.data.source) if config.model.modalities else ItemMedia()
    shared = load_shared(config.model, catalog, table, say, media)
    return World(config, catalog, table, shared, scene)


def _refuse_unknown(scenario: ScenarioConfig, scene: Scene) -> None:
    """Fields and labels that the data do not have. Raises ConfigError: all of them."""
    problems = [f"scenario.fields: no item has {name!r}" for name in sorted({*scenario.fields} - scene.field_names)]
    asked = {label for rule in scenario.book().rules for label in rule.segment}
    asked |= {scenario.partners_by} if scenario.partners_by else set()
    problems += [f"scenario: no user has a label {name!r}" for name in sorted(asked - scene.label_names)]
    if "policy_value" in scenario.metrics and scene.shows is None:
        problems.append("scenario.metrics: policy_value wants a log with propensities")
    if "age_days" in scenario.metrics and not scene.appeared.any():
        problems.append("scenario.metrics: age_days wants items with a time")
    if problems:
        remedy = f"fields: {', '.join(sorted(scene.field_names))}; labels: {', '.join(sorted(scene.label_names))}"
        raise ConfigError.of_all(problems, remedy)


def drawn_users(config: SimulationConfig) -> int:
    """How many of the data's users take part, if not all; 0 for all, and for users who were made."""
    return 0 if config.data.source in {*MADE, *MADE_SCENES} else config.data.users
