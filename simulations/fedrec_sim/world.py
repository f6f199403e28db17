"""What every row of a simulation shares: data, frozen model, item features. Loaded once a process."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel

from fedrec.config import ModelConfig, ShapeConfig, SimulationConfig
from fedrec.data.catalog import ItemCatalog
from fedrec.data.sequences import UserSequence, build_sequences
from fedrec.data.sources import cache_dir, fetch, list_sources
from fedrec.data.splits import EvaluationSplit, leave_one_out, split_by
from fedrec.data.stored import Derived, StoredInteractions
from fedrec.errors import ConfigError, ModelError
from fedrec.model.backbone import Backbone, convert_gguf, load_backbone, pick_device, pick_dtype
from fedrec.model.features import ItemFeatures, item_features
from fedrec.model.recommender import AdapterShape, build_model
from fedrec_sim.datasets import GENERATED, Interactions, Say, load_data
from fedrec_sim.public_data import with_public_behaviour

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
    """Data and frozen model of a simulation."""

    config: SimulationConfig
    catalog: ItemCatalog
    table: Interactions = field(repr=False)
    backbone: Backbone = field(repr=False)
    features: ItemFeatures = field(repr=False)

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

    def model(self, shape: ShapeConfig, seed: int) -> PeftModel:
        """A fresh adapter around the shared frozen backbone. LoRA layers of an earlier adapter are taken off first."""
        adapter_shape = AdapterShape(**shape.model_dump())
        backbone = load_backbone(
            model_folder(self.config.model.backbone, lambda _: None),
            self.config.model.layers,
            pick_device(self.config.model.device),
            next(self.backbone.module.parameters()).dtype,
        )
        return build_model(backbone, self.features, adapter_shape, seed).to(pick_device(self.config.model.device))


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
    if config.model.threads:
        torch.set_num_threads(config.model.threads)
    catalog, table = load_data(config.data.source, say, config.data.users)
    device = pick_device(config.model.device)
    folder = model_folder(config.model.backbone, say)
    backbone = load_backbone(folder, config.model.layers, device, pick_dtype(config.model.dtype, device))
    say(f"reading the catalogue's {len(catalog)} texts")
    features = item_features(
        catalog,
        folder,
        encoder_folder(config.model),
        layer=config.model.feature_layer,
        dim=config.model.feature_dim,
        cache=cache_dir(),
    )
    if config.model.public_data != "none":
        public, dim = config.model.public_data, config.model.public_dim
        features = with_public_behaviour(features, catalog, public, dim, table, say)
    return World(config, catalog, table, backbone, features)


def drawn_users(config: SimulationConfig) -> int:
    """How many of the data's users take part, if not all; 0 for all, and for users who were made."""
    return 0 if config.data.source == GENERATED else config.data.users


def model_folder(name: str, say: Say) -> Path:
    """A known model, fetched and converted once, or a Hugging Face folder. A folder cannot pass for a known model."""
    if name not in {s.name for s in list_sources() if s.kind == "model"}:
        if Path(name).is_dir():
            return Path(name)
        raise ModelError(f"model {name!r} is neither a folder nor known", "see `fedrec model list`")
    say(f"{name}")
    folder = fetch(name)
    ggufs = sorted(folder.glob("*.gguf"))
    return convert_gguf(ggufs[0], cache_dir() / "converted" / name) if ggufs else folder


def encoder_folder(config: ModelConfig) -> Path | None:
    """The sentence encoder's folder, or None."""
    return None if config.sentence_encoder == "none" else model_folder(config.sentence_encoder, lambda _: None)
